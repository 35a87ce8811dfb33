"""Language-model pretraining data: windows of one or several genomes."""

from __future__ import annotations

import logging
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from ...core.errors import UserError
from ...core.training.data import ResumableDataModule, SampleKey, sample_generator
from ...core.training.metrics import IGNORED
from ..tokenizer import DNATokenizer, reverse_complement_ids
from .asked_model import model_tokenizer
from .bed import column_split, read_bed
from .files import known_names
from .genome import Genome
from .objectives import Masking, causal_sample, n_as_padding
from .relatives import open_relatives, relative_targets
from .windows import Mode, Regions, Windows, block_regions, clip_to_blocks, contig_regions, list_windows

logger = logging.getLogger(__name__)

_BLOCK_SPLITS = {"train": range(8), "val": range(8, 9), "test": range(9, 10)}
_CROP_TRIES = 32


class WindowDataset(Dataset):
    """Windows of a genome as language-model samples; see `FastaDataModule` for the arguments.

    Asked for a `SampleKey` (or an index, which is epoch 0), it gives ``{"input_ids", "labels"}``, int64 arrays. A
    sample is a pure function of ``(seed, key)``.
    """

    def __init__(
        self,
        genome: Genome,
        regions: Regions,
        seqlen: int,
        *,
        mode: Mode,
        extend: bool,
        stride: int | None,
        max_n_fraction: float,
        objective: Literal["causal", "masked"],
        masking: Masking,
        rc_augment: float,
        n_input: Literal["n", "pad"],
        seed: int,
        relatives: Genome | None = None,
    ) -> None:
        self.genome, self.regions, self.relatives = genome, regions, relatives
        self.mode, self.extend, self.stride, self.max_n_fraction = mode, extend, stride, max_n_fraction
        self.objective, self.masking, self.rc_augment, self.n_input = objective, masking, rc_augment, n_input
        self.seed = seed
        self.seqlen = 0
        self.windows: Windows
        self.set_seqlen(seqlen)

    def set_seqlen(self, seqlen: int) -> None:
        """List the windows anew, at another length; the regions, and so the split, stay."""
        if seqlen == self.seqlen:
            return
        self.windows = list_windows(
            self.genome,
            self.regions,
            seqlen,
            stride=self.stride or seqlen,
            mode=self.mode,
            extend=self.extend,
            max_n_fraction=self.max_n_fraction,
        )
        if not len(self.windows):
            raise UserError(
                f"no window of {seqlen} bases: {self.windows.dropped_as_short} region(s) are shorter and "
                f"{self.windows.dropped_for_n} window(s) have {self.max_n_fraction:g} N or more; lower seqlen or raise "
                f"max_n_fraction"
            )
        self.seqlen = seqlen

    def __len__(self) -> int:
        return len(self.windows)

    def position(self, key: SampleKey | int) -> tuple[str, int]:
        """Contig name and start of the window that ``key`` gives."""
        key = key if isinstance(key, SampleKey) else SampleKey(0, key)
        start = self._start(key.index, sample_generator(self.seed, key))
        return self.genome.names[self.windows.contig[key.index]], start

    def __getitem__(self, key: SampleKey | int) -> dict[str, np.ndarray]:
        key = key if isinstance(key, SampleKey) else SampleKey(0, key)
        generator = sample_generator(self.seed, key)
        start = self._start(key.index, generator)
        contig = int(self.windows.contig[key.index])
        symbols = self.genome.symbols(contig, start, start + self.seqlen)
        flip = bool(self.rc_augment) and generator.random() < self.rc_augment
        if flip:
            symbols = reverse_complement_ids(symbols)
        if self.objective == "causal":
            ids, labels = causal_sample(symbols, self.genome.tokenizer)
        else:
            ids, labels = self.masking.sample(symbols, generator)
        if self.relatives is not None:
            relative = self.relatives.symbols(contig, start, start + self.seqlen)
            relative = reverse_complement_ids(relative) if flip else relative
            labels = np.where(labels == IGNORED, relative_targets(relative), labels)
        return {"input_ids": n_as_padding(ids) if self.n_input == "pad" else ids, "labels": labels}

    def _start(self, index: int, generator: np.random.Generator) -> int:
        """Where the window begins; a random crop is drawn again while it has too many N."""
        start, end = int(self.windows.start[index]), int(self.windows.end[index])
        last = end - self.seqlen
        if last == start:
            return start
        gaps = self.genome.gaps(int(self.windows.contig[index]))
        limit = min(self.max_n_fraction * self.seqlen, self.seqlen - 1.5)
        starts = generator.integers(start, last + 1, size=_CROP_TRIES)
        good = starts[gaps.count(starts, starts + self.seqlen) < limit]
        if len(good):
            return int(good[0])
        # Nearly everything is N: of crops that cover the interval, the one with the most nucleotides.
        cover = np.append(np.arange(start, last, max(self.seqlen // 2, 1)), last)
        return int(cover[np.argmin(gaps.count(cover, cover + self.seqlen))])


class FastaDataModule(ResumableDataModule):
    """Windows of one or several genomes for language modelling.

    A batch is ``{"input_ids": int64 (batch, length), "labels": int64 (batch, length)}`` with -100 at ignored targets;
    N is never a target. Validation and test windows do not overlap, keep ``seqlen`` when `set_stage` shortens the
    training windows, and are the same in every epoch.

    Args:
        fasta: a FASTA file (plain, bgzip or gzip), ``embedded:drosophila4``, ``embedded:yeast1``, or a list of these.
        bed: intervals to train on: one BED file for all contigs, or a list with one for each FASTA. Without it the
            contigs are tiled with windows.
        seqlen: nucleotides per window.
        objective: ``"causal"`` predicts the next token: the window with the tokenizer's special tokens, shifted by
            one, so with the trailing [SEP] inputs have ``seqlen`` tokens, and without special tokens ``seqlen - 1``.
            ``"masked"`` recovers masked nucleotides; no special tokens.
        tokenizer: how characters become ids. Where None: in training upper-cased with IUPAC codes as N, otherwise as
            the weights were trained.
        split: ``"column"`` (column 4 of the BED: train, valid, test), ``"chromosome"`` or ``"blocks"`` (runs of
            ``block_size`` bases, numbered through the genome: of every ten the first eight train, then one validation
            and one test; a window never crosses blocks). None is ``"column"`` with a BED and ``"blocks"`` without.
        val_chromosomes: contigs for validation, with ``split="chromosome"``.
        test_chromosomes: contigs for test, with ``split="chromosome"``.
        block_size: bases per block, with ``split="blocks"``.
        stride: distance between training windows when tiling; ``seqlen`` where None.
        long_intervals: of a BED interval longer than ``seqlen``, take the ``"first"`` bases (as published), a
            ``"random"`` crop (in training; evaluation takes the first), or ``"tile"`` it. Shorter intervals are
            extended on both sides inside the contig.
        rc_augment: show the reverse complement of training windows with probability ``rc_probability``.
        rc_probability: used with ``rc_augment``.
        max_n_fraction: windows with this fraction of N, or more, are left out, and counted in the log.
        n_input: show N as itself, or as [PAD] (``"pad"``, as in the published Caduceus pretraining).
        masking: of the masked objective; 15 % chosen, of which 80 % [MASK], 10 % random, 10 % kept, where None.
        relatives: with the masked objective, a FASTA for each of ``fasta`` that says what a relative has in the place
            of each base (`open_relatives`): in training the other bases are targets too, namely the relative's.
            Evaluation asks for the masked bases alone.
        batch_size: samples per step and process in training.
        eval_batch_size: samples per batch in evaluation; ``batch_size`` where None.
        num_workers: loader processes.
        seed: of the order, augmentation and masking.

    Raises:
        UserError: an argument out of range; in ``setup``, anything wrong with the files or a split that is empty.
    """

    def __init__(
        self,
        fasta: str | list[str],
        bed: str | list[str] | None = None,
        seqlen: int = 1024,
        objective: Literal["causal", "masked"] = "causal",
        tokenizer: DNATokenizer | None = None,
        split: Literal["column", "chromosome", "blocks"] | None = None,
        val_chromosomes: list[str] | None = None,
        test_chromosomes: list[str] | None = None,
        block_size: int = 100_000,
        stride: int | None = None,
        long_intervals: Literal["first", "random", "tile"] = "first",
        rc_augment: bool = False,
        rc_probability: float = 0.5,
        max_n_fraction: float = 0.5,
        n_input: Literal["n", "pad"] = "n",
        masking: Masking | None = None,
        relatives: str | list[str] | None = None,
        *,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, num_workers=num_workers, seed=seed)
        self.fasta = [fasta] if isinstance(fasta, str) else list(fasta)
        self.bed = [bed] if isinstance(bed, str) else list(bed or [])
        self.split = split or ("column" if self.bed else "blocks")
        self.seqlen, self.objective, self.stride, self.block_size = seqlen, objective, stride, block_size
        self.tokenizer, self._follows_model = tokenizer or DNATokenizer(), tokenizer is None
        self.val_chromosomes, self.test_chromosomes = val_chromosomes or [], test_chromosomes or []
        self.long_intervals, self.max_n_fraction, self.n_input = long_intervals, max_n_fraction, n_input
        self.rc_probability = rc_probability if rc_augment else 0.0
        self.masking = Masking() if masking is None else masking
        self.relatives = [relatives] if isinstance(relatives, str) else list(relatives or [])
        self.genome: Genome | None = None
        self._regions: dict[str, Regions] = {}
        self._check()

    def _check(self) -> None:
        if not self.fasta:
            raise UserError("fasta: the list is empty; name at least one file")
        if len(self.bed) > 1 and len(self.bed) != len(self.fasta):
            raise UserError(f"bed: {len(self.bed)} files for {len(self.fasta)} FASTA files; give one, or one for each")
        choices = {
            "objective": ("causal", "masked"),
            "split": ("column", "chromosome", "blocks"),
            "long_intervals": ("first", "random", "tile"),
            "n_input": ("n", "pad"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"{name}={getattr(self, name)!r} is not one of {', '.join(map(repr, allowed))}")
        for name in ("seqlen", "stride", "block_size"):
            value, least = getattr(self, name), 2 if name == "seqlen" else 1
            if value is not None and value < least:
                raise UserError(f"{name}={value} must be at least {least}")
        if self.relatives and (self.objective != "masked" or len(self.relatives) != len(self.fasta)):
            raise UserError(
                f"relatives: {len(self.relatives)} files for {len(self.fasta)} FASTA files with objective "
                f"{self.objective!r}; give one for each, and the objective 'masked'"
            )
        if not 0 < self.max_n_fraction <= 1:
            raise UserError(f"max_n_fraction={self.max_n_fraction} must lie in (0, 1]")
        if not 0 <= self.rc_probability <= 1:
            raise UserError(f"rc_probability={self.rc_probability} must lie in [0, 1]")
        if self.split == "column" and not self.bed:
            raise UserError("split='column' needs a BED file with the split in column 4; give bed or another split")
        if self.split == "chromosome" and not self.val_chromosomes:
            raise UserError("split='chromosome' needs val_chromosomes; name at least one contig")
        if self.split != "chromosome" and (self.val_chromosomes or self.test_chromosomes):
            raise UserError(
                f"val_chromosomes and test_chromosomes have no meaning with split={self.split!r}; remove them"
            )
        if self.split == "blocks" and self.seqlen > self.block_size:
            raise UserError(f"seqlen={self.seqlen} does not fit in block_size={self.block_size}; raise block_size")
        both = set(self.val_chromosomes) & set(self.test_chromosomes)
        if both:
            raise UserError(f"contig {min(both)!r} is in val_chromosomes and in test_chromosomes; remove it from one")

    def setup(self, stage: str | None = None) -> None:
        """Open the genomes, assign regions to the splits and list the windows that ``stage`` needs."""
        if self.genome is None:
            if self._follows_model:
                self.tokenizer = model_tokenizer(self.trainer) or self.tokenizer
            genome = Genome(self.fasta, self.tokenizer)
            self._regions = self._split_regions(genome)
            self.genome = genome
        needed = {"validate": "val", "test": "test"}.get(stage or "")
        if needed and not len(self._regions[needed]):
            raise UserError(f"the {needed} split of {', '.join(self.bed or self.fasta)} is empty; change the split")
        if stage in (None, "fit") and self.train_set is None:
            self.train_set = self._dataset("train")
        if stage in (None, "fit", "validate") and self.val_set is None and len(self._regions["val"]):
            self.val_set = self._dataset("val")
        if stage in (None, "test") and self.test_set is None and len(self._regions["test"]):
            self.test_set = self._dataset("test")

    def set_stage(self, seqlen: int, batch_size: int) -> None:
        """Train from the next epoch on with windows of ``seqlen`` bases in batches of ``batch_size``; evaluation and
        the split stay as they are.

        Raises:
            UserError: ``seqlen`` below 2 or longer than a block.
        """
        if seqlen < 2 or (self.split == "blocks" and seqlen > self.block_size):
            raise UserError(f"a stage of seqlen={seqlen} must lie between 2 and block_size={self.block_size}")
        super().set_stage(seqlen, batch_size)

    def longest_input(self) -> tuple[int, str, str]:
        """Tokens of the samples (of evaluation, where warm-up shortens others), what makes them so long, and how to
        shorten them."""
        added = len(self.tokenizer.prefix) + len(self.tokenizer.suffix) - 1 if self.objective == "causal" else 0
        return self.seqlen + added, f"data.seqlen={self.seqlen}", "lower it by as many"

    def collate(self, samples: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
        """Stack samples of one length."""
        return {name: torch.from_numpy(np.stack([sample[name] for sample in samples])) for name in samples[0]}

    def _dataset(self, name: str) -> WindowDataset:
        assert self.genome is not None
        training = name == "train"
        mode: Mode = self.long_intervals if self.bed else "tile"
        try:
            dataset = WindowDataset(
                self.genome,
                self._regions[name],
                self.seqlen,
                mode="first" if mode == "random" and not training else mode,
                extend=bool(self.bed),
                stride=self.stride if training else None,
                max_n_fraction=self.max_n_fraction,
                objective=self.objective,
                masking=self.masking,
                rc_augment=self.rc_probability if training else 0.0,
                n_input=self.n_input,
                seed=self.seed,
                relatives=open_relatives(self.relatives, self.genome) if training and self.relatives else None,
            )
        except UserError as error:
            raise UserError(f"the {name} split of {', '.join(self.fasta)} has {error}") from None
        windows = dataset.windows
        logger.info(
            "%s: %d windows of %d bases; left out: %d windows with %g N or more, %d regions shorter than a window",
            *(name, len(windows), self.seqlen, windows.dropped_for_n, self.max_n_fraction, windows.dropped_as_short),
        )
        return dataset

    # Regions

    def _split_regions(self, genome: Genome) -> dict[str, Regions]:
        regions, column = contig_regions(genome), None
        if self.bed:
            regions, column = _intervals(genome, self.bed, self.split == "column")
        if column is not None:
            groups = {name: np.flatnonzero(column == name) for name in _BLOCK_SPLITS}
            result = {name: regions.select(group) for name, group in groups.items()}
        elif self.split == "chromosome":
            result = self._by_chromosome(genome, regions)
        else:
            result = self._by_block(genome, regions)
        if not len(result["train"]):
            raise UserError(f"the train split of {', '.join(self.bed or self.fasta)} is empty; change the split")
        return result

    def _by_chromosome(self, genome: Genome, regions: Regions) -> dict[str, Regions]:
        group = np.zeros(len(genome), dtype=np.int8)
        for code, chosen in ((1, self.val_chromosomes), (2, self.test_chromosomes)):
            for name in chosen:
                found = np.array([contig == name for contig in genome.names])
                if not found.any():
                    option = "val_chromosomes" if code == 1 else "test_chromosomes"
                    raise UserError(
                        f"{option}: contig {name!r} is in none of {', '.join(self.fasta)} "
                        f"({known_names(name, genome.names)})"
                    )
                group[found] = code
        result = {name: regions.select(group[regions.contig] == code) for code, name in enumerate(_BLOCK_SPLITS)}
        for name, chosen in (("val", self.val_chromosomes), ("test", self.test_chromosomes)):
            if chosen and not len(result[name]):
                raise UserError(f"the {name} split is empty: {', '.join(self.bed)} has no interval on {chosen[0]}")
        return result

    def _by_block(self, genome: Genome, regions: Regions) -> dict[str, Regions]:
        if not self.bed:
            regions = block_regions(genome, self.block_size)
        regions, block = clip_to_blocks(genome, regions, self.block_size)
        result = {name: regions.select(np.isin(block % 10, list(rest))) for name, rest in _BLOCK_SPLITS.items()}
        for name in ("val", "test"):
            if not len(result[name]):
                raise UserError(
                    f"the {name} split of {', '.join(self.bed or self.fasta)} is empty: it takes one of every ten "
                    f"blocks of {self.block_size} bases; lower block_size, at most {genome.lengths.sum() // 10} here"
                )
        return result


def _intervals(genome: Genome, bed: list[str], with_split: bool) -> tuple[Regions, np.ndarray | None]:
    """The intervals of the BED files as regions, and their splits (``"train"``, ``"val"``, ``"test"``) if asked for."""
    parts: list[Regions] = []
    columns: list[np.ndarray] = []
    for file, path in enumerate(bed):
        numbers = genome.numbers(file if len(bed) > 1 else None)
        found = read_bed(path, {name: int(genome.lengths[number]) for name, number in numbers.items()})
        contig = np.array([numbers[name] for name in found.contigs], dtype=np.int32)[found.contig]
        high = genome.lengths[contig]
        parts.append(Regions(contig, found.start, found.end, np.zeros_like(high), high))
        if with_split:
            columns.append(column_split(found))
    regions = Regions(*(np.concatenate(list(arrays)) for arrays in zip(*map(_arrays, parts), strict=True)))
    return regions, np.concatenate(columns) if with_split else None


def _arrays(regions: Regions) -> tuple[np.ndarray, ...]:
    return regions.contig, regions.start, regions.end, regions.low, regions.high
