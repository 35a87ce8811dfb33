"""What the configurations of all classifiers of series have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...core.errors import UserError
from ...core.heads import HeadConfig
from .scaling import ScalingKind


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(HeadConfig):
    """Classes, variates and scaling of a classifier of series."""

    #: The least value of each number.
    least: ClassVar[dict[str, int]]

    head: Literal["language_model", "classification"] = "classification"
    """Always a classification head."""
    num_classes: int | None = 2
    """Number of classes; taken from ``class_names`` where those are given."""
    variates: int = 1
    """Number of variates (channels), read together."""
    scaling: ScalingKind = "standard"
    """``none``, ``standard`` (of training rows), ``instance`` or ``robust``."""

    def __post_init__(self) -> None:
        if self.class_names is not None:
            object.__setattr__(self, "num_classes", len(self.class_names))
        super().__post_init__()
        if self.head != "classification":
            raise UserError(f"head is {self.head!r}; a classifier of series has a classification head")
        for name, least in {"variates": 1, **self.least}.items():
            if getattr(self, name) < least:
                raise UserError(f"{name}={getattr(self, name)} must be at least {least}")
