"""Rows -> shards -> predictions, on disk."""
