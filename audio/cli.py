"""``longscan audio``: the commands of the audio domain."""

from __future__ import annotations

from ..core.cli import Verb, run_verb

_COMMANDS = "longscan.audio.commands"
VERBS = (
    Verb("fit", "train a model", "longscan.audio.training:fit"),
    Verb("validate", "measure a model on validation data", "longscan.audio.training:validate"),
    Verb("test", "measure a model on test data", "longscan.audio.training:test"),
    Verb("predict", "what the task of a checkpoint says of recordings, as TSV", "longscan.audio.training:predict"),
    Verb("generate", "new audio, prompted by a file or not, as WAV", f"{_COMMANDS}.generate:generate"),
    Verb("classify", "classes and probabilities of files, as TSV", f"{_COMMANDS}.classify:classify"),
    Verb("process", "stream a file through an effect model, block by block", f"{_COMMANDS}.process:process"),
    Verb("likelihood", "bits per sample of files, as TSV", f"{_COMMANDS}.likelihood:likelihood"),
)


def main(argv: list[str]) -> int:
    """Run a command of ``longscan audio``."""
    return run_verb("longscan audio", "Audio models: SaShiMi, S4 classifiers, effects, diffusion.", VERBS, argv)
