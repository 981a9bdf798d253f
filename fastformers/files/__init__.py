"""Path or URI -> the files that are there, their bytes and kind; locks of what is being made."""
