"""What DNA models are trained to do: language modelling, causal or masked, and classification."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..core.adapters import add_recorded_lora
from ..core.checkpoint_files import load_torch_file
from ..core.errors import UserError
from ..core.registry import find_model
from ..core.training.finetuning import FinetuningConfig
from ..core.training.late_model_task import LateModelTask
from ..core.training.module import DEFAULT_FINETUNING, DEFAULT_OPTIMIZER, DEFAULT_SCHEDULE
from ..core.training.optimizer import OptimizerConfig
from ..core.training.schedule import ScheduleConfig
from ..core.training.tasks import ClassificationTask, LanguageModelTask, token_loss
from .inference import length_limit, own_tokenizer
from .tokenizer import DNATokenizer


class _DNATask(LateModelTask):
    """Builds its model once the data is known, so that classes and tokenizer are stored with the weights.

    Args:
        model, options, pretrained, optimizer, schedule, finetuning: as for
            :class:`~longscan.core.training.late_model_task.LateModelTask`.
    """

    def __init__(
        self,
        model: str = "caduceus_ph_1k_d118",
        options: dict[str, Any] | None = None,
        pretrained: str | None = None,
        optimizer: OptimizerConfig = DEFAULT_OPTIMIZER,
        schedule: ScheduleConfig = DEFAULT_SCHEDULE,
        finetuning: FinetuningConfig = DEFAULT_FINETUNING,
    ) -> None:
        super().__init__(model, options, pretrained, optimizer, schedule, finetuning)
        self._loaded: list[Any] = []  # the pretrained model until it is taken; listed, it is no module of this one yet

    def configure_model(self) -> None:
        """Build or load the model; Lightning calls this after the data module's ``setup``.

        Raises:
            UserError: the model does not fit the data; names the longest record where it is too long.
        """
        if not self._built:
            self.model = self.build_model()
            self._check_lengths()
            self._adapt()
            self._built = True

    def own_tokenizer(self) -> DNATokenizer | None:
        """Return the tokenizer of the weights that are asked; None in training, which may choose another."""
        if self.trainer.state.fn == "fit":
            return None
        if self._built:
            return own_tokenizer(self.model)
        if self.trainer.ckpt_path is not None:
            stored = self._checkpoint_config().get("tokenizer")
            return None if stored is None else DNATokenizer.from_dict(stored)
        return None if self.pretrained is None else own_tokenizer(self._load(self.pretrained))

    def length_limit(self) -> tuple[int | None, str]:
        """Return the most tokens of a sequence that the model takes, None where it has no limit, and why."""
        limit = length_limit(self.model)
        return limit, f"whose filters end at {limit} (max_length)"

    def _check_lengths(self) -> None:
        """Refuse data of which some is too long for the model, before the first batch."""
        limit, why = self.length_limit()
        told = getattr(self.trainer.datamodule, "longest_input", None)  # type: ignore[attr-defined]
        if limit is None or told is None:
            return
        tokens, where, remedy = told()
        if tokens > limit:
            raise UserError(
                f"{where}: {tokens} tokens, special ones included, are {tokens - limit} more than this model takes at "
                f"once, {why}; {remedy}, or take a model made for longer sequences"
            )

    def _adapt(self) -> None:
        """Freeze and adapt the model for training, or put in the adapters that a checkpoint to be loaded has."""
        checkpoint = self.trainer.ckpt_path
        if self.trainer.state.fn == "fit":
            self.check_adapters()
            self.apply_finetuning(self._base())
        elif checkpoint is not None and (record := self._checkpoint_card().get("adapter")) is not None:
            add_recorded_lora(self.model, record)

    def _base(self) -> str | None:
        """Return where the pretrained weights come from in a way that holds in any folder."""
        if self.pretrained is None or (find_model(self.pretrained) is not None and not Path(self.pretrained).exists()):
            return self.pretrained
        path = Path(self.pretrained).expanduser()
        return str(path.resolve()) if path.exists() else self.pretrained

    def build_model(self) -> nn.Module:
        """Return the model that the arguments and the data ask for."""
        raise NotImplementedError

    def _create(self, overrides: Mapping[str, Any]) -> nn.Module:
        """Build with random weights or from the pretrained ones, the data's tokenizer noted in the configuration."""
        import longscan

        options = {**self.options, **overrides}
        tokenizer = self.trainer.datamodule.tokenizer.to_dict()  # type: ignore[attr-defined]
        fit, checkpoint = self.trainer.state.fn == "fit", self.trainer.ckpt_path
        if checkpoint is not None:
            check_tokenizer(str(checkpoint), self._checkpoint_config().get("tokenizer"), tokenizer)
        if self.pretrained is None:
            return longscan.create_model(self.model_name, tokenizer=tokenizer, **options)
        if checkpoint is not None:
            # The pretrained model may be gone by now; what its configuration gave is in the checkpoint.
            return longscan.from_pretrained(Path(checkpoint), **options).train(fit)
        if fit:
            return longscan.from_pretrained(self.pretrained, tokenizer=tokenizer, **options).train()
        model = self._load(self.pretrained)
        self._loaded.clear()
        check_tokenizer(self.pretrained, model.config.tokenizer, tokenizer)
        return model

    def _load(self, pretrained: str) -> Any:
        """Return the pretrained model as it is, loaded once: its tokenizer is asked for before the model is."""
        import longscan

        if not self._loaded:
            self._loaded.append(longscan.from_pretrained(pretrained, **self.options))
        return self._loaded[0]

    def _checkpoint_config(self) -> dict[str, Any]:
        """Return the model's configuration as noted in the checkpoint that is about to be loaded."""
        return self._checkpoint_card().get("config", {}).get("config", {})

    def _checkpoint_card(self) -> dict[str, Any]:
        """Return what the checkpoint that is about to be loaded says of its model (``model_card``)."""
        return load_torch_file(Path(str(self.trainer.ckpt_path))).get("longscan", {}).get("model", {})


def check_tokenizer(source: str, stored: Mapping[str, Any] | None, tokenizer: Mapping[str, Any]) -> None:
    """Refuse data whose tokenizer is not the one that the weights of ``source`` were trained with, where that is known.

    Raises:
        UserError: with the settings to change.
    """
    different = {key: value for key, value in (stored or {}).items() if tokenizer[key] != value}
    if different:
        raise UserError(f"{source}: was trained with another tokenizer; set data.tokenizer to have {different}")


class LanguageModeling(_DNATask, LanguageModelTask):
    """Predict the next base (a causal model on causal data) or masked ones (Caduceus on masked data)."""

    def build_model(self) -> nn.Module:
        """Return a language model.

        Raises:
            UserError: if the data asks a bidirectional model for the next base, which it sees in its input.
        """
        model: Any = self._create({})
        objective = getattr(self.trainer.datamodule, "objective", None)  # type: ignore[attr-defined]
        if objective == "causal" and not model.backbone.causal:
            raise UserError(
                f"objective 'causal' with {type(model).__name__}, which sees both sides and so its own targets; "
                "set data.objective to 'masked' or take a causal model"
            )
        return model


class SequenceClassification(_DNATask, ClassificationTask):
    """Put whole sequences in classes.

    Fine-tunes a language model given as ``pretrained`` with a new head, or trains from scratch. With a classifier
    given as ``pretrained``, ``test`` and ``predict`` use it as it is.

    Args:
        label_smoothing: share of each target that is spread over all classes in training.
        model, options, pretrained, optimizer, schedule, finetuning: as for :class:`LanguageModeling`.
        masked_loss_weight: weight of a second loss in training: the cross entropy of the bases that
            ``data.augmentation.masked`` hides, predicted as a masked language model does, so that fine-tuning does not
            forget what pretraining has learnt (Radford et al. 2018, "Improving language understanding by generative
            pre-training", section 3.2, who take 0.5). For models that see both sides.
    """

    def __init__(
        self,
        model: str = "caduceus_ph_1k_d118",
        options: dict[str, Any] | None = None,
        pretrained: str | None = None,
        label_smoothing: float = 0.0,
        optimizer: OptimizerConfig = DEFAULT_OPTIMIZER,
        schedule: ScheduleConfig = DEFAULT_SCHEDULE,
        finetuning: FinetuningConfig = DEFAULT_FINETUNING,
        masked_loss_weight: float = 0.0,
    ) -> None:
        super().__init__(model, options, pretrained, optimizer, schedule, finetuning)
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing is {label_smoothing}; expected 0 ≤ p < 1")
        if masked_loss_weight < 0:
            raise UserError(f"masked_loss_weight is {masked_loss_weight}; expected at least 0")
        self.label_smoothing, self.masked_loss_weight = label_smoothing, masked_loss_weight

    def configure_model(self) -> None:
        """Build or load the model.

        Raises:
            UserError: if the second loss is wanted of a model or of data that it cannot be had from.
        """
        super().configure_model()
        if self.masked_loss_weight and self.trainer.state.fn == "fit":
            _check_masked_loss(self.model, self.trainer.datamodule)  # type: ignore[attr-defined]

    def loss(self, batch: Mapping[str, Any]) -> Tensor:
        """Return the class loss, with ``masked_loss_weight`` and that of the masked bases."""
        if not self.masked_loss_weight:
            return super().loss(batch)
        model: Any = self.model
        features = model.forward_features(batch["input_ids"])
        class_loss = self.class_loss(model.forward_head(features, batch.get("mask")), batch["labels"])
        masked_loss = token_loss(model.token_logits(features), batch["masked_targets"])
        return class_loss + self.masked_loss_weight * masked_loss

    def build_model(self) -> nn.Module:
        """Return a classifier with the data's classes, or the pretrained one's.

        Raises:
            UserError: if a pretrained classifier is asked about other classes than its own.
        """
        names, checkpoint = self._data_classes(), self.trainer.ckpt_path
        if self.trainer.state.fn == "fit" and names is None:
            raise UserError("the classes are unknown; give data.train_file, or data.class_names")
        if checkpoint is not None:
            # Its weights follow; the head must have their shape and meaning.
            stored = self._checkpoint_config().get("class_names")
            self._check_classes(str(checkpoint), stored, names)
            known = names or stored
            if not known:
                raise UserError(f"{checkpoint}: names no classes; give data.class_names")
            return self._create(_head(known))
        if names is not None and self.trainer.state.fn == "fit":
            return self._create(_head(names))
        if self.pretrained is None:
            raise UserError("no weights: give model.pretrained or --ckpt_path")
        model: Any = self._create({})
        if model.config.head != "classification":
            raise UserError(f"{self.pretrained}: has no classification head; fine-tune it first (`fit`)")
        if model.config.targets != "class":
            raise UserError(
                f"{self.pretrained}: predicts {model.config.targets}, not one class for each sequence; use "
                "MultiLabelClassification or SequenceRegression"
            )
        self._check_classes(self.pretrained, model.config.class_names, names)
        return model

    @staticmethod
    def _check_classes(source: str, stored: Sequence[str] | None, names: Sequence[str] | None) -> None:
        if names is not None and stored is not None and list(stored) != list(names):
            raise UserError(f"{source}: tells {', '.join(stored)} apart, the data has the classes {', '.join(names)}")

    def _data_classes(self) -> list[str] | None:
        """Return the data module's classes, if its files name any."""
        try:
            return [str(name) for name in self.trainer.datamodule.class_names]  # type: ignore[attr-defined]
        except UserError:
            return None

    def class_names(self) -> list[str] | None:
        """Return the names of the classes in the order of the logits."""
        stored = getattr(getattr(self.model, "config", None), "class_names", None)
        return list(stored) if stored is not None else self._data_classes()

    def prediction_columns(self) -> list[str]:
        """Return name, prediction, and one probability for each class."""
        return ["name", "prediction", *(f"probability_{name}" for name in self._columns())]

    def _columns(self) -> list[str]:
        names = self.class_names()
        return names if names is not None else [str(i) for i in range(self.model.config.num_classes)]  # type: ignore

    def prediction_rows(self, prediction: Tensor, batch: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
        """Return one row for each sequence."""
        names = self._columns()
        for name, row in zip(batch["name"], prediction.tolist(), strict=True):
            yield name, names[max(range(len(row)), key=row.__getitem__)], *(f"{value:.6f}" for value in row)


def _check_masked_loss(model: Any, data: Any) -> None:
    augmentation = getattr(data, "augmentation", None)
    if augmentation is None or not augmentation.masked:
        raise UserError("masked_loss_weight needs masked bases; set data.augmentation.masked")
    if not getattr(model, "tie_embeddings", False) or model.backbone.causal or getattr(model.config, "conjoin", False):
        raise UserError(
            f"masked_loss_weight needs a masked language model, which this {type(model).__name__} is not; leave it 0"
        )


def _head(names: Sequence[str]) -> dict[str, Any]:
    """Return the options of a model that tells these classes apart."""
    return {
        "head": "classification",
        "class_names": tuple(names),
        "num_classes": len(names),
        "targets": "class",
        "target_mean": None,
        "target_std": None,
    }


__all__ = ["LanguageModeling", "SequenceClassification"]
