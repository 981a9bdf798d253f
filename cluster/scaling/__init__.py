"""How throughput grows with actors and nodes: measured, fitted, simulated; no Ray."""
