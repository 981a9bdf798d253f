"""Models of our own kinds, that no library has."""
