"""Whole jobs of others (`bench --peers`): their environments, their texts, and the turns of all."""
