"""perceiver_lightning: a research template for training Perceivers with PyTorch Lightning."""
