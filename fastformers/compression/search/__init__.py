"""Search for the cheapest recipe that is still good enough."""
