"""Path or URI -> the files that are there, whatever is in them."""
