"""Cross-attention over grids without materialising positions: the dense attention's result, at the content's cost.

**The observation.** An element of the input array is its content and its position, x = [c; p], and on a grid the
position is one table per axis, p(i, j) = [f(i); g(j)]. Keys are linear in x, so a query's logit splits exactly into

    logit(i, j) = q_c . c(i, j)  +  q_f . f(i)  +  q_g . g(j)            q' = W_k^T q, cut as x is: [q_c; q_f; q_g]

content-based attention, and position-based attention as one number per row and one per column. The sum of the values
splits the same way, as positions meet the weights only through their sums along rows and columns:

    sum_ij a(i, j) p(i, j) = [ sum_i (sum_j a(i, j)) f(i) ;  sum_j (sum_i a(i, j)) g(j) ]

W_k is absorbed into the queries and W_v is applied after the sum, to N rows instead of M. So of the paper's 261
channels 258 are never materialised, and there are neither keys nor values. `kernels/grid_attention.py` does the walk
over the grid.

**The input LayerNorm**, x' = (x - m) r gamma + beta, with m and r = 1 / sqrt(variance + eps) of each element: both
follow from sums over the content and over each table. With q' = gamma W_k^T q / sqrt(E):

    logit(i, j) = r(i, j) ( q_c . c(i, j) + q_f . f(i) + q_g . g(j) - m(i, j) sum(q') )
    sum a x'    = ( sum a r x - sum a r m ) gamma + beta

so m is one more channel of content, content is multiplied by r once, and r multiplies what rows and columns add. The
key's bias and W_k beta shift all logits of a query alike and cancel in the softmax; the value's bias passes through.

**A mask** is one more channel, 0 where an element is and -1e30 where none is, with a query of 1.

**Several modalities** are parts of one softmax: each gives the sums over its own elements and the logarithm of its
sum of exponentials, by which they are merged. The LayerNorm is that of the common width, modality vectors included:
such a vector v adds q_v . v to all of its part's logits. A part whose positions are not separable (free coordinates)
has nothing but content, and is walked over just so.

**Any number of axes**: the axes are taken in two groups, the grid's rows and columns. Heads are just more queries. What
is added per row and column is small beside the grid, but not where one axis is nearly all of it, as in raw sound or
free coordinates: such a part is cut along that axis into pieces, merged as modalities are, and what a piece adds is
forgotten after the forward pass and computed again in the backward pass.

It costs about heads x N x (K + 1) for each element, K the content's channels plus one, where the dense attention
costs the widths of keys and values times (N + C). So it pays for pixels, spectrograms, raw sound and video, and not
for patches of hundreds of channels; `is_cheaper` says which of the two is cheaper.

Legend of shapes: B batch, N queries, H heads, R = H N, C width of the input array, I rows, J columns, K content
channels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from perceiver_lightning.kernels.common import kind_of_device, without_autocast
from perceiver_lightning.kernels.costs import CrossAttendSize, PartSize, separable_is_cheaper
from perceiver_lightning.kernels.grid_attention import grid_attention
from perceiver_lightning.model.attention import Attention
from perceiver_lightning.model.inputs import InputArray, Part
from perceiver_lightning.model.positions import along_axis

NOT_THERE = -1e30  # a logit whose exponential is 0, in float32 too
PIECE = 2**14  # places along one axis: for 512 queries their terms take 32 MiB


class Separable:
    """Reads the input array as `attention.Dense` does, without materialising it.

    Made once for all cross-attends of a forward pass: what does not depend on their weights is computed here.

    Args:
        inputs: the input array, in parts.
        eps: of the cross-attends' LayerNorms over it; torch's own default.
    """

    def __init__(self, inputs: InputArray, eps: float = 1e-5) -> None:
        self.eps = eps
        self.parts = [[GridPart(piece, eps) for piece in pieces_of(part)] for part in inputs.parts]
        masks = [part.mask for part in inputs.parts if part.mask is not None]
        self.anything_B: Tensor | None = None
        if len(masks) == len(inputs.parts):
            self.anything_B = torch.stack([mask.flatten(1).any(-1) for mask in masks]).any(0)

    def read(self, queries_BND: Tensor, norm: nn.LayerNorm, attention: Attention) -> Tensor:
        """What the queries (B, N, D) find in the input array, seen through its LayerNorm: (B, N, D).

        In float32 or wider also under autocast: logits in half precision would be off by tenths. On CUDA float32 is
        what `torch.set_float32_matmul_precision` makes of it.

        Raises:
            ValueError: the LayerNorm has another eps.
        """
        if norm.eps != self.eps:
            raise ValueError(f"eps of the LayerNorm over the inputs: expected {self.eps}, found {norm.eps}")
        dtype = self.parts[0][0].scale_BIJ.dtype

        def linear(x: Tensor, layer: nn.Linear) -> Tensor:
            return F.linear(x, layer.weight.to(dtype), layer.bias.to(dtype))

        with without_autocast(queries_BND.device.type):
            gamma, beta = norm.weight.to(dtype), norm.bias.to(dtype)
            keys_HEC, values_HEC = (
                layer.weight.to(dtype).unflatten(0, (attention.heads, -1)) for layer in (attention.key, attention.value)
            )
            queries_BNHE = linear(queries_BND.to(dtype), attention.query).unflatten(-1, (attention.heads, -1))
            scale = queries_BNHE.shape[-1] ** -0.5
            absorbed_BHNC = torch.einsum("bnhe,hec->bhnc", queries_BNHE * scale, keys_HEC) * gamma
            sums_BHNC = self.sums(absorbed_BHNC.flatten(1, 2)).view_as(absorbed_BHNC) * gamma + beta
            found_BNE = torch.einsum("bhnc,hec->bnhe", sums_BHNC, values_HEC).flatten(2)
            found_BNE = found_BNE + attention.value.bias.to(dtype)
            if self.anything_B is not None:
                found_BNE = found_BNE * self.anything_B[:, None, None]
            # The key's bias takes part with a gradient of 0, as it has in the dense attention.
            found_BND = linear(found_BNE, attention.output) + 0 * attention.key.bias.to(dtype).sum()
        return found_BND.to(queries_BND.dtype)

    def sums(self, queries_BRC: Tensor) -> Tensor:
        """The sums (B, R, C) of r (x - m), weighted by the softmax over the elements of all parts."""
        found = []
        for pieces in self.parts:
            for piece in pieces:
                if len(pieces) == 1:
                    found.append(piece.sums(queries_BRC))
                else:
                    found.append(checkpoint(piece.sums, queries_BRC, use_reentrant=False, preserve_rng_state=False))
        sums, log_sums = zip(*found, strict=True)
        if len(sums) == 1:
            return sums[0]
        return (torch.stack(log_sums).softmax(0)[..., None] * torch.stack(sums)).sum(0)


def is_cheaper(inputs: InputArray, latents: int, heads: int, qk_width: int, v_width: int) -> bool:
    """Whether separable attention costs less than dense, for cross-attends of this form, in the dtype that autocast
    gives the dense one: see `kernels/costs.py`."""
    content = inputs.parts[0].content
    device = kind_of_device(content)
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else content.dtype
    cross = CrossAttendSize(len(content), latents, heads, qk_width + v_width)
    return separable_is_cheaper([size_of(part) for part in inputs.parts], cross, device, dtype.itemsize)


def size_of(part: Part) -> PartSize:
    """What the price of a part depends on. `GridPart` adds a channel for the mean, and one for a mask."""
    features = 0 if part.features is None else part.features.shape[-1]
    return PartSize(
        elements=part.content.shape[1:-1].numel(),
        width=part.width,
        channels=part.content.shape[-1] + features + 1 + (part.mask is not None),
        tables=sum(table.shape[-2:].numel() for table in part.tables),
    )


class GridPart:
    """One part of the input array as `grid_attention` takes it, its axes in two groups: rows and columns."""

    def __init__(self, part: Part, eps: float) -> None:
        content = part.content if part.features is None else beside(part.content, part.features)
        dtype = torch.promote_types(content.dtype, torch.float32)
        content, self.tables = content.to(dtype), [table.to(dtype) for table in part.tables]
        self.modality = None if part.modality is None else part.modality.to(dtype)
        self.sizes = content.shape[1:-1]
        self.row_axes = rows_and_columns(self.sizes) if self.tables else len(self.sizes)
        self.widths = [content.shape[-1], *(table.shape[-1] for table in self.tables)]

        content = content.movedim(-1, 1).contiguous()
        mean, scale = moments(content, self.tables, self.modality, eps)
        channels = [content * scale[:, None], (mean * scale)[:, None]]
        self.masked = part.mask is not None
        if part.mask is not None:
            channels.append((~part.mask[:, None]).to(dtype) * NOT_THERE)
        self.scale_BIJ = self._as_grid(scale)
        self.content_BKIJ = self._as_grid(torch.cat(channels, 1), before=2)

    def _as_grid(self, x: Tensor, before: int = 1) -> Tensor:
        """The axes of the grid, which come after `before` others, as rows and columns."""
        rows = self.sizes[: self.row_axes].numel()
        return x.reshape(*x.shape[:before], rows, self.sizes.numel() // rows).contiguous()

    def sums(self, queries_BRC: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted sums (B, R, C) of r (x - m) here, and the logarithm (B, R) of the sum of all exponentials."""
        q_content, *q_axes, q_modality = queries_BRC.split([*self.widths, queries_BRC.shape[-1] - sum(self.widths)], -1)
        queries = [q_content, -queries_BRC.sum(-1, keepdim=True)]
        if self.masked:
            queries.append(torch.ones_like(queries[1]))
        along = [q @ table.mT for q, table in zip(q_axes, self.tables, strict=True)]
        rows, columns = (
            spread(terms) if terms else q_content.new_zeros(1, 1, 1).expand(*q_content.shape[:2], size)
            for terms, size in zip(
                (along[: self.row_axes], along[self.row_axes :]), self.scale_BIJ.shape[1:], strict=True
            )
        )
        if self.modality is not None:
            rows = rows + q_modality @ self.modality[:, None]
        sums, row_sums, column_sums, log_sums = grid_attention(
            torch.cat(queries, -1), rows, columns, self.content_BKIJ, self.scale_BIJ
        )
        pieces = [sums[..., : self.widths[0]]]
        if self.tables:
            axes = [*along_each(row_sums, self.sizes[: self.row_axes])]
            axes += along_each(column_sums, self.sizes[self.row_axes :])
            pieces += [sums_of_axis @ table for sums_of_axis, table in zip(axes, self.tables, strict=True)]
        if self.modality is not None:
            pieces.append(row_sums.sum(-1, keepdim=True) * self.modality)
        return torch.cat(pieces, -1) - sums[..., self.widths[0], None], log_sums


def pieces_of(part: Part) -> list[Part]:
    """The part, cut along its longest axis into pieces of at most `PIECE` places along it."""
    sizes = part.content.shape[1:-1]
    axis = max(range(len(sizes)), key=lambda axis: sizes[axis])
    axes = len(sizes) - axis  # from the last axis of elements, behind which each array has one more

    def cut(x: Tensor, at: int) -> tuple[Tensor, ...]:
        return x.split(PIECE, at)

    contents = cut(part.content, -1 - axes)
    if len(contents) == 1:
        return [part]
    tables = [cut(table, -2) if at == axis else [table] * len(contents) for at, table in enumerate(part.tables)]
    nothing = [None] * len(contents)
    features = nothing if part.features is None else cut(part.features, -1 - axes)
    masks = nothing if part.mask is None else cut(part.mask, -axes)
    return [
        Part(contents[n], [of_axis[n] for of_axis in tables], features[n], part.modality, masks[n])
        for n in range(len(contents))
    ]


def moments(content: Tensor, tables: Sequence[Tensor], modality: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and 1 / sqrt(variance + eps) over all channels of each element, (B, *grid) each, of a part in pieces.

    From each piece's own mean and variance (Chan, Golub, LeVeque 1979): all terms are positive, so none cancel.

    Args:
        content: (B, C, *grid), channels first, which is many times faster to sum.
        tables: (I, P) or (B, I, P) for each axis.
        modality: (V,).
        eps: of the LayerNorm.
    """
    axes, width = content.ndim - 2, content.shape[1] + sum(table.shape[-1] for table in tables)
    width += 0 if modality is None else len(modality)
    pieces = []  # share of all channels, mean, variance
    if content.shape[1]:
        own = content.mean(1)
        pieces.append((content.shape[1] / width, own, (content - own[:, None]).square().mean(1)))
    for axis, table in enumerate(tables):
        both = torch.var_mean(table, -1, correction=0, keepdim=True)
        variance, own = (along_axis(x, axis, axes)[..., 0] for x in both)
        pieces.append((table.shape[-1] / width, own, variance))
    if modality is not None:
        variance, own = torch.var_mean(modality, -1, correction=0)
        pieces.append((len(modality) / width, own, variance))
    mean = content.new_zeros(content.shape[0], *content.shape[2:])
    for share, own, _ in pieces:
        mean = mean + share * own
    variance = torch.full_like(mean, eps)
    for share, own, spread_of_its_own in pieces:
        variance = variance + share * (spread_of_its_own + (own - mean).square())
    return mean, variance.rsqrt()


def rows_and_columns(sizes: torch.Size) -> int:
    """How many of the axes, from the first, make the rows, so that rows and columns together are fewest."""
    return min(range(1, len(sizes) + 1), key=lambda axes: sizes[:axes].numel() + sizes[axes:].numel())


def spread(terms: Sequence[Tensor]) -> Tensor:
    """One term (B, R, I_a) for each axis, added up for every place on all of them: (B, R, product of the I_a)."""
    total, *others = terms
    for term in others:
        total = (total[..., None] + term[..., None, :]).flatten(-2)
    return total


def along_each(sums: Tensor, sizes: torch.Size) -> list[Tensor]:
    """Sums (B, R, product of the I_a) over places on several axes as sums (B, R, I_a) for each axis."""
    whole = sums.unflatten(-1, sizes) if len(sizes) > 1 else sums
    axes = range(2, 2 + len(sizes))
    return [whole.sum([other for other in axes if other != axis]) if len(sizes) > 1 else whole for axis in axes]


def beside(content: Tensor, features: Tensor) -> Tensor:
    """Content (B, *elements, C) and features (*elements, P) or (B, *elements, P) as one."""
    return torch.cat([content, features.to(content.dtype).expand(*content.shape[:-1], features.shape[-1])], -1)
