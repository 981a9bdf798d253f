"""A Ray cluster: nodes join, are checked, work and leave; the only room that knows Ray."""
