"""Every setting of a search and a training, its defaults and bounds; hashes and recipes. Torch-free."""
