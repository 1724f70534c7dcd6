"""What a Perceiver is trained for: one file a task, on `base.py`."""

from perceiver_lightning.tasks.base import PerceiverTask
from perceiver_lightning.tasks.classification import ClassificationTask
from perceiver_lightning.tasks.regression import RegressionTask

__all__ = ["ClassificationTask", "PerceiverTask", "RegressionTask"]
