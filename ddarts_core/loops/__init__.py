"""What the two loops, search and retrain, share: records, losses, confusion matrices, checkpoints."""
