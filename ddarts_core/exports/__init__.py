"""Networks as files that other tools open, and what is done with these files."""
