"""Weights for tests of exactness: with a fresh initialisation many a mistake (biases, LayerNorms) would not show."""

import torch
from torch import nn


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draws every parameter, biases and LayerNorms included, so that all of them matter to the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                if isinstance(module, nn.Linear) and name == "weight":
                    drawn *= 2 / module.in_features**0.5
                elif isinstance(module, nn.LayerNorm) and name == "weight":
                    drawn = 1 + drawn / 2
                else:
                    drawn /= 2
                parameter.copy_(drawn)
    return model
