"""Scores of variants: how much likelier a model finds ALT than REF.

``log_likelihood_ratio`` = log p(ALT) − log p(REF), natural logarithm; below 0 the model prefers REF. Probabilities are
over A, C, G and T alone. How it is computed depends on model and variant, and each result says so (``method``):

``masked``: a masked language model and alleles of equal length. The bases that differ are masked in the reference
window and one pass gives Σ log p(alt base) − log p(ref base) over them (the masked marginals of Meier et al. 2021,
ESM-1v; also the zero-shot score of PlantCaduceus, Zhai et al. 2025). ALTs of one site that mask the same bases share
the pass.

``unmasked``: the same of the reference window with nothing masked (the wild-type marginals of Meier et al. 2021), one
pass for all ALTs of a site. For models pretrained on relatives, which say of a base that they see what it becomes.

``unmasked_sum``: a masked language model and an indel. Nothing is masked; Σ log p(base) over the window with ALT minus
the same sum over the window with REF.

``causal``: a causal model. Σ log p(x_t | x_<t) over the window with ALT minus that over the window with REF, without
the first base, which nothing precedes. Windows with REF are shared.

``class_probability``: a classifier. P(class | window with ALT) − P(class | window with REF), softmax over its classes.

In the two sums only A, C, G and T count, and as many bases in both windows: where a deletion draws in N, or an
insertion pushes N out, the last bases of the window with more of them are left out. Sums are in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ...core.errors import UserError
from ..data.fasta import FastaReader
from ..data.variants import Variant
from ..inference import DNAModel, Strand
from ..tokenizer import COMPLEMENT, MASK, A, T, reverse_complement_ids
from .alleles import NOT_FINITE, SCORED, encode_bases, known_bases, plain_bases, unusable
from .windows import ContextReader, alternative_windows

Distance = Literal["none", "cosine", "l2", "both"]


@dataclass
class Effects:
    """Results of `VariantScorer.score`, one entry for each variant.

    Attributes:
        status: ``"scored"``, or why not (`alleles.STATUSES`).
        method: ``"masked"``, ``"unmasked"``, ``"unmasked_sum"``, ``"causal"`` or ``"class_probability"``; empty without
            a score.
        forward, reverse: score on either strand, float64; NaN where not computed.
        cosine, l2: distances between the mean features of both windows, float64; NaN where not computed.
        n_bases: bases of the reference window that are N or beyond the contig.
    """

    status: list[str]
    method: list[str]
    forward: np.ndarray
    reverse: np.ndarray
    cosine: np.ndarray
    l2: np.ndarray
    n_bases: np.ndarray

    @property
    def score(self) -> np.ndarray:
        """The score: of the strand that was asked for, or the mean of both."""
        forward, reverse = np.isnan(self.forward), np.isnan(self.reverse)
        return np.where(reverse, self.forward, np.where(forward, self.reverse, (self.forward + self.reverse) / 2))


class VariantScorer:
    """Scores variants of one genome with one model.

    Args:
        model: a language model, masked or causal; a classifier with ``target_class``.
        fasta: the genome.
        window: bases of a window.
        strand: ``"forward"``, ``"reverse"`` (the reverse complement of the same windows) or ``"both"``.
        batch_size: windows for each forward pass.
        max_n: largest share of N in a window; above it a variant is skipped as ``too_many_n``.
        distance: distances between mean features to compute as well.
        embedding_window: bases around the variant whose features are averaged (half on either side, and the base
            itself), cut to the window.
        trust_equivariance: take the reverse strand of an equivariant model from its forward pass, to which it is equal
            but for rounding; otherwise compute it.
        target_class: of a classifier, the number of the class whose probability is compared.
        masked: hide the bases that differ from a masked language model; otherwise it sees REF's (``unmasked``).

    Raises:
        UserError: a window that is too short or too long for the model, or a model with another kind of head, or one
            that hides nothing anyway with ``masked=False``.
    """

    def __init__(
        self,
        model: DNAModel,
        fasta: FastaReader,
        *,
        window: int = 1024,
        strand: Strand = "both",
        batch_size: int = 16,
        max_n: float = 0.5,
        distance: Distance = "none",
        embedding_window: int = 1536,
        trust_equivariance: bool = True,
        target_class: int | None = None,
        masked: bool = True,
    ) -> None:
        if window < 4:
            raise UserError(f"--window {window}: a window has at least 4 bases")
        if not 0 <= max_n <= 1:
            raise UserError(f"--max-n {max_n:g}: is a share, from 0 to 1")
        if embedding_window < 1:
            raise UserError(f"--embedding-window {embedding_window}: must be at least 1")
        model.check_length(window, "--window")
        if model.model.config.head != "language_model" and target_class is None:
            raise UserError(f"{model.name}: has a classification head; likelihoods need a language model")
        if target_class is not None and distance != "none":
            raise UserError("--embedding-distance: is for language models; leave it out for a classifier")
        if not masked and (model.causal or model.model.config.head != "language_model"):
            raise UserError(f"--unmasked: is for masked language models, which {model.name} is not; leave it out")
        self.model, self.reader = model, ContextReader(fasta, model.tokenizer)
        self.window, self.strand, self.batch_size, self.max_n = window, strand, batch_size, max_n
        self.distance, self.embedding_window = distance, embedding_window
        self.trust_equivariance = trust_equivariance and model.equivariant
        self.target_class, self.masked = target_class, masked

    @property
    def chunk(self) -> int:
        """How many variants to give to `score` at once: enough for full batches, few enough for little memory and for a
        progress bar that moves."""
        return max(self.batch_size, min(32 * self.batch_size, 4096, 2**24 // self.window))

    def score(self, variants: Sequence[Variant]) -> Effects:
        """Score variants, whose contigs are the FASTA's and whose positions lie on them; results in their order.

        Raises:
            UserError: a character in the FASTA that the tokenizer refuses.
        """
        count, centre = len(variants), self.window // 2
        nothing = np.full(count, np.nan)
        effects = Effects(
            [""] * count, [""] * count, nothing, nothing.copy(), nothing.copy(), nothing.copy(), np.zeros(count, int)
        )
        sites: dict[tuple[str, int], int] = {}
        site = np.array([sites.setdefault((v.contig, v.pos), len(sites)) for v in variants], dtype=np.int64)
        longest = max((len(v.ref) for v in variants if len(v.ref) <= self.window - centre), default=1)
        starts = np.array([pos - 1 - centre for _, pos in sites], dtype=np.int64)
        contexts = self.reader.read([contig for contig, _ in sites], starts, self.window + longest)
        unknown = self.window - known_bases(contexts[:, : self.window]).sum(axis=1)
        effects.n_bases[:] = unknown[site]
        for index, variant in enumerate(variants):
            effects.status[index] = self._status(variant, contexts[site[index]], int(unknown[site[index]]))

        scored = np.array([i for i in range(count) if effects.status[i] == SCORED], dtype=np.int64)
        for method, chosen in self._methods(variants, scored).items():
            for index in chosen.tolist():
                effects.method[index] = method
            if len(chosen):
                compute = {
                    "masked": self._marginals,
                    "unmasked": self._marginals,
                    "class_probability": self._class_changes,
                }.get(method, self._summed)
                compute(variants, chosen, site, contexts, effects)
        if len(scored) and self.distance != "none":
            self._distances(variants, scored, site, contexts, effects)
        self._refuse_what_is_not_finite(effects, scored)
        return effects

    def _refuse_what_is_not_finite(self, effects: Effects, scored: np.ndarray) -> None:
        """Take back the scores of variants to which the model has no finite answer, lest one strand pass for both."""
        columns = [effects.forward] if self.strand != "reverse" else []
        columns += [effects.reverse] if self.strand != "forward" else []
        columns += [effects.cosine] if self.distance in ("cosine", "both") else []
        columns += [effects.l2] if self.distance in ("l2", "both") else []
        finite = np.logical_and.reduce([np.isfinite(column[scored]) for column in columns])
        for index in scored[~finite].tolist():
            effects.status[index], effects.method[index] = NOT_FINITE, ""
            for column in (effects.forward, effects.reverse, effects.cosine, effects.l2):
                column[index] = np.nan

    def _status(self, variant: Variant, context: np.ndarray, unknown: int) -> str:
        ref, alt, centre = variant.ref, variant.alt, self.window // 2
        reason = unusable(ref, alt)
        if reason is not None:
            return reason
        if max(len(ref), len(alt)) > self.window - centre:
            return "too_long"
        if unknown > self.max_n * self.window:
            return "too_many_n"
        if not (plain_bases(ref) and plain_bases(alt)):
            return "ambiguous"
        found = context[centre : centre + len(ref)].tobytes()
        return SCORED if found == encode_bases(ref).tobytes() else "ref_mismatch"

    def _methods(self, variants: Sequence[Variant], scored: np.ndarray) -> dict[str, np.ndarray]:
        if self.target_class is not None:
            return {"class_probability": scored}
        if self.model.causal:
            return {"causal": scored}
        equal = np.array([len(variants[i].ref) == len(variants[i].alt) for i in scored], dtype=bool)
        return {"masked" if self.masked else "unmasked": scored[equal], "unmasked_sum": scored[~equal]}

    def _marginals(
        self,
        variants: Sequence[Variant],
        chosen: np.ndarray,
        site: np.ndarray,
        contexts: np.ndarray,
        effects: Effects,
    ) -> None:
        centre = self.window // 2
        passes: dict[tuple[int, tuple[int, ...]], int] = {}  # site and masked offsets to number of the pass
        rows: list[tuple[int, int, int, int, int]] = []  # pass, variant, position, id of ref, id of alt
        for index in chosen.tolist():
            ref, alt = encode_bases(variants[index].ref), encode_bases(variants[index].alt)
            pairs = list(zip(ref.tolist(), alt.tolist(), strict=True))
            offsets = tuple(k for k, (r, a) in enumerate(pairs) if r != a)
            number = passes.setdefault((int(site[index]), offsets if self.masked else ()), len(passes))
            rows += [(number, index, centre + k, *pairs[k]) for k in offsets]
        table = np.array(sorted(rows), dtype=np.int64)
        pass_sites = np.array([key[0] for key in passes], dtype=np.int64)
        for strand, result in self._strands(effects):
            parts = []
            for first in range(0, len(passes), self.batch_size):
                low, high = np.searchsorted(table[:, 0], [first, first + self.batch_size])
                part = table[low:high]
                windows = contexts[pass_sites[first : first + self.batch_size], : self.window]
                if self.masked:
                    windows[part[:, 0] - first, part[:, 2]] = MASK
                where = np.stack([part[:, 0] - first, part[:, 2], part[:, 3], part[:, 4]])
                if strand == "reverse":
                    windows = reverse_complement_ids(windows)
                    where[1] = self.window - 1 - where[1]
                    where[2:] = np.array(COMPLEMENT)[where[2:]]
                ids, (row, position, ref_id, alt_id) = self._send(windows), self._send(where)
                log_p = self.model.logits_at(ids, row, position)[:, A : T + 1].log_softmax(-1)
                of = log_p.gather(1, torch.stack([alt_id, ref_id], 1) - A)
                parts.append(of[:, 0] - of[:, 1])
            result[chosen] = 0.0
            np.add.at(result, table[:, 1], torch.cat(parts).cpu().numpy().astype(np.float64))
        self._copy_strand(effects, chosen)

    def _summed(
        self,
        variants: Sequence[Variant],
        chosen: np.ndarray,
        site: np.ndarray,
        contexts: np.ndarray,
        effects: Effects,
    ) -> None:
        windows, ref_row, alt_row = self._pairs(variants, chosen, site, contexts)
        for strand, result in self._strands(effects):
            log_p = self._log_probabilities(windows, strand)
            known = known_bases(windows)
            if self.model.causal:
                known[:, 0 if strand == "forward" else -1] = False
            total = np.where(known, log_p, 0.0).sum(axis=1, dtype=np.float64)
            counts = known.sum(axis=1)
            result[chosen] = total[alt_row] - total[ref_row]
            for k in np.flatnonzero(counts[alt_row] != counts[ref_row]):
                sums = []
                for row in (alt_row[k], ref_row[k]):
                    bases = np.flatnonzero(known[row])[: min(counts[alt_row[k]], counts[ref_row[k]])]
                    sums.append(log_p[row, bases].sum(dtype=np.float64))
                result[chosen[k]] = sums[0] - sums[1]
        self._copy_strand(effects, chosen)

    def _log_probabilities(self, windows: np.ndarray, strand: str) -> np.ndarray:
        """Return log p of every base as the model reads the strand, float32 (count, window), in the order of the
        windows; what is no base, or has nothing before it in a causal model, has no meaningful value."""
        parts = []
        for first in range(0, len(windows), self.batch_size):
            ids = self._send(windows[first : first + self.batch_size])
            if strand == "reverse":
                ids = reverse_complement_ids(ids)
            log_p = self.model.logits(ids)[..., A : T + 1].log_softmax(-1)
            if self.model.causal:
                log_p = log_p.roll(1, dims=1)
            of = log_p.gather(2, (ids - A).clamp(0, T - A)[..., None])[..., 0]
            parts.append(of.flip(1) if strand == "reverse" else of)
        return torch.cat(parts).cpu().numpy()

    def _class_changes(
        self,
        variants: Sequence[Variant],
        chosen: np.ndarray,
        site: np.ndarray,
        contexts: np.ndarray,
        effects: Effects,
    ) -> None:
        windows, ref_row, alt_row = self._pairs(variants, chosen, site, contexts)
        for strand, result in self._strands(effects):
            parts = []
            for first in range(0, len(windows), self.batch_size):
                ids = self._send(windows[first : first + self.batch_size])
                if strand == "reverse":
                    ids = reverse_complement_ids(ids)
                parts.append(self.model.class_logits(ids).softmax(-1)[:, self.target_class])
            probability = torch.cat(parts).cpu().numpy().astype(np.float64)
            result[chosen] = probability[alt_row] - probability[ref_row]
        self._copy_strand(effects, chosen)

    def _distances(
        self,
        variants: Sequence[Variant],
        chosen: np.ndarray,
        site: np.ndarray,
        contexts: np.ndarray,
        effects: Effects,
    ) -> None:
        windows, ref_row, alt_row = self._pairs(variants, chosen, site, contexts)
        centre, half = self.window // 2, self.embedding_window // 2
        around = slice(max(centre - half, 0), centre + half + 1)
        parts = []
        for first in range(0, len(windows), self.batch_size):
            ids = self._send(windows[first : first + self.batch_size])
            parts.append(self.model.features(ids, self.strand)[:, around].mean(dim=1))
        pooled = torch.cat(parts).cpu().numpy().astype(np.float64)
        ref, alt = pooled[ref_row], pooled[alt_row]
        if self.distance in ("l2", "both"):
            effects.l2[chosen] = np.linalg.norm(alt - ref, axis=1)
        if self.distance in ("cosine", "both"):
            lengths = np.linalg.norm(ref, axis=1) * np.linalg.norm(alt, axis=1)
            effects.cosine[chosen] = 1 - (ref * alt).sum(axis=1) / lengths

    def _pairs(
        self, variants: Sequence[Variant], chosen: np.ndarray, site: np.ndarray, contexts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return windows, and for each chosen variant the row of the one with REF (shared by a site) and with ALT."""
        sites, ref_row = np.unique(site[chosen], return_inverse=True)
        refs = [encode_bases(variants[i].ref) for i in chosen]
        alts = [encode_bases(variants[i].alt) for i in chosen]
        changed = alternative_windows(contexts[site[chosen]], refs, alts, self.window)
        windows = np.concatenate([contexts[sites, : self.window], changed])
        return windows, ref_row, len(sites) + np.arange(len(chosen))

    def _strands(self, effects: Effects) -> list[tuple[str, np.ndarray]]:
        """Which strands to compute, and where their results go."""
        both = [("forward", effects.forward), ("reverse", effects.reverse)]
        if self.trust_equivariance:
            return both[:1] if self.strand != "reverse" else [("forward", effects.reverse)]
        return [(strand, result) for strand, result in both if self.strand in (strand, "both")]

    def _copy_strand(self, effects: Effects, chosen: np.ndarray) -> None:
        if self.trust_equivariance and self.strand == "both":
            effects.reverse[chosen] = effects.forward[chosen]

    def _send(self, array: np.ndarray) -> Tensor:
        """Copy an array to the device, small as it is, without waiting; int64 there."""
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.model.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.model.device, non_blocking=True).to(torch.int64)
