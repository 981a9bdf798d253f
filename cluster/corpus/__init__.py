"""URIs -> slices of files -> rows."""
