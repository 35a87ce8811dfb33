"""The named forecasters on a stack of mixers: Mamba and S4D, by single steps and in patches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from ...core.registry import ModelEntry, register_architecture, register_model
from .sequence import SequenceForecaster, SequenceForecasterConfig


@dataclass(frozen=True, kw_only=True)
class MambaForecasterConfig(SequenceForecasterConfig):
    """Dimensions of a :class:`MambaForecaster`."""


@register_architecture("MambaForecaster", MambaForecasterConfig)
class MambaForecaster(SequenceForecaster):
    """A :class:`SequenceForecaster` whose mixer is Mamba unless configured otherwise."""

    architecture = "MambaForecaster"


@dataclass(frozen=True, kw_only=True)
class S4DForecasterConfig(SequenceForecasterConfig):
    """Dimensions of an :class:`S4DForecaster`."""

    mixer: Any = "s4d"
    """See :class:`SequenceForecasterConfig`."""


@register_architecture("S4DForecaster", S4DForecasterConfig)
class S4DForecaster(SequenceForecaster):
    """A :class:`SequenceForecaster` whose mixer is S4D unless configured otherwise."""

    architecture = "S4DForecaster"


_PATCHES: dict[str, Any] = {"channel_mixer": "gated_mlp", "patch": 16, "decoder": "flatten"}
_BOTH_WAYS = {"name": "bidirectional", "mixer": "mamba"}


def _register(
    name: str,
    config: type[SequenceForecasterConfig],
    model: type[SequenceForecaster],
    description: str,
    **options: Any,
) -> None:
    register_model(
        ModelEntry(
            name=name,
            domain="timeseries",
            config=partial(config, **options),
            architecture=model.architecture,
            description=description,
        )
    )


_MAMBA, _S4D = (MambaForecasterConfig, MambaForecaster), (S4DForecasterConfig, S4DForecaster)
_register("mamba_forecaster", *_MAMBA, "Mamba, 2 layers of width 64, single steps, streams")
_register("s4d_forecaster", *_S4D, "S4D, 2 layers of width 64, single steps, streams")
_register(
    "mamba_patch_forecaster",
    *_MAMBA,
    "Mamba in both directions over patches of 16 steps, all tokens to all steps",
    mixer=_BOTH_WAYS,
    **_PATCHES,
)
_register("s4d_patch_forecaster", *_S4D, "S4D over patches of 16 steps, all tokens to all steps", **_PATCHES)
_register(
    "mamba_rollout_forecaster",
    *_MAMBA,
    "Mamba, 4 layers of width 64, for any horizon, with deciles",
    channel_mixer="gated_mlp",
    n_layers=4,
    decoder="rollout",
    head="quantiles",
)
