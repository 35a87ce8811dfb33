"""Characters of DNA to token ids and back: the 12-symbol vocabulary that HyenaDNA and Caduceus share.

One byte is one token, so encoding is a single pass through a table of 256 entries and runs at memory speed. What the
published tokenizers disagree about (lower case, IUPAC codes, special tokens) is an argument, and the two published
settings are `DNATokenizer.hyenadna()` and `DNATokenizer.caduceus()`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..core.errors import UserError, nearest

#: The symbols in the order of their ids. Models pad this vocabulary to 16 rows; ids 12 to 15 mean nothing.
VOCABULARY = ("[CLS]", "[SEP]", "[BOS]", "[MASK]", "[PAD]", "[RESERVED]", "[UNK]", "A", "C", "G", "T", "N")
CLS, SEP, BOS, MASK, PAD, RESERVED, UNK, A, C, G, T, N = range(12)

#: Complement of every id of the padded vocabulary: A with T, C with G, all others (N, specials, 12 to 15) themselves.
COMPLEMENT: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, T, G, C, A, N, 12, 13, 14, 15)

#: IUPAC codes for "one of several nucleotides", without N.
IUPAC_AMBIGUOUS = "RYSWKMBDHV"

_COMPLEMENT_FROM = "ACGTURYSWKMBDHVN-acgturyswkmbdhvn-"
_COMPLEMENT_TO = "TGCAAYRSWMKVHDBN-tgcaayrswmkvhdbn-"
_COMPLEMENT_TEXT = str.maketrans(_COMPLEMENT_FROM, _COMPLEMENT_TO)
_COMPLEMENT_IDS = np.array(COMPLEMENT, dtype=np.uint8)

_ERROR = 255  # marks the bytes that a policy refuses; no id has this value
_LETTERS = np.frombuffer(b"\0\0\0\0\0\0\0ACGTN", dtype=np.uint8)

SpecialTokens = Literal["none", "sep", "cls_sep"]
Side = Literal["left", "right"]
_CHOICES = {
    "case": ("upper", "keep"),
    "iupac": ("n", "unk", "error"),
    "uracil": ("t", "unk", "error"),
    "other": ("error", "unk"),
    "special_tokens": ("none", "sep", "cls_sep"),
    "padding_side": ("left", "right"),
}


@dataclass(frozen=True)
class DNATokenizer:
    """Character tokenizer for DNA.

    Args:
        case: ``"upper"`` reads acgtn as ACGTN; ``"keep"`` is case-sensitive, so every lower-case letter is [UNK].
        iupac: what R, Y, S, W, K, M, B, D, H and V become: ``"n"``, ``"unk"`` or ``"error"``.
        uracil: what U becomes: ``"t"``, ``"unk"`` or ``"error"``.
        other: what any other character becomes: ``"error"`` or ``"unk"``.
        special_tokens: what is put around a sequence: ``"none"``, ``"sep"`` (s [SEP]) or ``"cls_sep"`` ([CLS] s [SEP]).
        padding_side: the side on which a batch is padded.
    """

    case: Literal["upper", "keep"] = "upper"
    iupac: Literal["n", "unk", "error"] = "n"
    uracil: Literal["t", "unk", "error"] = "t"
    other: Literal["error", "unk"] = "error"
    special_tokens: SpecialTokens = "sep"
    padding_side: Side = "left"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise UserError(f"tokenizer: {name}={value!r} is not one of {', '.join(map(repr, choices))}")

    @classmethod
    def hyenadna(cls, special_tokens: SpecialTokens = "sep") -> DNATokenizer:
        """HyenaDNA as published: case-sensitive, everything but ACGTN is [UNK].

        The training code and the transformers port append [SEP]; the standalone file adds [CLS] and [SEP].
        """
        return cls(case="keep", iupac="unk", uracil="unk", other="unk", special_tokens=special_tokens)

    @classmethod
    def caduceus(cls, special_tokens: SpecialTokens = "sep") -> DNATokenizer:
        """Caduceus as published: upper-cased, everything but ACGTN is [UNK], trailing [SEP]."""
        return cls(case="upper", iupac="unk", uracil="unk", other="unk", special_tokens=special_tokens)

    @property
    def prefix(self) -> tuple[int, ...]:
        """Ids that go before a sequence."""
        return (CLS,) if self.special_tokens == "cls_sep" else ()

    @property
    def suffix(self) -> tuple[int, ...]:
        """Ids that go after a sequence."""
        return () if self.special_tokens == "none" else (SEP,)

    def encode_symbols(self, sequence: str | bytes, *, where: str = "sequence", offset: int = 0) -> np.ndarray:
        """One id per character, with no special tokens: uint8 of shape (len(sequence),), read-only.

        ``where`` and ``offset`` say in an error what the sequence is and where in it the text begins.

        Raises:
            UserError: a character that a policy refuses; the message has its position.
        """
        data = sequence.encode("latin-1", errors="replace") if isinstance(sequence, str) else sequence
        ids = data.translate(_table(self.case, self.iupac, self.uracil, self.other))
        bad = ids.find(_ERROR)
        if bad >= 0:
            found = sequence[bad] if isinstance(sequence, str) else chr(sequence[bad])
            policy = "iupac" if found.upper() in IUPAC_AMBIGUOUS else "uracil" if found in "Uu" else "other"
            raise UserError(
                f"{where}: {found!r} at position {offset + bad + 1} is not A, C, G, T or N; "
                f"correct it, or set the tokenizer's {policy}='unk'"
            )
        return np.frombuffer(ids, dtype=np.uint8)

    def encode(self, sequence: str | bytes, *, add_special_tokens: bool = True) -> np.ndarray:
        """Token ids of one sequence, int64 of shape (length,), with the special tokens of this tokenizer.

        Raises:
            UserError: a character that a policy refuses.
        """
        symbols = self.encode_symbols(sequence)
        return self.add_special_tokens(symbols) if add_special_tokens else symbols.astype(np.int64)

    def add_special_tokens(self, symbols: np.ndarray) -> np.ndarray:
        """Ids of `encode_symbols` with the special tokens of this tokenizer around them, int64."""
        before, after = len(self.prefix), len(self.suffix)
        ids = np.empty(before + len(symbols) + after, dtype=np.int64)
        ids[:before] = self.prefix
        ids[before : before + len(symbols)] = symbols
        ids[before + len(symbols) :] = self.suffix
        return ids

    def encode_batch(
        self,
        sequences: Sequence[str | bytes],
        max_length: int | None = None,
        *,
        padding: Literal["longest", "max_length"] = "longest",
        truncate: bool = False,
        add_special_tokens: bool = True,
    ) -> dict[str, Tensor]:
        """Encode and pad several sequences; see `pad` for the arguments and the result.

        Raises:
            UserError: a refused character, an empty list, or a sequence that is too long when ``truncate`` is false.
        """
        symbols = [self.encode_symbols(sequence, where=f"sequence {i + 1}") for i, sequence in enumerate(sequences)]
        return self.pad(symbols, max_length, padding=padding, truncate=truncate, add_special_tokens=add_special_tokens)

    def pad(
        self,
        symbols: Sequence[np.ndarray],
        max_length: int | None = None,
        *,
        padding: Literal["longest", "max_length"] = "longest",
        truncate: bool = False,
        add_special_tokens: bool = True,
    ) -> dict[str, Tensor]:
        """Arrays of `encode_symbols` to one padded batch.

        Args:
            symbols: one array of ids per sequence, without special tokens.
            max_length: the most tokens of a row, special tokens included.
            padding: ``"longest"`` pads to the longest row, ``"max_length"`` to ``max_length``.
            truncate: cut longer sequences at their end (the special tokens stay); otherwise they are an error.
            add_special_tokens: whether the special tokens are added.

        Returns:
            ``{"input_ids": int64 (batch, length), "mask": bool (batch, length)}``; the mask is False at padding.

        Raises:
            UserError: no sequence, a sequence too long without ``truncate``, or a ``max_length`` with no room.
        """
        prefix, suffix = (self.prefix, self.suffix) if add_special_tokens else ((), ())
        added = len(prefix) + len(suffix)
        if not len(symbols):
            raise UserError("tokenizer: an empty list of sequences makes no batch; give at least one")
        if padding not in ("longest", "max_length") or (padding == "max_length" and max_length is None):
            raise UserError(f"tokenizer: padding={padding!r} is neither 'longest' nor 'max_length' with a max_length")
        if max_length is not None and max_length <= added:
            raise UserError(f"tokenizer: max_length={max_length} has no room beside {added} special token(s); raise it")
        lengths = np.array([len(row) for row in symbols])
        if max_length is not None:
            room = max_length - added
            if not truncate and lengths.max() > room:
                index = int(np.argmax(lengths > room))
                raise UserError(
                    f"sequence {index + 1} has {lengths[index]} characters but max_length={max_length} leaves room for "
                    f"{room} beside {added} special token(s); raise max_length or pass truncate=True"
                )
            lengths = np.minimum(lengths, room)
        width = max_length if padding == "max_length" and max_length is not None else int(lengths.max()) + added
        ids = np.full((len(symbols), width), PAD, dtype=np.int64)
        mask = np.zeros((len(symbols), width), dtype=bool)
        for i, (row, length) in enumerate(zip(symbols, lengths, strict=True)):
            begin = width - length - added if self.padding_side == "left" else 0
            mask[i, begin : begin + length + added] = True
            ids[i, begin : begin + len(prefix)] = prefix
            begin += len(prefix)
            ids[i, begin : begin + length] = row[:length]
            ids[i, begin + length : begin + length + len(suffix)] = suffix
        return {"input_ids": torch.from_numpy(ids), "mask": torch.from_numpy(mask)}

    def decode(self, ids: Sequence[int] | np.ndarray | Tensor, *, skip_special_tokens: bool = True) -> str:
        """Text of one row of ids; special tokens are left out, or written as their names.

        Raises:
            UserError: an id outside the vocabulary, or more than one row.
        """
        array = np.asarray(ids.detach().cpu() if isinstance(ids, Tensor) else ids, dtype=np.int64)
        if array.ndim != 1:
            raise UserError(f"decode takes one row of ids, not an array of shape {array.shape}; decode row by row")
        outside = (array < 0) | (array >= len(VOCABULARY))
        if outside.any():
            raise UserError(
                f"decode: id {array[outside][0]} is outside the vocabulary of ids 0 to {len(VOCABULARY) - 1}"
            )
        if skip_special_tokens:
            return _LETTERS[array[array > UNK]].tobytes().decode("ascii")
        return "".join([VOCABULARY[i] for i in array])

    def to_dict(self) -> dict[str, str]:
        """The settings as plain data, for a checkpoint; `from_dict` gives back an equal tokenizer."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> DNATokenizer:
        """The tokenizer whose `to_dict` gave ``settings``.

        Raises:
            UserError: a setting or a value that this tokenizer does not have.
        """
        for name in settings:
            if name not in _CHOICES:
                raise UserError(f"tokenizer: unknown setting {name!r} ({nearest(name, _CHOICES)})")
        return cls(**settings)


@functools.cache
def _table(case: str, iupac: str, uracil: str, other: str) -> bytes:
    """The id, or `_ERROR`, of each of the 256 bytes."""
    policies = {"n": N, "t": T, "unk": UNK, "error": _ERROR}
    table = np.full(256, policies[other], dtype=np.uint8)
    ids = {"A": A, "C": C, "G": G, "T": T, "N": N, "U": policies[uracil]}
    ids |= dict.fromkeys(IUPAC_AMBIGUOUS, policies[iupac])
    for letter, value in ids.items():
        table[ord(letter)] = value
        table[ord(letter.lower())] = value if case == "upper" else UNK
    return table.tobytes()


def reverse_complement(sequence: str) -> str:
    """The other strand of a DNA string, read 5' to 3'.

    Case is kept, IUPAC codes are complemented (R with Y, K with M, B with V, D with H; S, W, N and the gap ``-`` stay),
    and U, which pairs with A, gives A; the result is always DNA.

    Raises:
        UserError: a character that is no IUPAC code.
    """
    result = sequence.translate(_COMPLEMENT_TEXT)[::-1]
    unknown = set(sequence).difference(_COMPLEMENT_FROM)
    if unknown:
        found = min(unknown, key=sequence.index)
        raise UserError(
            f"reverse complement: {found!r} at position {sequence.index(found) + 1} is no nucleotide code; correct it"
        )
    return result


def reverse_complement_ids(ids: Any, mask: Any = None) -> Any:
    """The other strand of token ids, reversed along the last dimension: the model's own ``rc``.

    Without ``mask`` everything is reversed, padding and special tokens included. With ``mask`` only the positions where
    it is True are reversed among themselves, so that padding stays on its side (and special tokens stay in place where
    the mask leaves them out).

    Args:
        ids: numpy array or tensor of integers in 0..15, of shape (..., length).
        mask: bool, the same kind and shape, or None.

    Returns:
        The same kind, shape and dtype; the input is untouched.

    Raises:
        UserError: a mask of another shape.
    """
    if mask is not None and tuple(mask.shape) != tuple(ids.shape):
        raise UserError(f"reverse complement: mask has shape {tuple(mask.shape)}, ids have {tuple(ids.shape)}")
    if isinstance(ids, Tensor):
        table = torch.tensor(COMPLEMENT, dtype=ids.dtype, device=ids.device)
        flipped = table[ids.long()].flip(-1)
        if mask is None:
            return flipped
        result = ids.clone()
        result[mask] = flipped[mask.flip(-1)]  # both sides list a row's positions in order, so rows stay apart
        return result
    flipped_array = _COMPLEMENT_IDS[ids][..., ::-1].astype(ids.dtype)
    if mask is None:
        return flipped_array
    result_array = ids.copy()
    result_array[mask] = flipped_array[mask[..., ::-1]]
    return result_array
