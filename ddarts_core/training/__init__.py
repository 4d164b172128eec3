"""Training of a derived network from scratch, by one process or several."""
