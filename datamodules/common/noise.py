"""White noise on single examples."""

import numpy as np
import torch
from torch import Tensor


def noisy(content: Tensor, level: float, generator: torch.Generator | None) -> Tensor:
    """Content with white noise of `level` times its own standard deviation; integers are rounded and clipped.

    Without a generator, in training, the level is drawn too, evenly from none to `level`, so that a model also sees
    clean examples.
    """
    if generator is None:
        level *= float(torch.rand(()))
    dtype = content.dtype if content.is_floating_point() else torch.float32
    noise = torch.randn(content.shape, dtype=dtype, generator=generator).numpy()
    own = content.numpy()  # for a single example torch would wake all its threads, which takes longer than the work
    noise *= level * own.std(dtype=noise.dtype)
    noise += own
    if content.is_floating_point():
        return torch.from_numpy(noise)
    limits = torch.iinfo(content.dtype)
    np.clip(np.rint(noise, out=noise), limits.min, limits.max, out=noise)
    return torch.from_numpy(noise.astype(own.dtype))
