"""What runs under the interpreter of a job baseline: the standard library and its own packages."""
