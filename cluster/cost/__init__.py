"""A sample -> USD on every instance type -> a cluster by a deadline."""
