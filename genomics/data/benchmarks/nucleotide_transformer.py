"""The Nucleotide Transformer tasks (Dalla-Torre et al. 2023): FASTA files whose headers end in the class."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ....core.errors import UserError
from ..classification import SequenceTableDataModule
from ..tables import Records, read_fasta_table
from .folders import existing_folder

#: Names that the hub's data set and the folders of HyenaDNA and Caduceus give to the same task.
_SYNONYMS = [
    {"enhancer", "enhancers"},
    {"enhancer_types", "enhancers_types"},
    {"promoter_non_tata", "promoter_no_tata"},
    {"splice_sites_acceptor", "splice_sites_acceptors"},
    {"splice_sites_donor", "splice_sites_donors"},
]
_FASTA_NAME = re.compile(r".*(?P<split>train|test).*\.(fasta|fna|fa)(\.b?gz)?", re.IGNORECASE)


class NucleotideTransformerDataModule(SequenceTableDataModule):
    """One of the 18 tasks: a folder with one ``*train*`` and one ``*test*`` FASTA file, headers ``>name|label``.

    There is no validation file: ``val_fraction`` of the training records, class by class, is held out by ``seed``.

    Args:
        folder: the folder of the task, or of the benchmark.
        task: the task in it, under the names of either scheme (``enhancers`` or ``enhancer``, ``promoter_no_tata`` or
            ``promoter_non_tata``); None if ``folder`` is that of the task.
        options: those of `SequenceTableDataModule`.

    Raises:
        UserError: no such folder, no or several files for a split; in ``setup``, anything wrong with the files, such as
            a record without a label.
    """

    def __init__(self, folder: str, task: str | None = None, **options: Any) -> None:
        place = existing_folder(folder, _existing_name(Path(folder).expanduser(), task))
        super().__init__(train_file=_split_file(place, "train"), test_file=_split_file(place, "test"), **options)
        if self.target != "class":
            raise UserError("the Nucleotide Transformer tasks are classifications; leave target at 'class'")

    def _read(self, name: str, *, label_required: bool = True) -> Records:
        if name not in ("train", "test"):
            return super()._read(name, label_required=label_required)
        return self._checked(read_fasta_table(self.files[name], self.tokenizer, labelled=True))


def _existing_name(root: Path, task: str | None) -> str | None:
    """The name under which ``root`` has a task, ``task`` itself where it has none."""
    names = next((names for names in _SYNONYMS if task in names), set())
    return next((name for name in sorted(names) if (root / name).is_dir()), task)


def _split_file(folder: Path, split: str) -> str:
    matches = [(file, _FASTA_NAME.fullmatch(file.name)) for file in sorted(folder.iterdir())]
    found = [file for file, match in matches if match and match["split"].lower() == split]
    if not found:
        raise UserError(f"{folder}: has no {split} file; its name has {split!r} in it and ends in .fasta, .fna or .fa")
    if len(found) > 1:
        raise UserError(f"{folder}: both {found[0].name} and {found[1].name} could be the {split} file; move one away")
    return str(found[0])
