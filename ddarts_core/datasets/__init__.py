"""Data sets as people have them: their facts, what is read from their files, and what is refused."""
