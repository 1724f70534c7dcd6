"""What a Perceiver is trained for: one file a task, on `base.py`."""

from perceiver_lightning.tasks.classification import ClassificationTask

__all__ = ["ClassificationTask"]
