"""What an experiment will take, said before it runs: memory, steps, multiply-adds, time."""
