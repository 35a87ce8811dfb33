"""What DNA models are trained to do beside classes: any number of labels for a sequence, or numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from ..core.errors import UserError
from ..core.training.target_tasks import MultiLabelTask, RegressionTask, TargetTask
from .tasks import _DNATask


class _SequenceTargets(_DNATask, TargetTask):
    """Builds a model with one output for each target of the data, or takes the pretrained one with its targets."""

    #: What the model's outputs mean (``HeadConfig.targets``), and the ``target`` that the data module must have.
    meaning: str
    data_target: str

    def build_model(self) -> nn.Module:
        """Return a model with the data's targets, or the pretrained one's.

        Raises:
            UserError: the data has another kind of target, or other targets than a model that is asked about them.
        """
        data, checkpoint = self.trainer.datamodule, self.trainer.ckpt_path  # type: ignore[attr-defined]
        kind = getattr(data, "target", self.data_target)
        if kind != self.data_target:
            raise UserError(f"{type(self).__name__} needs data.target {self.data_target!r}, got {kind!r}; set it")
        names, fit = self._data_names(), self.trainer.state.fn == "fit"
        if fit and names is None:
            raise UserError("the targets are unknown; give data.train_file, or data.class_names")
        if checkpoint is not None:
            stored = self._checkpoint_config()
            self._check(str(checkpoint), stored, names)
            keys = ("class_names", "num_classes", "targets", "target_mean", "target_std")
            return self._create({"head": "classification", **{key: stored.get(key) for key in keys}})
        if fit and names is not None:
            head = {"head": "classification", "class_names": tuple(names), "num_classes": len(names)}
            head |= {"targets": self.meaning, "target_mean": None, "target_std": None}
            return self._create(head | self._from_training_data(data.train_set.targets))
        if self.pretrained is None:
            raise UserError("no weights: give model.pretrained or --ckpt_path")
        model: Any = self._create({})
        self._check(self.pretrained, vars(model.config), names)
        return model

    def _from_training_data(self, targets: np.ndarray) -> dict[str, Any]:
        """Return further options of the model, from the training targets (samples, targets)."""
        return {}

    def _check(self, source: str, stored: Mapping[str, Any], names: list[str] | None) -> None:
        meaning = stored.get("targets", "class") if stored.get("head") == "classification" else "tokens"
        if meaning != self.meaning:
            raise UserError(
                f"{source}: predicts {meaning}, {type(self).__name__} needs a model of {self.meaning}; fine-tune it "
                f"first (`fit`), or take the task that it was trained with"
            )
        known = stored.get("class_names")
        if names is not None and known is not None and list(known) != names:
            raise UserError(f"{source}: has the targets {_some(known)}, the data has {_some(names)}")

    def _data_names(self) -> list[str] | None:
        """Return the names of the data module's targets, if it knows any."""
        try:
            return super().target_names()
        except UserError:
            return None

    def target_names(self) -> list[str] | None:
        """Return the names of the targets in the order of the outputs."""
        stored = getattr(getattr(self.model, "config", None), "class_names", None)
        return list(stored) if stored is not None else self._data_names()


class MultiLabelClassification(_SequenceTargets, MultiLabelTask):
    """Say of each of several labels whether a sequence has it, as of the 919 chromatin profiles of DeepSEA.

    Predictions are a table with one probability for each label.

    Args:
        pos_weight: weight of positives in the training loss: a number for all labels, or ``"balanced"``, for each label
            the number of training sequences without it over the number with it.
        settings: those of :class:`longscan.genomics.tasks.LanguageModeling`.
    """

    meaning, data_target = "labels", "labels"

    def __init__(self, pos_weight: float | Literal["balanced"] | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        if pos_weight is not None and pos_weight != "balanced" and not pos_weight > 0:
            raise UserError(f"pos_weight is {pos_weight}; expected a number above 0, or 'balanced'")
        self.positive_weight = pos_weight

    def build_model(self) -> nn.Module:
        """Return the model; see :class:`_SequenceTargets`."""
        model = super().build_model()
        if self.positive_weight is not None and self.trainer.state.fn == "fit":
            targets = self.trainer.datamodule.train_set.targets  # type: ignore[attr-defined]
            positives = targets.sum(0, dtype=np.int64)
            balanced = (len(targets) - positives) / np.maximum(positives, 1)
            # A label that no sample has, or that all have, keeps weight 1.
            balanced = np.where((positives > 0) & (positives < len(targets)), balanced, 1.0)
            given = self.positive_weight
            weight = balanced if given == "balanced" else np.full(targets.shape[1], float(given))
            self.pos_weight = torch.tensor(weight, dtype=torch.float32)
        return model


class SequenceRegression(_SequenceTargets, RegressionTask):
    """Predict one or several numbers for a sequence.

    With ``loss="mse"`` the targets are standardised by their means and standard deviations in the training data, which
    are kept in the model's configuration: predictions and metrics are in the units of the data. With ``"poisson"``
    (counts, coverage) the model's outputs are logarithms of rates and predictions are rates.

    Args:
        loss: ``"mse"`` or ``"poisson"``.
        standardize: with ``"mse"``, whether targets are standardised.
        settings: those of :class:`longscan.genomics.tasks.LanguageModeling`.
    """

    data_target = "values"

    def __init__(self, loss: Literal["mse", "poisson"] = "mse", standardize: bool = True, **settings: Any) -> None:
        super().__init__(**settings)
        if loss not in ("mse", "poisson"):
            raise UserError(f"loss is {loss!r}; expected 'mse' or 'poisson'")
        self.loss_name, self.standardize = loss, standardize
        self.meaning = "rates" if loss == "poisson" else "values"

    def build_model(self) -> nn.Module:
        """Return the model; see :class:`_SequenceTargets`."""
        model: Any = super().build_model()
        if model.config.target_std is not None:
            self.target_std = torch.tensor(model.config.target_std)
        return model

    def _from_training_data(self, targets: np.ndarray) -> dict[str, Any]:
        if self.loss_name == "poisson":
            if (targets < 0).any():
                raise UserError(f"loss 'poisson' is for counts, but a target is {targets.min():g}; take loss 'mse'")
            return {}
        if not self.standardize:
            return {}
        values = targets.astype(np.float64)
        std = values.std(0)
        # A target that does not vary has no scale.
        scale = np.where(std > 0, std, 1.0)
        return {"target_mean": tuple(values.mean(0).tolist()), "target_std": tuple(scale.tolist())}


def _some(names: Any) -> str:
    shown = [str(name) for name in names]
    return ", ".join(shown) if len(shown) < 9 else f"{', '.join(shown[:8])} and {len(shown) - 8} more"


__all__ = ["MultiLabelClassification", "SequenceRegression"]
