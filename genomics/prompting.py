"""Soft prompts: a frozen causal model classifies by the nucleotide it says next (HyenaDNA; Nguyen et al. 2023, §4.3).

Learned vectors stand before the sequence where embeddings would, and nothing else is trained; the class is read as
one of a few symbols at the last position (Lester et al. 2021, arXiv:2104.08691). Examples from the training data may
stand in between: ``[prompt] seq [SEP] label [SEP] … query [SEP]``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn

import longscan

from ..core.checkpoint_files import load_tensors, load_torch_file, read_json
from ..core.errors import UserError
from ..core.files import replacing
from ..core.training.callbacks.checkpoint import BestCheckpoint
from ..core.training.module import DEFAULT_SCHEDULE
from ..core.training.optimizer import OptimizerConfig
from ..core.training.schedule import ScheduleConfig
from ..core.weights_digest import weights_digest
from .inference import length_limit
from .tasks import SequenceClassification, check_tokenizer
from .tokenizer import SEP, VOCABULARY, A, C, DNATokenizer, G, N, T

logger = logging.getLogger(__name__)

#: Symbols that stand for the classes, by their number; A, N and G are HyenaDNA's.
LABELS: dict[int, tuple[int, ...]] = {2: (A, N), 3: (A, N, G), 4: (A, C, G, T), 5: (A, C, G, T, N)}
PROMPT_FILE = "prompt.json"
DEFAULT_PROMPT_OPTIMIZER = OptimizerConfig(lr=1e-3)


def label_tokens(class_names: Sequence[str]) -> tuple[int, ...]:
    """Return the id of the symbol that stands for each class.

    Raises:
        UserError: there are more classes than symbols, or fewer than two.
    """
    if len(class_names) not in LABELS:
        raise UserError(
            f"soft prompts tell 2 to {max(LABELS)} classes apart, one for each nucleotide symbol; the data has "
            f"{len(class_names)}; fine-tune with SequenceClassification"
        )
    return LABELS[len(class_names)]


class SoftPromptModel(nn.Module):
    """A frozen causal model behind trained vectors.

    Args:
        base: a causal DNA model with a language-model head; it is frozen and kept in evaluation mode.
        class_names: the classes, in the order of the logits.
        prompt_length: number of vectors, each of the base's width.
        dropout: dropout of the vectors in training.
        context: int64 (length,) ids that stand between the vectors and the sequence.

    Raises:
        UserError: the base is not causal or no language model, or there are too many classes.
    """

    context: Tensor
    labels: Tensor

    def __init__(
        self,
        base: Any,
        class_names: Sequence[str],
        prompt_length: int,
        dropout: float = 0.1,
        context: Tensor | None = None,
    ) -> None:
        super().__init__()
        if base.config.head != "language_model":
            raise UserError("a soft prompt needs a language model; this one has a classification head")
        if not base.backbone.causal or getattr(base.config, "rcps", False):
            raise UserError(
                f"a soft prompt needs a causal model, and {type(base).__name__} reads both sides; take a HyenaDNA, "
                "or a Caduceus-Ph with bidirectional=False"
            )
        self.class_names = list(class_names)
        self.register_buffer("labels", torch.tensor(label_tokens(class_names)), persistent=False)
        self.register_buffer("context", torch.zeros(0, dtype=torch.int64) if context is None else context)
        self.base = base.requires_grad_(False)
        # Nucleotides make a better beginning than noise: the model knows what to do with them.
        letters = torch.randint(A, T + 1, (prompt_length,))
        self.prompt = nn.Parameter(base.embedding.weight[letters].detach().clone())
        self.prompt._no_weight_decay = True  # type: ignore[attr-defined]
        self.dropout = nn.Dropout(dropout)
        self.max_length = length_limit(base)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training mode; the base stays in evaluation mode, without dropout."""
        super().train(mode)
        self.base.eval()
        return self

    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return logits (batch, classes) of ids (batch, length).

        ``mask`` marks real tokens; padding may be on either side, and the model never reads it.

        Raises:
            UserError: prompt and sequence are longer together than the filters of the base.
        """
        ids, count = _without_padding(input_ids, mask)
        before = len(self.prompt) + len(self.context)
        self._check_length(before, ids.shape[1])
        ids = torch.cat([self.context.expand(len(ids), -1), ids], dim=1)
        prompt = self.dropout(self.prompt).expand(len(ids), -1, -1)
        features = self.base.forward_embeddings(torch.cat([prompt, self.base.embedding(ids).to(prompt.dtype)], dim=1))
        last = features[torch.arange(len(ids), device=ids.device), before + count - 1]
        return self.base.forward_head(last)[:, self.labels]

    def _check_length(self, before: int, length: int) -> None:
        limit = self.max_length
        if limit is not None and before + length > limit:
            context = f", {len(self.context)} of examples" if len(self.context) else ""
            raise UserError(
                f"prompt_length {len(self.prompt)}{context} and a sequence of {length} tokens are {before + length} "
                f"together, but the filters of the model end at {limit}; use at most {max(limit - length, 0)} before "
                "the sequence, shorter sequences, or a model made for longer ones"
            )


def _without_padding(ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return ids whose rows begin with their real tokens, and the number of these (batch,)."""
    if mask is None:
        return ids, torch.full((len(ids),), ids.shape[1], device=ids.device)
    count = mask.sum(1)
    order = torch.argsort(mask.to(torch.int8), dim=1, descending=True, stable=True)
    return ids.gather(1, order)[:, : int(count.max())], count


def example_sequences(context: Tensor) -> list[list[int]]:
    """Return the ids of the sequences in ``seq [SEP] label [SEP] …``."""
    ends = [-1, *torch.nonzero(context == SEP).flatten().tolist()]
    return [context[begin + 1 : end].tolist() for begin, end in zip(ends[::2], ends[1::2], strict=False)]


class SoftPromptClassification(SequenceClassification):
    """Put sequences in up to five classes with a frozen causal language model, by training a prompt alone.

    Args:
        pretrained: the language model, as for :class:`LanguageModeling`.
        options: fields of its configuration to replace.
        prompt: folder of a trained prompt (``prompt/`` of a run) to use, or to go on training; it names its own base
            model, and ``pretrained`` may be left out.
        prompt_length: number of trained vectors.
        prompt_dropout: dropout of the vectors in training.
        shots: examples of each class from the training data that stand before every sequence, chosen by ``data.seed``.
            They are not trained on, since the answer stands before them.
        label_smoothing, optimizer, schedule: as for :class:`SequenceClassification`.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        options: dict[str, Any] | None = None,
        prompt: str | None = None,
        prompt_length: int = 32,
        prompt_dropout: float = 0.1,
        shots: int = 0,
        label_smoothing: float = 0.0,
        optimizer: OptimizerConfig = DEFAULT_PROMPT_OPTIMIZER,
        schedule: ScheduleConfig = DEFAULT_SCHEDULE,
    ) -> None:
        super().__init__(
            "hyenadna_tiny_1k",
            options,
            pretrained,
            label_smoothing,
            optimizer,
            schedule,
        )
        if prompt_length < 1 or shots < 0:
            raise UserError(f"prompt_length {prompt_length}, shots {shots}: expected at least 1 vector and 0 examples")
        if not 0 <= prompt_dropout < 1:
            raise UserError(f"prompt_dropout is {prompt_dropout}; expected 0 ≤ p < 1")
        self.prompt, self.prompt_length, self.prompt_dropout, self.shots = prompt, prompt_length, prompt_dropout, shots
        self.base_revision: str | None = None

    def own_tokenizer(self) -> DNATokenizer | None:
        """Return the tokenizer that the prompt was trained with; None in training."""
        if self.trainer.state.fn == "fit":
            return None
        stored: dict[str, Any] = {}
        if self.trainer.ckpt_path is not None:
            stored = self._checkpoint_card().get("prompt", {})
        elif self.prompt is not None:
            stored = read_description(Path(self.prompt))
        elif isinstance(self.model, SoftPromptModel):
            stored = vars(self.model.base.config)
        settings = stored.get("tokenizer")
        return None if settings is None else DNATokenizer.from_dict(settings)

    def length_limit(self) -> tuple[int | None, str]:
        """Return the most tokens of a sequence beside the prompt and the examples, None without a limit, and why."""
        model: Any = self.model
        limit, prompt, examples = model.max_length, len(model.prompt), len(model.context)
        why = f"whose filters end at {limit} (max_length) with prompt_length {prompt} and {examples} of examples before"
        return None if limit is None else limit - prompt - examples, why

    def build_model(self) -> nn.Module:
        """Return the frozen model with its prompt.

        Raises:
            UserError: there is no model, or it does not fit the data.
        """
        names, checkpoint = self._data_classes(), self.trainer.ckpt_path
        if checkpoint is not None:
            return self._from_checkpoint(Path(str(checkpoint)), names)
        if self.prompt is not None:
            model, stored = load_prompt(Path(self.prompt), self.prompt_dropout)
            self.pretrained, self.base_revision = stored["base"], stored["base_revision"]
            self._check_classes(self.prompt, model.class_names, names)
            self._check_prompt_tokenizer(self.prompt, stored)
            self._leave_out(model.context)
            return model
        if self.trainer.state.fn != "fit":
            raise UserError("no trained prompt: give model.prompt or --ckpt_path")
        if self.pretrained is None:
            raise UserError("a soft prompt needs a pretrained causal model; give model.pretrained")
        if names is None:
            raise UserError("the classes are unknown; give data.train_file, or data.class_names")
        label_tokens(names)
        base: Any = self._create({})
        self.base_revision = weights_digest(base)
        context = self._examples(names)
        self._leave_out(context)
        return SoftPromptModel(base, names, self.prompt_length, self.prompt_dropout, context)

    def _from_checkpoint(self, path: Path, names: Sequence[str] | None) -> nn.Module:
        """Return a model of the right shapes; the weights follow."""
        saved = load_torch_file(path)
        card = saved.get("longscan", {}).get("model", {})
        if "prompt" not in card:
            raise UserError(f"{path}: is no checkpoint of a soft prompt")
        stored = card["prompt"]
        self.pretrained, self.base_revision = stored["base"], stored["base_revision"]
        self._check_classes(str(path), stored["class_names"], names)
        self._check_prompt_tokenizer(str(path), stored)
        base = longscan.create_model(card["base"]["architecture"], **card["base"]["config"])
        context = saved["state_dict"]["model.context"]
        self._leave_out(context)
        return SoftPromptModel(base, stored["class_names"], stored["prompt_length"], self.prompt_dropout, context)

    def _check_prompt_tokenizer(self, source: str, stored: dict[str, Any]) -> None:
        if self.trainer.state.fn != "fit":
            data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
            check_tokenizer(source, stored.get("tokenizer"), data.tokenizer.to_dict())

    def _examples(self, names: Sequence[str]) -> Tensor:
        """Return the ids of the examples, ``seq [SEP] label [SEP] …``, the classes taking turns."""
        if self.shots == 0:
            return torch.zeros(0, dtype=torch.int64)
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if data.tokenizer.special_tokens != "sep":
            raise UserError("shots puts [SEP] between sequences and labels; set data.tokenizer.special_tokens to sep")
        targets, symbols = np.asarray(data.train_set.targets), label_tokens(names)
        generator = np.random.default_rng(data.seed)
        rows = []
        for label, name in enumerate(names):
            own = generator.permutation(np.flatnonzero(targets == label))[: self.shots]
            if len(own) < self.shots:
                raise UserError(f"shots {self.shots}: class {name!r} has only {len(own)} training rows; use fewer")
            rows.append(own)
        ids: list[int] = []
        for row in np.stack(rows, axis=1).ravel():
            ids += [*data.cut(data.train_set.table[row]).tolist(), SEP, symbols[targets[row]], SEP]
        return torch.tensor(ids)

    def _leave_out(self, context: Tensor) -> None:
        """Take the sequences of the examples out of the training data, other rows with the same sequence included.

        By their content, so that it holds for a run that is resumed or goes on with the prompt of another.

        Raises:
            UserError: nothing is left to train on.
        """
        if self.trainer.state.fn != "fit" or not len(context):
            return
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        examples = {tuple(ids) for ids in example_sequences(context)}
        table = data.train_set.table
        kept = [row for row in range(len(table)) if tuple(data.cut(table[row]).tolist()) not in examples]
        if not kept:
            raise UserError("no training row is left beside the examples; use fewer shots")
        data.train_set = data.train_set.select(np.array(kept))
        logger.info(
            "%d training row(s) stand as examples before every sequence; the other %d are trained on",
            len(table) - len(kept),
            len(kept),
        )

    def class_names(self) -> list[str] | None:
        """Return the names of the classes in the order of the logits."""
        return list(self.model.class_names) if isinstance(self.model, SoftPromptModel) else self._data_classes()

    def configure_callbacks(self) -> list[Callback]:
        """Write the prompt at the end of training."""
        return [ExportPrompt()]

    def model_card(self) -> dict[str, Any]:
        """Return what rebuilds the model: the base's configuration, and what belongs to the prompt."""
        model: Any = self.model
        return {
            "class": f"{type(model).__module__}.{type(model).__qualname__}",
            "base": model.base.model_config(),
            "prompt": {
                "base": self._base(),
                "base_revision": self.base_revision,
                "class_names": list(model.class_names),
                "labels": [VOCABULARY[label] for label in model.labels.tolist()],
                "prompt_length": len(model.prompt),
                "context_length": len(model.context),
                "tokenizer": model.base.config.tokenizer,
            },
        }


class ExportPrompt(Callback):
    """At the end of ``fit``, write the best checkpoint's prompt to ``prompt/`` in the folder of the run."""

    def __init__(self) -> None:
        self.written: list[str] = []

    @rank_zero_only
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        best = next((c.best_model_path for c in trainer.checkpoint_callbacks if isinstance(c, BestCheckpoint)), "")
        if best:
            stored = load_torch_file(Path(best))
            folder = Path(trainer.default_root_dir) / "prompt"
            save_prompt(stored["state_dict"], stored["longscan"]["model"]["prompt"], folder)
            self.written = [str(folder)]


def save_prompt(tensors: dict[str, Tensor], description: dict[str, Any], folder: Path) -> Path:
    """Write a prompt without its base: ``prompt.safetensors`` (``prompt``, ``context``) and ``prompt.json``.

    Args:
        tensors: state of a :class:`SoftPromptClassification`.
        description: ``prompt`` of its :meth:`~SoftPromptClassification.model_card`.
        folder: made if missing.
    """
    from safetensors.torch import save_file

    chosen = {name: tensors[f"model.{name}"].detach().cpu().contiguous() for name in ("prompt", "context")}
    with replacing(folder / "prompt.safetensors") as temporary:
        save_file(chosen, temporary)
    with replacing(folder / PROMPT_FILE) as temporary:
        temporary.write_text(json.dumps({"longscan": longscan.__version__, **description}, indent=2) + "\n")
    return folder


def read_description(folder: Path) -> dict[str, Any]:
    """Return what ``prompt.json`` says.

    Raises:
        UserError: the folder holds no prompt.
    """
    if not (folder / PROMPT_FILE).is_file():
        raise UserError(f"{folder}: holds no {PROMPT_FILE}; give the folder prompt/ of a run")
    return read_json(folder / PROMPT_FILE)


def load_prompt(folder: Path, dropout: float = 0.0) -> tuple[SoftPromptModel, dict[str, Any]]:
    """Return the model of a prompt's folder, in evaluation mode, and its description.

    Raises:
        UserError: the folder holds no prompt, or its base model cannot be had or is another one.
    """
    stored = read_description(folder)
    base: Any = longscan.from_pretrained(stored["base"])
    if (found := weights_digest(base)) != stored["base_revision"]:
        raise UserError(
            f"{folder}: was trained on {stored['base']} with the weights {stored['base_revision']}, but "
            f"{stored['base']} now has the weights {found}; a prompt fits no other weights than its own"
        )
    tensors = load_tensors(folder / "prompt.safetensors")
    model = SoftPromptModel(base, stored["class_names"], len(tensors["prompt"]), dropout, tensors["context"])
    with torch.no_grad():
        model.prompt.copy_(tensors["prompt"])
    return model.eval(), stored


__all__ = [
    "SoftPromptClassification",
    "SoftPromptModel",
    "label_tokens",
    "load_prompt",
    "save_prompt",
]
