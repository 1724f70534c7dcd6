"""Private members of Lightning and other libraries, gathered here: each has a test that fails when the library changes."""

from pytorch_lightning import LightningModule, Trainer


def attached_trainer(module: LightningModule) -> Trainer | None:
    """The Trainer that a module is attached to; None where there is none (`module.trainer` raises then)."""
    return module._trainer
