"""What `benchmarks.grid_attention` measures: a step of each rival on each work."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

OURS = "separable"
PRODUCTS = "products of the latent stacks"

Step = Callable[[], None]


def build(
    rival: str,
    model: str,
    side: int,
    batch: int,
    frames: int = 0,
    bf16: bool = False,
    backward: bool = True,
) -> tuple[Step, int]:
    """A step of a rival at a work, and its number of parameters."""
    torch.manual_seed(0)
    use_rival(rival)
    if rival.startswith("separable at "):
        side = int(rival.split()[-1])
    kind = "dense" if rival.startswith("dense") else "separable"
    size = [frames, side, side] if frames else [side, side]
    if model == "patches":
        size, channels = [side // 16, side // 16], 768
    else:
        channels = 3
    content = torch.randn(batch, *size, channels)
    if rival == "floor":
        return floor(content, backward), 0
    if model == "cross-attend":
        return one_cross_attend(kind, content, backward)
    if rival == PRODUCTS:
        return products_of_latent_stacks()
    net, given = network(rival, model, kind, content)
    labels = torch.randint(0, 1000, (batch,))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16 and "float32" not in rival):
            loss = F.cross_entropy(given(), labels)
        loss.backward()
        optimizer.step()

    return step, sum(parameter.numel() for parameter in net.parameters())


def use_rival(rival: str) -> None:
    """Put the rival's way of dense attention in the place of ours."""
    from perceiver_lightning.kernels import plain_attention

    if rival.endswith("not padded"):
        plain_attention.to_multiple_of_8 = lambda x: x
    if rival.startswith("dense, fused"):
        plain_attention.PLAIN_LOGITS = {}
    elif rival.startswith("dense, plain"):
        plain_attention.PLAIN_LOGITS = dict.fromkeys(plain_attention.PLAIN_LOGITS, sys.maxsize)


def network(rival: str, model: str, kind: str, content: torch.Tensor) -> tuple[nn.Module, Callable[[], torch.Tensor]]:
    """The rival's network for a work, and its forward pass."""
    from perceiver_lightning.model import Perceiver

    small = {"num_latents": 128, "latent_width": 256, "self_attends": 2, "cross_qk_width": 64, "cross_v_width": 64}
    size, channels = list(content.shape[1:-1]), content.shape[-1]
    if rival == "perceiver-pytorch":
        from perceiver_pytorch import Perceiver as Public

        theirs = Public(
            num_freq_bands=64, depth=4, max_freq=size[0], input_channels=3, input_axis=len(size), num_latents=128,
            latent_dim=256, cross_heads=1, latent_heads=8, cross_dim_head=64, latent_dim_head=32, num_classes=1000,
            weight_tie_layers=True, self_per_cross_attn=2,
        )  # fmt: skip
        return theirs, lambda: theirs(content)
    if rival == "transformers":
        from transformers import PerceiverConfig, PerceiverForImageClassificationFourier

        sizes: dict[str, Any] = {
            "num_latents": 512, "d_latents": 1024, "num_blocks": 8, "num_self_attends_per_block": 6,
            "num_cross_attention_heads": 1, "num_self_attention_heads": 8, "num_labels": 1000, "image_size": 224,
            "attention_probs_dropout_prob": 0.0,
        }  # fmt: skip
        config = PerceiverConfig(**sizes)
        other = PerceiverForImageClassificationFourier(config)
        pixels = content.movedim(-1, 1)
        return other, lambda: other(inputs=pixels).logits
    if rival == "latent stacks alone":
        (stack,) = Perceiver({"image": {"channels": 3, "resolution": size}}, 1000).stacks
        latents = torch.randn(1, 512, 1024)
        return stack, lambda: functools.reduce(lambda x, _: stack(x), range(8), latents)[:, 0, :1000]
    options: dict[str, Any] = {
        "small": {**small, "cross_attends": [1] * 4},
        "heads": {**small, "cross_attends": [1] * 4, "cross_heads": 8, "cross_qk_width": 64},
        "patches": {**small, "cross_attends": [1] * 4},
        "imagenet": {},
        "io": {"cross_attends": [1] + [0] * 7, "decoder": "query", "query_residual": True},
    }[model]
    facts = {"image": {"channels": channels, "resolution": size}}
    auto = model in ("patches", "heads") and rival == "auto"
    ours = Perceiver(facts, 1000, attention="auto" if auto else kind, **options)  # type: ignore[arg-type]
    return ours, lambda: ours({"image": {"content": content}})


def one_cross_attend(kind: str, content: torch.Tensor, backward: bool) -> tuple[Step, int]:
    """Forward and backward of attention from 512 queries to the paper's input array, its LayerNorm included."""
    from perceiver_lightning.model.attention import Attention, Dense
    from perceiver_lightning.model.inputs import Inputs
    from perceiver_lightning.model.separable import Separable

    inputs = Inputs({"image": {"channels": 3, "resolution": list(content.shape[1:-1])}})
    width = inputs.width
    norm, attention = nn.LayerNorm(width), Attention(width, width, 1, width, width)
    queries = torch.randn(1, 512, width, requires_grad=True)

    def step() -> None:
        array = inputs({"image": {"content": content}})
        reader = Dense(array) if kind == "dense" else Separable(array)
        out = reader.read(queries, norm, attention).sum()
        if backward:
            out.backward()

    return step, sum(parameter.numel() for parameter in (*norm.parameters(), *attention.parameters()))


def products_of_latent_stacks() -> tuple[Step, int]:
    """The products of matrices of the ImageNet model's 48 self-attends alone, forward and backward.

    As in the model, 8 blocks take the weights of the same 6 self-attends in turn, and what these 36 products read and
    write is each one's own: it comes from memory, not from a cache that holds the one before.
    """
    layers = [  # query, key, value, output, and the MLP's two: the input, the weight and its gradient
        [(torch.randn(512, 1024), torch.randn(1024, 1024), torch.zeros(1024, 1024)) for _ in range(6)] for _ in range(6)
    ]
    q, k = torch.randn(8, 512, 128), torch.randn(8, 512, 128)
    w = torch.randn(8, 512, 512)

    def step() -> None:
        for _ in range(8):
            for layer in layers:
                for x, weight, _ in layer:
                    x @ weight
                q @ k.mT, w @ k
        for _ in range(8):
            for layer in reversed(layers):
                for x, weight, gradient in reversed(layer):
                    x @ weight.mT
                    gradient.addmm_(x.mT, x)  # the blocks' gradients are added up as they come
                for _ in range(2):
                    q @ k.mT, w @ k

    return step, 0


def floor(content: torch.Tensor, backward: bool) -> Step:
    """What torch cannot save: an exponential for every logit, in blocks that fit the cache, and the products that stay.

    Forward: logits of 4 channels, exp, sums of 4 channels. Backward: logits, exp, their gradients, the queries'.
    """
    queries, channels = torch.randn(512, 4), torch.randn(4, content.shape[1] * content.shape[2])
    blocks = channels.split(448, -1)

    def step() -> None:
        for block in blocks:
            (queries @ block).exp_() @ block.T
        for block in blocks if backward else ():
            (queries @ block).exp_(), (queries @ block) @ block.T

    return step
