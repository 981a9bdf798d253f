"""A cascade: a student, and behind it a better graph for the rows that it is unsure of."""
