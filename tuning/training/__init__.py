"""One training by several workers."""
