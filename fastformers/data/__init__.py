"""Labeled examples in memory: files, columns, labels, SuperGLUE, the demo's text."""
