"""Two graphs in one bundle: a cheap one for all rows, a better one for those it is unsure of."""
