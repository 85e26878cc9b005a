"""From predictions and labels to a decision."""
