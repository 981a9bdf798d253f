"""Text of a file -> records, one at a time."""
