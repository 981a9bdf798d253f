"""What a run said it would cost, while it went, beside what it did cost."""
