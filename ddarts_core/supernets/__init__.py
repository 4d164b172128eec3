"""The network that a search trains: mixed edges, cells, and its cells as players of a game."""
