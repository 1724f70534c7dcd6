"""Attention maps: where a latent looks, and whether for what is there or for where it lies.

A query's logit for an element is q . W_k LN(x) / sqrt(E) with x = [content, position]: the content channels' share of
it is content-based attention, the rest (positions, modality vector, biases) is position-based attention; the two add up
to the logit. Both come from the parts of the input array, which is never materialised: memory grows with the chosen
latents times the elements, and with nothing else.

    maps = attention_maps(model, inputs, cross_attend=0, latents=[0, 1, 2])
    maps["image"].weights  # (B, H, 3, height, width)

`rollout.py` follows them to the output, and `drawing.py` draws them.

Legend of shapes: B batch, H heads, N chosen latents, E width of a head, C width of the input array.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from perceiver_lightning.model import Perceiver
from perceiver_lightning.model.attention import CrossAttend, SelfAttend
from perceiver_lightning.model.decoders import QueryDecoder
from perceiver_lightning.model.inputs import InputArray, Part
from perceiver_lightning.model.separable import moments


@dataclass(frozen=True)
class Maps:
    """What chosen latents make of one modality, for each element: (B, H, N, *grid) or (B, H, N, M).

    Attributes:
        weights: of the attention; with those of the other modalities they add up to 1. 0 where masked.
        content: the content channels' share of the logits.
        position: the rest of the logits.
        mask: bool (B, *grid) or (B, M), True where an element is there; None where all are.
    """

    weights: Tensor
    content: Tensor
    position: Tensor
    mask: Tensor | None = None

    def alone(self, share: str) -> Tensor:
        """Attention by one share of the logits only, "content" or "position": a softmax over this modality."""
        logits = getattr(self, share)
        if self.mask is not None:
            logits = logits.masked_fill(~self.mask[:, None, None], -torch.inf)
        return logits.flatten(3).softmax(-1).nan_to_num().view_as(logits)


@dataclass(frozen=True)
class Record:
    """One forward pass, as far as attention is concerned.

    Attributes:
        names: of the modalities, one for each part of the input array.
        array: the input array, in parts.
        layers: the cross-attends and self-attends in the order of the computation, each with the latents (B, N, D) that
            came to it. Layers that share weights are there as often as they were passed.
        latents: (B, N, D), after the last layer.
        decoder: the query decoder's cross-attend and the queries that came to it; None where the mean is taken.
    """

    names: Sequence[str]
    array: InputArray
    layers: Sequence[tuple[CrossAttend | SelfAttend, Tensor]]
    latents: Tensor
    decoder: tuple[CrossAttend, Tensor] | None

    @property
    def cross_attends(self) -> list[tuple[CrossAttend, Tensor]]:
        """Those layers that are cross-attends."""
        return [(layer, latents) for layer, latents in self.layers if isinstance(layer, CrossAttend)]


@torch.no_grad()
def record(perceiver: Perceiver, inputs: Mapping[str, Mapping[str, Any]]) -> Record:
    """Run the model on a batch's inputs and keep what its layers were given; its mode (training or not) stays."""
    layers: list[tuple[Any, Tensor]] = []
    decoder: list[Any] = []
    if not isinstance(perceiver, Perceiver):
        raise ValueError(
            "perceiver: expected a Perceiver, such as `perceivers()[modality]` of late fusion, with the inputs of that "
            f"modality alone, or of an ensemble, found {type(perceiver).__name__}"
        )
    modules = [*perceiver.cross_attends, *(layer for stack in perceiver.stacks for layer in cast(Any, stack))]
    hooks = [
        module.register_forward_pre_hook(lambda module, given: layers.append((module, given[0]))) for module in modules
    ]
    hooks.append(perceiver.decoder.register_forward_pre_hook(lambda module, given: decoder.append(given[0])))
    if isinstance(perceiver.decoder, QueryDecoder):
        hooks.append(
            perceiver.decoder.cross_attend.register_forward_pre_hook(
                lambda module, given: decoder.append((module, given[0]))
            )
        )
    try:
        perceiver.forward(inputs)  # not by a call: a compiled model would skip the hooks
    finally:
        for hook in hooks:
            hook.remove()
    names = [name for name in perceiver.inputs.channels if name in inputs]
    latents, *queries = decoder
    return Record(names, perceiver.input_array(inputs), layers, latents, queries[0] if queries else None)


def attention_maps(
    perceiver: Perceiver,
    inputs: Mapping[str, Mapping[str, Any]],
    cross_attend: int = 0,
    latents: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> dict[str, Maps]:
    """The maps of one cross-attend, by modality.

    Args:
        perceiver: the model; its mode (training or not) stays unchanged.
        inputs: of a batch.
        cross_attend: which one, from 0, in the order of the computation; those that share weights count each.
        latents: which rows of the latent array; all when not given.
        heads: which heads; all when not given.

    Raises:
        ValueError: when there is no such cross-attend, latent or head.
    """
    return maps_of(record(perceiver, inputs), cross_attend, latents, heads)


@torch.no_grad()
def maps_of(
    seen: Record, cross_attend: int = 0, latents: Sequence[int] | None = None, heads: Sequence[int] | None = None
) -> dict[str, Maps]:
    """`attention_maps` of a forward pass that was recorded: of several cross-attends without running it again."""
    count = len(seen.cross_attends)
    if not 0 <= cross_attend < count:
        raise ValueError(f"cross_attend is {cross_attend}: expected 0 to {count - 1}, as the model has {count}")
    cross, latents_BND = seen.cross_attends[cross_attend]
    chosen = {}
    for key, given, size in (("latents", latents, latents_BND.shape[1]), ("heads", heads, cross.attention.heads)):
        chosen[key] = list(range(size) if given is None else given)
        if not all(0 <= row < size for row in chosen[key]):
            raise ValueError(f"{key} is {chosen[key]}: expected rows from 0 to {size - 1}")
    shares = shares_of(seen.array, cross, latents_BND[:, chosen["latents"]], chosen["heads"])
    weights = weights_of(seen.array, [content + position for content, position in shares])
    return {
        name: Maps(weight, *share, part.mask)
        for name, weight, share, part in zip(seen.names, weights, shares, seen.array.parts, strict=True)
    }


def shares_of(
    array: InputArray, cross: CrossAttend, latents_BND: Tensor, heads: Sequence[int]
) -> list[tuple[Tensor, Tensor]]:
    """The two shares (B, H, N, *grid) of the logits of these latents and heads, for each part of the input array."""
    attention, norm = cross.attention, cross.norm_inputs

    def by_head(x: Tensor, axis: int) -> Tensor:
        return x.unflatten(axis, (attention.heads, -1)).movedim(axis, 0)[heads]

    queries_BHNE = by_head(attention.query(cross.norm_queries(latents_BND)), 2).transpose(0, 1)
    queries_BHNE = queries_BHNE * queries_BHNE.shape[-1] ** -0.5
    absorbed_BHNC = torch.einsum("bhne,hec->bhnc", queries_BHNE, by_head(attention.key.weight, 0))
    bias_BHN = torch.einsum("bhne,he->bhn", queries_BHNE, by_head(attention.key.bias, 0))
    return [logits_of(part, absorbed_BHNC, bias_BHN, norm.weight, norm.bias, norm.eps) for part in array.parts]


def logits_of(
    part: Part, queries_BHNC: Tensor, bias_BHN: Tensor, gamma: Tensor, beta: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """The two shares (B, H, N, *grid) of the logits of one part, from queries that have absorbed the keys' weights."""
    axes = part.content.ndim - 2
    # Features are float32 whatever the content is: see `positions.fourier_features`.
    features = (
        [] if part.features is None else [part.features.expand(*part.content.shape[:-1], -1).to(part.content.dtype)]
    )
    whole = torch.cat([part.content, *features], -1) if features else part.content
    own = [table.to(whole.dtype) for table in part.tables]
    mean, scale = (x[:, None, None] for x in moments(whole.movedim(-1, 1), own, part.modality, eps))
    widths = [part.content.shape[-1], *(table.shape[-1] for table in part.tables), *(x.shape[-1] for x in features)]
    scaled = queries_BHNC * gamma
    content, *others, modality = scaled.split([*widths, scaled.shape[-1] - sum(widths)], -1)
    tables, rest = others[: len(part.tables)], others[len(part.tables) :]

    def products(queries: Tensor, elements: Tensor) -> Tensor:
        """(B, H, N, C) with (B, *grid, C): (B, H, N, *grid)."""
        flat = torch.einsum("bhnc,bmc->bhnm", queries, elements.flatten(1, -2))
        return flat.unflatten(-1, elements.shape[1:-1])

    def once(x: Tensor) -> Tensor:
        """(B, H, N) to be added to (B, H, N, *grid)."""
        return x[(...,) + (None,) * axes]

    of_content = scale * (products(content, part.content) - mean * once(content.sum(-1)))
    position = -mean * once(scaled.sum(-1) - content.sum(-1))
    for axis, (queries, table) in enumerate(zip(tables, own, strict=True)):
        along = queries @ (table.mT if table.ndim == 2 else table.mT[:, None])  # (B, H, N, I)
        position = position + along.view(*along.shape[:3], *(-1 if other == axis else 1 for other in range(axes)))
    for queries, elements in zip(rest, features, strict=True):
        position = position + products(queries, elements)
    if part.modality is not None:
        position = position + once(modality @ part.modality)
    shifts = queries_BHNC * beta
    of_content = of_content + once(shifts[..., : widths[0]].sum(-1))
    return of_content, scale * position + once(shifts[..., widths[0] :].sum(-1) + bias_BHN)


def weights_of(array: InputArray, logits: Sequence[Tensor]) -> list[Tensor]:
    """One softmax over the elements of all parts, cut into parts again; rows with nothing to attend to are 0."""
    masked = [
        x if part.mask is None else x.masked_fill(~part.mask[:, None, None], -torch.inf)
        for x, part in zip(logits, array.parts, strict=True)
    ]
    flat = torch.cat([x.flatten(3) for x in masked], -1).softmax(-1).nan_to_num()
    pieces = flat.split([x[0, 0, 0].numel() for x in masked], -1)
    return [piece.view_as(x) for piece, x in zip(pieces, masked, strict=True)]
