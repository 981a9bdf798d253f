"""What a person, `ray submit` or `ray job submit` runs: arguments in, report out."""
