"""One trial: Ray's Trainable, and what its folder says before it begins."""
