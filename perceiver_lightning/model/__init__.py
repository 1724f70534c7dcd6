"""The Perceiver core: pure torch; of the project it imports `kernels` alone.

from perceiver_lightning.model import Perceiver
model = Perceiver({"image": {"channels": 3, "resolution": [224, 224]}}, num_outputs=1000)
logits = model({"image": {"content": images}})      # images (B, 224, 224, 3) -> (B, 1000)
"""

from perceiver_lightning.model.fusion import Ensemble, LateFusion
from perceiver_lightning.model.perceiver import Perceiver

Model = Perceiver | LateFusion | Ensemble

__all__ = ["Ensemble", "LateFusion", "Model", "Perceiver"]
