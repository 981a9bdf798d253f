"""What a node needs before it works: the bundle of the run, and a comparison with the driver."""
