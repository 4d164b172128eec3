"""One trial: the Trainable that Ray runs, and what the trial's folder says before the trial begins."""
