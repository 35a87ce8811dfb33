"""Reading a model's dimensions off the shapes of its weights, which are right where a configuration may not be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .errors import UserError


class ShapeReader:
    """Reads dimensions of a checkpoint's tensors, with errors that name the file and the key.

    Args:
        path: the checkpoint, for messages.
        tensors: weights by (canonical) name.
    """

    def __init__(self, path: Path, tensors: Mapping[Any, Tensor]) -> None:
        self.path, self.tensors = path, tensors

    def of(self, key: str, dimensions: int) -> tuple[int, ...]:
        """Return the shape of ``key``.

        Raises:
            UserError: if it is missing or has another number of dimensions.
        """
        if key not in self.tensors:
            raise UserError(f"{self.path}: has no weight {key}, by which its dimensions would be known")
        shape = tuple(self.tensors[key].shape)
        if len(shape) != dimensions:
            raise UserError(f"{self.path}: {key} is {shape}, expected {dimensions} dimensions")
        return shape

    def count(self, pattern: str) -> int:
        """Return one more than the largest index that ``pattern``'s first group finds in the keys."""
        found = {int(match[1]) for key in self.tensors if (match := re.match(pattern, str(key)))}
        if not found:
            raise UserError(f"{self.path}: has no weights {pattern}")
        return max(found) + 1

    def agree(self, config: Mapping[str, Any], dimensions: Mapping[str, int]) -> None:
        """Check that a configuration's fields, where present, are what the weights say.

        Raises:
            UserError: at the first field that differs.
        """
        for name, found in dimensions.items():
            if isinstance(config.get(name), int) and config[name] != found:
                raise UserError(
                    f"{self.path}: config.json says {name} = {config[name]}, the weights have {found}; "
                    "one of the two belongs to another model"
                )
