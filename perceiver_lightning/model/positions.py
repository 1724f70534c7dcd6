"""Positions as features: Fourier bands or learned vectors, for grids and for coordinates of any number of axes.

Positions are numbers in [-1, 1] along each axis. On a grid they are separable: one table of features per axis says all,
and element (i, j) has the features [table_0[i], table_1[j]]. Free coordinates (point clouds) have one row per element.

Legend of shapes: B batch, M elements, A axes, I places along one axis, P features of one axis.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def even_grid(size: int, device: torch.device | str | None = None) -> Tensor:
    """The places (I,) of an axis that says nothing else: `size` of them, evenly over [-1, 1], ends included.

    In float32 whatever the default dtype: in half precision neighbours would fall together.
    """
    return torch.linspace(-1, 1, size, device=device, dtype=torch.float32)


def fourier_features(places: Tensor, highest: float, bands: int) -> Tensor:
    """Places (...,) along one axis as features (..., 2 * bands + 1): the place itself, its sines, its cosines.

    sin(pi f x) and cos(pi f x) for `bands` frequencies f, evenly from 1 to `highest` (Perceiver, section 3.2). Always
    computed in float32 or wider: in half precision the angles of the high bands are noise.
    """
    places = places if places.dtype == torch.float64 else places.float()
    frequencies = torch.linspace(1, highest, bands, device=places.device, dtype=places.dtype)
    angles = places[..., None] * frequencies * math.pi
    return torch.cat([places[..., None], angles.sin(), angles.cos()], -1)


class FourierPositions(nn.Module):
    """Fourier features of places: fixed, no parameters.

    The bands follow from the data's `resolution` (places per axis): the highest frequency is half of it, Nyquist's, or
    `highest_frequency` for all axes. They never follow from an input: a padded or smaller one keeps the features that
    its places have.
    """

    def __init__(self, resolution: Sequence[int], bands: int = 64, highest_frequency: float | None = None):
        super().__init__()
        self.highest = [float(highest_frequency or size / 2) for size in resolution]
        self.bands = bands
        self.width = len(resolution) * (2 * bands + 1)
        self._even: dict[tuple[int, int, torch.device], Tensor] = {}

    def axis(self, axis: int, places: Tensor) -> Tensor:
        """Features (..., P) of places (...) along one axis."""
        return fourier_features(places, self.highest[axis], self.bands)

    def elements(self, coordinates: Tensor) -> Tensor:
        """Features (..., M, P) of coordinates (..., M, A), axis by axis."""
        return torch.cat([self.axis(axis, places) for axis, places in enumerate(coordinates.unbind(-1))], -1)

    def even_axis(self, axis: int, size: int, device: torch.device) -> Tensor:
        """Features (I, P) of the even grid, computed once for each size and kept out of the checkpoint."""
        key = (axis, size, device)
        if key not in self._even:
            with torch.inference_mode(False):  # else a table first made in validation could not be trained with
                self._even[key] = self.axis(axis, even_grid(size, device))
        return self._even[key]


class LearnedAxisPositions(nn.Module):
    """One learned vector for each place of each axis: learned positions that stay separable.

    A place takes the vector of the nearest place of the even grid of `resolution`.
    """

    def __init__(self, resolution: Sequence[int], width: int = 128):
        super().__init__()
        self.tables = nn.ParameterList(nn.Parameter(torch.empty(size, width)) for size in resolution)
        self.width = len(resolution) * width

    def axis(self, axis: int, places: Tensor) -> Tensor:
        """Features (..., P) of places (...) along one axis."""
        return self.tables[axis][nearest(places, len(self.tables[axis]))]

    def elements(self, coordinates: Tensor) -> Tensor:
        """Features (..., M, P) of coordinates (..., M, A), axis by axis."""
        return torch.cat([self.axis(axis, places) for axis, places in enumerate(coordinates.unbind(-1))], -1)

    def even_axis(self, axis: int, size: int, device: torch.device) -> Tensor:
        """Features (I, P) of the even grid."""
        return self.axis(axis, even_grid(size, device))


class LearnedPositions(nn.Module):
    """One learned vector for each element, as in the paper's ablation (Perceiver, Table 2): not separable.

    Coordinates take the vector of the nearest element of the even grid of `resolution`.
    """

    def __init__(self, resolution: Sequence[int], width: int = 128):
        super().__init__()
        self.resolution = tuple(resolution)
        self.table = nn.Parameter(torch.empty(math.prod(resolution), width))
        self.width = width

    def grid(self, places: Sequence[Tensor]) -> Tensor:
        """Features (1 or B, *grid, P) of a grid, from the places (I,) or (B, I) of each of its axes."""
        index = torch.zeros((), dtype=torch.long, device=self.table.device)
        for axis, (along, size) in enumerate(zip(places, self.resolution, strict=True)):
            index = index * size + along_axis(nearest(along, size)[..., None], axis, len(places))[..., 0]
        return self.table[index]

    def elements(self, coordinates: Tensor) -> Tensor:
        """Features (..., M, P) of coordinates (..., M, A)."""
        index = torch.zeros((), dtype=torch.long, device=self.table.device)
        for axis, size in enumerate(self.resolution):
            index = index * size + nearest(coordinates[..., axis], size)
        return self.table[index]


def nearest(places: Tensor, size: int) -> Tensor:
    """The index of the nearest place of an even grid of `size`, for each place in [-1, 1]."""
    return ((places + 1) / 2 * (size - 1)).round().long().clamp(0, size - 1)


def along_axis(table: Tensor, axis: int, axes: int) -> Tensor:
    """A table (I, P) or (B, I, P) of one axis, shaped (1 or B, 1, .., I, .., 1, P) to spread over the whole grid."""
    shape = [1] * axes
    shape[axis] = table.shape[-2]
    return table.view(-1, *shape, table.shape[-1])
