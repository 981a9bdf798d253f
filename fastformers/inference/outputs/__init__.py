"""What a model's outputs become: labels, probabilities, scores and vectors, in Python and Arrow."""
