"""Training: from a folder of photos to an adapter, on one CPU or many GPUs."""

from typing import TYPE_CHECKING, Any

from rasr.training.config import TrainingConfig, read_training_config

if TYPE_CHECKING:
    from rasr.training.loop import Trainer

__all__ = ["Trainer", "TrainingConfig", "read_training_config"]


def __getattr__(name: str) -> Any:
    """Import the loop, and torch with it, when it is asked for."""
    if name == "Trainer":
        from rasr.training.loop import Trainer

        return Trainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
