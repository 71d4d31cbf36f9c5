"""What shows the answer to the line."""
