"""Bundle + texts -> predictions: what the base install can run."""
