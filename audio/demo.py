"""The audio part of ``longscan demo``: tell digits apart beside a baseline measured here, and generate a second."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..core.demo import read_metrics, run_step
from ..core.report import Section


def run(output: Path) -> list[Section]:
    """Run the quick-start configurations in ``output`` and return what the report shows.

    Raises:
        UserError: if a step fails; what went wrong was printed by it.
    """
    from . import training  # which loads lightning

    digits, waves = output / "digits", output / "waveforms"
    print("1/4  training an S4 classifier of spoken digits")
    run_step(training.fit, "audio fit", ["--config", "audio/quickstart_digits", "--output", str(digits)])
    print("2/4  testing it, and cepstra with a logistic regression on the same recordings")
    run_step(training.test, "audio test", ["--ckpt_path", str(digits / "checkpoints" / "best.ckpt")])
    baseline = _baseline()
    print("3/4  training a tiny SaShiMi on the samples of the same recordings")
    run_step(training.fit, "audio fit", ["--config", "audio/quickstart", "--output", str(waves)])
    print("4/4  generating a second of audio")
    wav, picture = output / "generated.wav", output / "spectrogram.png"
    generate = ["--model", str(waves / "model"), "--seconds", "1", "--temperature", "0.9"]
    _generate([*generate, "--output", str(wav)])
    _draw_spectrograms(wav, picture)

    tested, trained = read_metrics(digits / "test"), read_metrics(waves)
    longscan = "uv run longscan" if "UV" in os.environ else "longscan"  # as it was started
    return [
        Section(
            "Audio: spoken digits",
            [
                "Both were trained on recordings of six speakers, of which a tenth chose the classifier's best epoch, "
                "and tested on the same 300 others of the same speakers (Free Spoken Digit Dataset, official test)."
            ],
            ("on 300 test recordings", "accuracy"),
            [
                ("MFCC and logistic regression", f"{baseline:.3f}"),
                ("mel frames and S4D layers", f"{tested['test/accuracy']:.3f}"),
            ],
            [
                (digits / "learning_curves.png", "Training"),
                *((picture, "Confusion matrix") for picture in sorted((digits / "test").glob("*confusion*.png"))),
            ],
        ),
        Section(
            "Audio: generation",
            [
                "A tiny SaShiMi, trained for seconds to predict each sample (8 bits, μ-law, 8 kHz) from those before "
                "it, and one second that it generated. It has learned that loudness changes slowly, but no words: "
                "after so short a training the result is noise that swells and fades. audio/sashimi_digits_ar trains "
                "a real one on a GPU."
            ],
            ("on validation recordings", "bits per sample"),
            [
                ("all codes alike", "8.000"),
                ("frequencies of the codes alone", f"{_order_zero():.3f}"),
                ("SaShiMi", f"{trained['val/bits']:.3f}"),
            ],
            [
                (picture, f"A recording, and what was generated ({wav.name})"),
                (waves / "learning_curves.png", "Training"),
            ],
            [
                "# go on with",
                f"{longscan} audio classify FILES --model {digits / 'model'} --output classes.tsv",
                f"{longscan} audio generate {' '.join(generate)} --seed 1 --output another.wav",
                f"{longscan} audio likelihood FILES --model {waves / 'model'} --output bits.tsv",
                f"{longscan} audio fit --config audio/digits_official --output runs/digits    # raw samples, on a GPU",
            ],
        ),
    ]


def _generate(argv: list[str]) -> None:
    from .commands.generate import generate

    generate(argv)


def _baseline() -> float:
    """Return the accuracy of cepstra and logistic regression, trained on all training recordings."""
    from .baselines import cepstral_regression, read_clips
    from .data.files import AudioFormat
    from .data.sources import read_collection

    recordings, wanted = read_collection("spoken_digits", None), AudioFormat()
    assert recordings.labels is not None
    assert recordings.splits is not None
    train, test = (recordings.select(recordings.splits == split) for split in ("train", "test"))
    predicted = cepstral_regression(
        read_clips(train, wanted), np.asarray(train.labels, dtype=str), read_clips(test, wanted), sample_rate=8000
    )
    return float((predicted == np.asarray(test.labels, dtype=str)).mean())


def _order_zero() -> float:
    """Return the bits per sample of the validation recordings under the frequencies of codes in training."""
    from .baselines import read_clips
    from .data import AudioTokenDataModule

    module = AudioTokenDataModule(dataset="spoken_digits")
    parts = module.splits()
    counts = {
        name: np.bincount(
            np.concatenate([module.quantizer.encode(clip) for clip in read_clips(parts[name], module.format)]),
            minlength=module.quantizer.levels,
        )
        for name in ("train", "val")
    }
    probabilities = (counts["train"] + 1) / (counts["train"] + 1).sum()
    return float(-(counts["val"] * np.log2(probabilities)).sum() / counts["val"].sum())


def _draw_spectrograms(wav: Path, picture: Path) -> None:
    from .data.files import AudioFormat, read_audio
    from .data.sources import read_collection
    from .pictures import write_spectrograms

    recordings = read_collection("spoken_digits", None)
    recording, rate = recordings.read(0, AudioFormat())
    generated, _ = read_audio(wav)
    clips = [(f"recording: {recordings.names[0]}", recording[:, 0]), ("generated", generated[:, 0])]
    write_spectrograms(picture, clips, rate)
