"""Soft ascent-descent for torch."""
