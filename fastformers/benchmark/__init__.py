"""Engines beside each other."""
