"""What machines cost and how fast they are."""
