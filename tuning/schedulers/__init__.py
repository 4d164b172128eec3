"""Which trials end early: Ray's schedulers, populations, and the budget of time."""
