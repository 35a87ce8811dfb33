"""A DNA model ready to be asked: on its device, with its tokenizer and what identifies its weights."""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..core.device import find_device
from ..core.errors import UserError
from ..core.weights_digest import weights_digest
from .tokenizer import DNATokenizer, reverse_complement_ids

Strand = Literal["forward", "reverse", "both"]


@dataclass(frozen=True)
class DNAModel:
    """A pretrained model and how to ask it; gradients are off, results are float32 on the model's device.

    Attributes:
        model: in evaluation mode, on ``device``.
        tokenizer: the one that it was trained with.
        name: as it was asked for.
        revision: the first 12 hex digits of the SHA-256 of its weights: the same for the same weights, whatever file
            they came in.
        device: where it computes.
        precision: ``"32"``, or ``"bf16"`` for autocast to bfloat16.
    """

    model: Any
    tokenizer: DNATokenizer
    name: str
    revision: str
    device: torch.device
    precision: Literal["32", "bf16"] = "32"

    @property
    def causal(self) -> bool:
        """Whether it predicts the next base; otherwise it fills in masked ones."""
        return self.model.backbone.causal and not self.equivariant  # the other strand comes from the right

    @property
    def equivariant(self) -> bool:
        """Whether it treats both strands alike by construction (Caduceus-PS)."""
        return bool(getattr(self.model.config, "rcps", False))

    @property
    def max_length(self) -> int | None:
        """The most tokens it takes at once, where it has a limit (the filters of HyenaDNA have one)."""
        return length_limit(self.model)

    @property
    def carries(self) -> bool:
        """Whether a sequence can be read in pieces with a state whose size does not depend on the bases read."""
        mixers = [block.mixer for block in self.model.backbone.blocks()]
        growing = any(getattr(mixer, "window", 0) is None for mixer in mixers)  # attention to everything before
        return self.causal and self.max_length is None and not growing

    @property
    def d_model(self) -> int:
        """Channels of :meth:`features`."""
        return self.model.d_model

    def check_length(self, length: int, argument: str, special: int = 0) -> None:
        """Refuse windows that the model cannot take.

        Raises:
            UserError: ``length`` bases and ``special`` further tokens are more than :attr:`max_length`; begins with
                ``argument``.
        """
        limit = self.max_length
        if limit is not None and length + special > limit:
            raise UserError(
                f"{argument}: {length} bases are more than {self.name} takes at once, whose filters end at {limit}; "
                f"use at most {limit - special}, or a model made for longer sequences"
            )

    def logits(self, ids: Tensor | np.ndarray) -> Tensor:
        """Return language-model logits (batch, length, vocabulary), float32, of ids (batch, length).

        The head computes in float32 whatever the precision: bfloat16 would round a difference of logits to 1/64.

        Raises:
            UserError: the model has a classification head.
        """
        return self._language_logits(ids, slice(None))

    def logits_at(self, ids: Tensor | np.ndarray, rows: Tensor, positions: Tensor) -> Tensor:
        """Return logits of chosen positions only, (count, vocabulary), float32; the head sees no other.

        Args:
            ids: (batch, length).
            rows, positions: (count,) int64 each, on the model's device.

        Raises:
            UserError: the model has a classification head.
        """
        return self._language_logits(ids, (rows, positions))

    def _language_logits(self, ids: Tensor | np.ndarray, chosen: Any) -> Tensor:
        if self.model.config.head != "language_model":
            raise UserError(f"{self.name}: has a classification head; this needs a language model")
        with self._asked():
            features = self.model.forward_features(self._ids(ids))[chosen].float()
        with torch.inference_mode():
            return self.model.forward_head(features).float()

    def features(self, ids: Tensor | np.ndarray, strand: Strand = "forward") -> Tensor:
        """Return the hidden sequence after the final norm, (batch, length, d_model) float32, aligned with ``ids``.

        Args:
            ids: (batch, length) tokens, no padding.
            strand: what is read: ``forward`` the sequence as given; ``reverse`` its reverse complement, the result
                flipped so that position t still belongs to base t; ``both`` the mean of the two. For an equivariant
                model these are the two halves of its one hidden sequence.
        """
        parts = self.strand_features(ids, strand)
        with self._asked():
            return parts[0] if len(parts) == 1 else (parts[0] + parts[1]) / 2

    def strand_features(self, ids: Tensor | np.ndarray, strand: Strand) -> list[Tensor]:
        """Return what :meth:`features` takes the mean of: one hidden sequence for each strand that is read."""
        tensor = self._ids(ids)
        with self._asked():
            if self.equivariant:
                forward, reverse = self.model.forward_features(tensor).float().chunk(2, dim=-1)
                return {"forward": [forward], "reverse": [reverse.flip(-1)], "both": [forward, reverse.flip(-1)]}[
                    strand
                ]
            parts = []
            if strand != "reverse":
                parts.append(self.model.forward_features(tensor).float())
            if strand != "forward":
                parts.append(self.model.forward_features(reverse_complement_ids(tensor)).float().flip(1))
            return parts

    def next_features(self, ids: Tensor | np.ndarray, state: Any = None) -> tuple[Tensor, Any]:
        """Return the hidden sequence (batch, length, d_model), float32, of the next piece of sequences, and the state.

        Pieces with the state carried between them equal one pass over the whole, to rounding.

        Args:
            ids: (batch, length) tokens.
            state: what the call for the piece before returned; ``None`` begins a sequence.

        Raises:
            ValueError: the model is not :attr:`causal`.
        """
        with self._asked():
            features, state = self.model.prefill_features(self._ids(ids), state)
            return features.float(), state

    def class_logits(self, ids: Tensor | np.ndarray) -> Tensor:
        """Return logits (batch, classes), float32, of ids (batch, length) without padding.

        Raises:
            UserError: the model has no classification head.
        """
        if self.model.config.head != "classification":
            raise UserError(f"{self.name}: is a language model; this needs one fine-tuned to tell classes apart")
        with self._asked():
            return self.model(self._ids(ids)).float()

    def _ids(self, ids: Tensor | np.ndarray) -> Tensor:
        tensor = torch.from_numpy(ids) if isinstance(ids, np.ndarray) else ids
        return tensor.to(self.device, torch.int64, non_blocking=True)

    @contextlib.contextmanager
    def _asked(self) -> Any:
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")
        with torch.inference_mode(), autocast:
            yield


def length_limit(model: Any) -> int | None:
    """Return the most tokens that a DNA model takes at once, None where it has no limit."""
    limits = [getattr(block.mixer, "max_length", None) for block in model.backbone.blocks()]
    return min((limit for limit in limits if limit is not None), default=None)


def own_tokenizer(model: Any) -> DNATokenizer:
    """Return the tokenizer that a model was trained with: the stored one, or that of its published format."""
    settings = getattr(model.config, "tokenizer", None)
    if settings is not None:
        return DNATokenizer.from_dict(settings)
    return DNATokenizer.hyenadna() if type(model).__name__ == "HyenaDNA" else DNATokenizer.caduceus()


def load_model(arguments: argparse.Namespace) -> DNAModel:
    """Load the model that the options of `commands.options.add_model_arguments` name.

    Raises:
        UserError: an unknown model, a device that is not there, or a batch size below 1.
    """
    import longscan

    if arguments.batch_size < 1:
        raise UserError(f"--batch-size {arguments.batch_size}: must be at least 1")
    device = find_device(arguments.device)
    model: Any = longscan.from_pretrained(arguments.model, revision=arguments.revision)
    return prepare(model, arguments.model, device=device, precision=arguments.precision)


def prepare(
    model: Any, name: str, *, device: torch.device | str = "cpu", precision: Literal["32", "bf16"] = "32"
) -> DNAModel:
    """Put a model into evaluation mode on its device and find its tokenizer and revision."""
    tokenizer = own_tokenizer(model)
    revision = weights_digest(model)
    device = torch.device(device)
    return DNAModel(model.eval().to(device), tokenizer, name, revision, device, precision)


__all__ = ["DNAModel", "length_limit", "load_model", "own_tokenizer", "prepare", "weights_digest"]
