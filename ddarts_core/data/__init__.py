"""Images as a loop takes them: split, in batches, augmented, in memory or streamed from their files."""
