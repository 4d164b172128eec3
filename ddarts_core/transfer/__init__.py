"""A derived network as the backbone of torchvision's detectors, trained on other tasks (D-DARTS section 5.5)."""
