"""Who does which job next: the driver over nodes, a supervisor over one node's slots; no Ray."""
