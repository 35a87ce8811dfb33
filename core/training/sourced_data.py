"""Data modules of one source that is split: which sets a verb needs, and what is said where one is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..errors import UserError
from .data import ResumableDataModule

_NEEDED = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ()}
_SHOWN = {"train": "training", "val": "validation"}


class SourcedDataModule(ResumableDataModule):
    """A source of samples, split into train, val and test, and apart from it what to predict.

    A subclass implements ``splits``, ``read_predict`` and ``checked``. A fit does without validation data; every other
    verb needs what it is for.

    Args:
        batch_size, eval_batch_size, num_workers, seed: as for `ResumableDataModule`.
    """

    #: What a split consists of, where it can come from, and what there is to predict, in errors.
    samples: ClassVar[str]
    source: ClassVar[str]
    predictable: ClassVar[str]

    predict: str | list[str] | None = None

    def splits(self) -> Mapping[str, Any]:
        """Return the parts of the source by the names of their splits."""
        raise NotImplementedError(f"{type(self).__name__} must implement splits()")

    def read_predict(self) -> Any:
        """Return what ``predict`` names."""
        raise NotImplementedError(f"{type(self).__name__} must implement read_predict()")

    def checked(self, part: Any, name: str) -> Any:
        """Return the dataset of a part, whose files have been looked at."""
        raise NotImplementedError(f"{type(self).__name__} must implement checked(part, name)")

    def setup(self, stage: str | None = None) -> None:
        """Make the datasets that ``stage`` needs, once.

        Raises:
            UserError: the source lacks what ``stage`` needs, or something is wrong with its files.
        """
        names = ("train", "val", "test") if stage is None else _NEEDED[stage]
        parts = self.splits() if names else {}
        for name in names:
            if name not in parts:
                if stage is not None and (name != "val" or stage == "validate"):
                    shown = _SHOWN.get(name, name)
                    raise UserError(f"no {shown} {self.samples}; give {self.source}, or change the split")
            elif getattr(self, f"{name}_set") is None:
                setattr(self, f"{name}_set", self.checked(parts[name], name))
        if stage in (None, "predict") and self.predict_set is None:
            if self.predict is not None:
                self.predict_set = self.checked(self.read_predict(), "predict")
            elif stage == "predict":
                raise UserError(f"nothing to predict; give predict, {self.predictable}")
