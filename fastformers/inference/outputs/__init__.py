"""What callers see of scoring: labels, probabilities, vectors, in Python and Arrow; progress."""
