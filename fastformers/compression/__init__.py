"""Teacher -> bundle: distill, prune, trim, quantize, and prove it."""
