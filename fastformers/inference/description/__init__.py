"""What a bundle says of itself to people: how good it proved to be, its labels, its card."""
