"""The configuration of a sweep, its search space, and how earlier trials are read when the search space has changed."""
