"""What torch leaves open: devices, random streams, tensors without contents, optimisers."""
