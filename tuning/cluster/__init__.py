"""Ray: started or joined, what its machines hold, and whether they run the same ddarts."""
