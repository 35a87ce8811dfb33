"""``longscan vision``: the commands of the vision domain."""

from __future__ import annotations

from ..core.cli import Verb, run_verb

_COMMANDS = "longscan.vision.commands"
VERBS = (
    Verb("fit", "train a model", "longscan.vision.training:fit"),
    Verb("validate", "measure a model on validation data", "longscan.vision.training:validate"),
    Verb("test", "measure a model on test data", "longscan.vision.training:test"),
    Verb("predict", "what the task of a checkpoint says of images, as TSV", "longscan.vision.training:predict"),
    Verb("classify", "classes and probabilities of images, as TSV", f"{_COMMANDS}.classify:classify"),
    Verb("generate", "new images from an autoregressive model, as PNG", f"{_COMMANDS}.generate:generate"),
    Verb("embed", "features of images, as Parquet or NPZ", f"{_COMMANDS}.embed:embed"),
    Verb("export", "write a model as ONNX", f"{_COMMANDS}.export:export"),
    Verb("saliency", "which pixels a class depends on, as a picture", f"{_COMMANDS}.saliency:saliency"),
)


def main(argv: list[str]) -> int:
    """Run a command of ``longscan vision``."""
    return run_verb("longscan vision", "Image models: Vision Mamba and its neighbours.", VERBS, argv)
