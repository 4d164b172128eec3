"""What torch leaves to its users: devices, random streams, tensors without contents, optimisers."""
