"""Tasks whose model is built once the data is known."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import UserError
from .finetuning import FinetuningConfig
from .module import DEFAULT_FINETUNING, DEFAULT_OPTIMIZER, DEFAULT_SCHEDULE, TrainingModule
from .optimizer import OptimizerConfig
from .schedule import ScheduleConfig


class LateModelTask(TrainingModule):
    """Keeps what its model is to be until the data is known (``configure_model``), so that classes, sizes and tokenizer
    are stored with the weights.

    Args:
        model: name of a registered model (``longscan models``), or of an architecture such as ``LanguageModel``.
        options: fields of its configuration to replace.
        pretrained: start from these weights instead of random ones: a registered name, a folder written by
            ``save_pretrained``, a training checkpoint, or a hub repository; ``model`` is then ignored.
        optimizer: optimiser and parameter groups.
        schedule: learning rate over the steps.
        finetuning: what of the model is frozen, adapted, or trained more slowly.
    """

    def __init__(
        self,
        model: str,
        options: dict[str, Any] | None = None,
        pretrained: str | None = None,
        optimizer: OptimizerConfig = DEFAULT_OPTIMIZER,
        schedule: ScheduleConfig = DEFAULT_SCHEDULE,
        finetuning: FinetuningConfig = DEFAULT_FINETUNING,
    ) -> None:
        super().__init__(nn.Identity(), optimizer, schedule, finetuning)
        self.model_name, self.options, self.pretrained = model, dict(options or {}), pretrained
        self._built = False

    def check_adapters(self) -> None:
        """Refuse low-rank adapters of random weights.

        Raises:
            UserError: there are to be some.
        """
        if self.pretrained is None and self.finetuning.lora is not None:
            raise UserError("finetuning.lora adapts a pretrained model; give model.pretrained")
