"""The stages of a recipe: what each requires, does and ensures."""
