"""Generated points of solids."""

from typing import Any

from datamodules.common.classes import class_facts
from datamodules.common.splits import Split
from datamodules.points.arrays import ARRAYS
from datamodules.points.base import Points
from datamodules.points.dataset import Sampling
from datamodules.points.reading import Into
from datamodules.synthetic.base import SIZES, check_sizes, made
from datamodules.synthetic.generate import SOLIDS, draw_solids
from perceiver_lightning.errors import require


class Solids(Points):
    """Points of the surfaces of spheres, boxes, cylinders and cones, stretched, turned, of any size and place.

    Args:
        seed: of the points.
        sizes: examples of train, validation and test.
        sampling: as all point clouds have it; its `num_points` are made of each solid.
        normalise: as all point clouds have it; null leaves sizes and places unchanged.
        resolution: as all point clouds have it: twice the highest frequency.
        options: as all point clouds have them, but no features.
    """

    def __init__(
        self,
        seed: int = 0,
        sizes: tuple[int, int, int] = SIZES,
        sampling: Sampling = Sampling(num_points=256),
        normalise: Into | None = None,
        resolution: int = 16,
        **options: Any,
    ) -> None:
        check_sizes(sizes)
        require(not options.get("features"), "features", "none, as solids have bare points", options.get("features"))
        super().__init__(
            class_facts(len(SOLIDS), list(SOLIDS)),
            sampling=sampling,
            normalise=normalise,
            resolution=resolution,
            **options,
        )
        self.seed = seed
        self.sizes = sizes

    def find_train(self) -> tuple[Split, Split]:
        """Train and validation."""
        return self._made("train"), self._made("val")

    def find_test(self) -> Split:
        """Test."""
        return self._made("test")

    def _made(self, split: str) -> Split:
        points = self.elements["points"]
        return made(split, self, ARRAYS, lambda rng, labels: draw_solids(rng, labels, points))
