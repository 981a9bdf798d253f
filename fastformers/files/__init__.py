"""Path or URI -> the files that are there, their bytes and what kind of file they are."""
