"""A small model of three modalities, and a batch of inputs for it: for tests."""

import torch
from randomly import randomise
from torch import Tensor

from perceiver_lightning.model import Perceiver

MODALITIES = {
    "image": {"channels": 3, "resolution": [6, 5]},
    "sound": {"channels": 1, "resolution": [8]},
    "points": {"channels": 2, "resolution": [9, 9, 9]},
}


def model(modalities=MODALITIES, **options) -> Perceiver:
    torch.manual_seed(0)
    small = {
        "num_latents": 5,
        "latent_width": 8,
        "cross_attends": [1, 2],
        "self_attends": 1,
        "self_heads": 2,
        "bands": 3,
    }
    made = Perceiver(modalities, 4, **{**small, "cross_heads": 2, "cross_qk_width": 6, **options}).double()
    randomise(made)
    return made


def inputs() -> dict:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    sound_mask = torch.arange(8)[None] < torch.tensor([8, 5, 0])[:, None]
    return {
        "image": {"content": random(3, 6, 5, 3)},
        "sound": {"content": random(3, 8, 1), "mask": sound_mask, "positions": [random(3, 8).clamp(-1, 1)]},
        "points": {"content": random(3, 7, 2), "positions": random(3, 7, 3).clamp(-1, 1)},
    }
