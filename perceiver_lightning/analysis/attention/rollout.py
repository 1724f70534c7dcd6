"""Attention followed through the whole model: what of the input reaches the output, and by which latents.

**Rollout** (Abnar and Zuidema 2020, arXiv 2005.00928, section 3): heads are averaged, and a layer with a residual hands
on half of what it attends to and half of what it is, (A + I) / 2; the product of all layers says of which inputs the
output is made. Their transformer reads its input once, at the bottom. A Perceiver reads it at each cross-attend, so
here the latents' shares R (N x M) of the input's elements are

    R = 0                      at first: the learned latents hold nothing of the input
    R <- (A R + R) / 2         a self-attend, A (N x N): as in the paper
    R <- (A + R) / 2           a cross-attend, A (N x M): its other half is what the latents have read before
    output = w R               w (N): 1 / N for the mean, the query's attention to the latents for a query decoder

and the output's shares are scaled to a sum of 1: what goes back to the learned latents says nothing of the input. As in
the paper MLPs, values and the sizes of what is added are left out: it is a picture of the ways, no proof of a cause.

It is computed from the output backwards, as rows w times matrices. So neither R nor a cross-attend's N x M weights are
ever materialised: weights are made for so few latents at a time that they are CHUNK numbers, or one latent's.

    seen = record(model, inputs)
    rollout(seen)["image"]     # (B, height, width)

Legend of shapes: B batch, H heads, N latents, R rows that are followed, X cross-attends, Q queries.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from perceiver_lightning.analysis.attention.maps import Record, shares_of, weights_of
from perceiver_lightning.model.attention import Attention, CrossAttend

CHUNK = 2**22  # weights made at a time


@torch.no_grad()
def rollout(seen: Record, latents: Sequence[int] | None = None) -> dict[str, Tensor]:
    """What of the input reaches the output, by modality: (B, *grid) or (B, M), together adding up to 1.

    An example without any element gets 0. The output of several queries is their mean.

    Args:
        seen: the forward pass, of `attention_maps.record`.
        latents: follow these rows of the latents after the last layer instead of the output: (B, R, *grid).
    """
    if latents is None:
        start_BRN = decoder_weights(seen)[:, None]
    else:
        size = seen.latents.shape[1]
        if not all(0 <= row < size for row in latents):
            raise ValueError(f"latents is {list(latents)}: expected rows from 0 to {size - 1}")
        one_hot = torch.eye(size, dtype=seen.latents.dtype, device=seen.latents.device)[list(latents)]
        start_BRN = one_hot.expand(len(seen.latents), -1, -1)
    totals: list[Tensor | float] = [0.0] * len(seen.names)
    for cross, latents_BND, shares_BRN in followed(seen, start_BRN):
        for rows, weights in weights_in_chunks(seen, cross, latents_BND):
            for place, weights_BHN in enumerate(weights):
                flat_BNM = weights_BHN.mean(1).flatten(2)
                totals[place] = totals[place] + shares_BRN[..., rows] @ flat_BNM / 2
    arrays: list[Tensor] = [total for total in totals if isinstance(total, Tensor)]
    whole_BR1 = torch.cat(arrays, -1).sum(-1, keepdim=True)
    maps = {}
    for name, part, array in zip(seen.names, seen.array.parts, arrays, strict=True):
        scaled = (array / whole_BR1).nan_to_num().unflatten(-1, part.content.shape[1:-1])
        maps[name] = scaled[:, 0] if latents is None else scaled
    return maps


@torch.no_grad()
def usage(seen: Record) -> Tensor:
    """How much of the output's attention goes through each latent where a cross-attend reads: (B, X, N), rows of 1.

    The rows are in the order of the computation. Even usage is 1 / N; exp of a row's entropy is how many latents are,
    so to speak, used.
    """
    rows = [shares_BRN[:, 0] for _, _, shares_BRN in followed(seen, decoder_weights(seen)[:, None])]
    return torch.stack([row / row.sum(-1, keepdim=True) for row in reversed(rows)], 1)


@torch.no_grad()
def entropy(seen: Record, cross_attend: int = 0) -> Tensor:
    """Bits of the attention of each latent over the elements of all modalities: (B, H, N).

    0 where all the attention is on one element, and log2 M where it is even: 2 to the entropy is to how many elements
    it goes, so to speak.
    """
    cross, latents_BND = seen.cross_attends[cross_attend]
    chunks = [
        sum((torch.special.entr(part).flatten(3).sum(-1) for part in weights), torch.zeros(()).to(latents_BND))
        for _, weights in weights_in_chunks(seen, cross, latents_BND)
    ]
    return torch.cat(chunks, -1) / torch.log(torch.tensor(2.0)).to(latents_BND)


def similarity(latents_BND: Tensor) -> Tensor:
    """Cosine similarity (B, N, N) of latents (B, N, D), such as `record(...).latents`, those after the last layer."""
    unit = torch.nn.functional.normalize(latents_BND, dim=-1)
    return unit @ unit.mT


def followed(seen: Record, shares_BRN: Tensor) -> Iterator[tuple[CrossAttend, Tensor, Tensor]]:
    """From the last cross-attend to the first: it, the latents that came to it, and the shares of what it gave."""
    for layer, latents_BND in reversed(seen.layers):
        if isinstance(layer, CrossAttend):
            yield layer, latents_BND, shares_BRN
            shares_BRN = shares_BRN / 2
        else:
            x = layer.norm(latents_BND)
            shares_BRN = (shares_BRN + shares_BRN @ dense_weights(layer.attention, x, x)) / 2


def decoder_weights(seen: Record) -> Tensor:
    """What the output takes of each latent: (B, N), rows of 1."""
    batch, count, _ = seen.latents.shape
    if seen.decoder is None:
        return seen.latents.new_full((batch, count), 1 / count)
    cross, queries_BQD = seen.decoder
    inputs = cross.norm_inputs(seen.latents)
    total = seen.latents.new_zeros(batch, count)
    for some in queries_BQD.split(max(1, CHUNK // (batch * cross.attention.heads * count)), 1):
        total += dense_weights(cross.attention, cross.norm_queries(some), inputs).sum(1)
    return total / queries_BQD.shape[1]


def dense_weights(attention: Attention, queries_BND: Tensor, inputs_BMC: Tensor) -> Tensor:
    """The mean (B, N, M) over the heads of the weights of a dense attention without a mask."""
    q, k = attention.query(queries_BND), attention.key(inputs_BMC)
    q, k = (x.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for x in (q, k))
    return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1).mean(1)


def weights_in_chunks(
    seen: Record, cross: CrossAttend, latents_BND: Tensor
) -> Iterator[tuple[list[int], list[Tensor]]]:
    """Rows of the latents, some at a time, and their weights (B, H, n, *grid) on each part of the input array."""
    heads = list(range(cross.attention.heads))
    each = len(heads) * sum(part.content.shape[:-1].numel() for part in seen.array.parts)
    rows, step = list(range(latents_BND.shape[1])), max(1, CHUNK // each)
    for some in (rows[start : start + step] for start in range(0, len(rows), step)):
        shares = shares_of(seen.array, cross, latents_BND[:, some], heads)
        yield some, weights_of(seen.array, [content + position for content, position in shares])
