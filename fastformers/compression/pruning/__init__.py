"""A trained model without the heads, neurons and tokens that matter least."""
