"""Shapes, sounds, solids and films drawn from random numbers: what `datamodules.synthetic.base` is made of.

Each function draws one example for each label, all at once. Everything that is not the class (colour, place, size,
pitch, loudness, noise ...) is drawn from the same distribution for every class, and shapes of all classes cover the
same area: so a mean, a spread or a histogram says little of the class.

Legend: N examples, H x W pixels, C channels, T samples, M points, F frames of a film.
"""

import numpy as np

SHAPES = ["ring", "square", "triangle", "cross"]
TONES = ["steady", "rising", "falling", "peak", "dip"]
SOLIDS = ["sphere", "box", "cylinder", "cone"]
WAYS = ["left", "right"]
FULL_SCALE = 32767


def draw_shapes(rng: np.random.Generator, labels: np.ndarray, size: tuple[int, int], channels: int) -> np.ndarray:
    """Light shapes on dark grounds: uint8 (N, H, W, C), with labels (N,) of `SHAPES`."""
    centre_N2 = 0.25 * rng.uniform(-1, 1, (len(labels), 2))
    return _paint(rng, _stencil(rng, labels, centre_N2, size), channels)


def draw_tones(rng: np.random.Generator, labels: np.ndarray, length: int, sample_rate: int) -> np.ndarray:
    """Tones that hold, rise, fall, or turn once, in white noise: int16 (N, T, 1), with labels (N,) of `TONES`."""
    count = len(labels)
    time = np.linspace(-1, 1, length, dtype=np.float32)
    turn = rng.uniform(-0.3, 0.3, (count, 1)).astype(np.float32)
    # All that move are equally fast: a faster one would smear its frames, which a histogram sees.
    course = np.stack([0 * time, time, -time])[np.minimum(labels, 2)]
    course = np.where(labels[:, None] == 3, 0.5 - abs(time - turn), course)
    course = np.where(labels[:, None] == 4, abs(time - turn) - 0.5, course)
    octave, span = (rng.uniform(low, high, (count, 1)).astype(np.float32) for low, high in ((-0.6, 0.6), (0.5, 0.8)))
    pitch = sample_rate / 10 * 2 ** (octave + span * course)
    phase = np.cumsum(2 * np.pi / sample_rate * pitch, 1) + rng.uniform(0, 2 * np.pi, (count, 1)).astype(np.float32)
    loudness = 10 ** rng.uniform(-1.2, -0.4, (count, 1)).astype(np.float32)
    hiss = 10 ** rng.uniform(-1.5, -0.5, (count, 1)).astype(np.float32)
    sound = loudness * (np.sin(phase) + hiss * rng.standard_normal((count, length), np.float32))
    return (FULL_SCALE * sound.clip(-1, 1)).astype(np.int16)[..., None]


def draw_solids(rng: np.random.Generator, labels: np.ndarray, points: int) -> np.ndarray:
    """Points of surfaces, stretched and turned: float32 (N, M, 3) in [-1, 1], with labels (N,) of `SOLIDS`."""
    count = len(labels)
    surface_NM3 = np.empty((count, points, 3), np.float32)
    for label, sample in enumerate((_sphere, _box, _cylinder, _cone)):
        surface_NM3[labels == label] = sample(rng, int((labels == label).sum()), points)
    surface_NM3 *= rng.uniform(0.5, 1, (count, 1, 3))  # stretched
    # One of the 24 ways to lie on a table, more or less: an axis order and signs, then a tilt.
    order = rng.permuted(np.tile(np.arange(3), (count, 1)), axis=1)
    signs = rng.choice([-1, 1], (count, 1, 3))
    surface_NM3 = np.take_along_axis(surface_NM3, order[:, None], 2) * signs
    surface_NM3 = np.einsum("nmi,nij->nmj", surface_NM3, _tilts(rng, count, 0.3))
    # Sizes are drawn as mean distances from the middle: by their farthest points, boxes would be told by their spread.
    surface_NM3 -= surface_NM3.mean(1, keepdims=True)
    distance = np.sqrt(np.square(surface_NM3).sum(2).mean(1))[:, None, None]
    surface_NM3 *= rng.uniform(0.25, 0.5, (count, 1, 1)) / distance
    surface_NM3 += rng.uniform(-0.1, 0.1, (count, 1, 3))
    farthest = np.abs(surface_NM3).max((1, 2))[:, None, None]
    return (surface_NM3 / np.maximum(farthest, 1)).astype(np.float32)


def draw_films(rng: np.random.Generator, ways: np.ndarray, frames: int, size: tuple[int, int]) -> np.ndarray:
    """Shapes that move to the left or the right: uint8 (N, F, H, W, 3), with the ways (N,) of `WAYS`."""
    count = len(ways)
    shapes = rng.integers(len(SHAPES), size=count)
    start = rng.uniform(0.15, 0.45, count) * np.where(ways == 0, 1, -1)  # down one side, up the other
    end = -rng.uniform(0.15, 0.45, count) * np.where(ways == 0, 1, -1)
    across_NF = np.linspace(start, end, frames, axis=1)
    down_NF = np.repeat(rng.uniform(-0.4, 0.4, (count, 1)), frames, 1)
    centre = np.stack([down_NF, across_NF], 2).reshape(-1, 2)
    inside = _stencil(rng, np.repeat(shapes, frames), centre, size, together=frames)
    return _paint(rng, inside.reshape(count, frames, *size), 3)


def _stencil(
    rng: np.random.Generator, labels: np.ndarray, centre_N2: np.ndarray, size: tuple[int, int], together: int = 1
) -> np.ndarray:
    """Which pixels lie inside of shapes with these centres (down, across) in [-1, 1]: bool (N, H, W).

    The area is drawn for so many of them together.
    """
    area = np.repeat(rng.uniform(0.5, 0.9, len(labels) // together), together).astype(np.float32)
    axes = [((np.arange(length) + 0.5) / length * 2 - 1).astype(np.float32) for length in size]
    y, x = (axis - centre_N2[:, [k]].astype(np.float32) for k, axis in enumerate(axes))
    y, x, area = y[:, :, None], x[:, None, :], area[:, None, None]
    inside = np.empty((len(labels), *size), bool)
    for label, shape in enumerate((_ring, _square, _triangle, _cross)):
        rows = labels == label
        inside[rows] = shape(y[rows], x[rows], area[rows])
    return inside


def _ring(y: np.ndarray, x: np.ndarray, area: np.ndarray) -> np.ndarray:
    outer = 4 / 3 * area / np.pi  # its hole takes a quarter of it
    square = x**2 + y**2
    return (square <= outer) & (square >= outer / 4)


def _square(y: np.ndarray, x: np.ndarray, area: np.ndarray) -> np.ndarray:
    return np.maximum(abs(x), abs(y)) <= np.sqrt(area) / 2


def _triangle(y: np.ndarray, x: np.ndarray, area: np.ndarray) -> np.ndarray:
    inner = np.sqrt(area / 3 / np.sqrt(3))  # the inscribed circle's radius; one corner points up
    return np.maximum(y, np.sqrt(3) / 2 * abs(x) - y / 2) <= inner


def _cross(y: np.ndarray, x: np.ndarray, area: np.ndarray) -> np.ndarray:
    wide = np.sqrt(area / 5) / 2
    return (np.minimum(abs(x), abs(y)) <= wide) & (np.maximum(abs(x), abs(y)) <= 3 * wide)


def _paint(rng: np.random.Generator, inside: np.ndarray, channels: int) -> np.ndarray:
    """Each example's stencil (N, ..., H, W) in a light colour on a dark one, with noise: uint8 (N, ..., H, W, C)."""
    each = (len(inside), *[1] * (inside.ndim - 1), channels)
    light, dark = rng.integers(140, 240, each, np.uint8), rng.integers(0, 100, each, np.uint8)
    return np.where(inside[..., None], light, dark) + rng.integers(0, 16, (*inside.shape, channels), np.uint8)


def _sphere(rng: np.random.Generator, count: int, points: int) -> np.ndarray:
    drawn = rng.standard_normal((count, points, 3), np.float32)
    return drawn / np.linalg.norm(drawn, axis=2, keepdims=True)


def _box(rng: np.random.Generator, count: int, points: int) -> np.ndarray:
    drawn = rng.uniform(-1, 1, (count, points, 3))
    axis = rng.integers(3, size=(count, points, 1))
    np.put_along_axis(drawn, axis, np.sign(np.take_along_axis(drawn, axis, 2)), 2)
    return drawn


def _cylinder(rng: np.random.Generator, count: int, points: int) -> np.ndarray:
    # Radius 1, height 2: the side is two thirds of the surface, each lid a sixth.
    on_side = rng.random((count, points)) < 2 / 3
    height = rng.uniform(-1, 1, (count, points))
    radius = np.where(on_side, 1, np.sqrt(rng.random((count, points))))
    return _around(rng, radius, np.where(on_side, height, np.sign(height)))


def _cone(rng: np.random.Generator, count: int, points: int) -> np.ndarray:
    # Radius 1, height 2: the slant is sqrt(5), so the side has sqrt(5) / (1 + sqrt(5)) of the surface.
    on_side = rng.random((count, points)) < 5**0.5 / (1 + 5**0.5)
    radius = np.sqrt(rng.random((count, points)))
    return _around(rng, radius, np.where(on_side, 1 - 2 * radius, -1))


def _around(rng: np.random.Generator, radius: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Points (N, M, 3) at any angle about the third axis."""
    angle = rng.uniform(0, 2 * np.pi, radius.shape)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], 2)


def _tilts(rng: np.random.Generator, count: int, most: float) -> np.ndarray:
    """Rotations (N, 3, 3) about any axis by up to `most` radians either way."""
    axis = rng.standard_normal((count, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    x, y, z = axis.T
    zero = np.zeros(count)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).reshape(-1, 3, 3)
    angle = rng.uniform(-most, most, (count, 1, 1))
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
