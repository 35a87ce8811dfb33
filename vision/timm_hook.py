"""Registers our models with timm, whichever of both packages is imported first."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

#: Once this is there, timm's registry is.
_TIMM = "timm.models"


def register() -> None:
    """Import the module whose import registers the models; needs timm.

    Raises:
        ImportError: without timm, or with one that is too old.
    """
    importlib.import_module(".timm_models", __package__)


def install() -> None:
    """Register now if timm is imported, else when it is."""
    module = sys.modules.get(_TIMM)
    if module is not None and not getattr(module.__spec__, "_initializing", False):
        register()
    elif not any(isinstance(finder, _AfterTimm) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterTimm())


class _AfterTimm(MetaPathFinder):
    """Finds ``timm.models`` as everyone else would, and registers once it has run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See :class:`importlib.abc.MetaPathFinder`."""
        if fullname != _TIMM:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            register()

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
