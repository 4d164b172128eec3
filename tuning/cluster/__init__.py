"""Ray: how it is started or joined, what its machines hold, and whether all of them run the same ddarts."""
