"""Measurements: each module prints a table, writes JSON to benchmarks/results/, and exits with 1 on a missed figure."""
