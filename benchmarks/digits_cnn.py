"""``python -m benchmarks.digits_cnn``: a convolutional network on the spoken digits, the peer of the S4 classifier.

M5 of Dai et al. 2017 (arXiv:1610.00087) with 32 channels, the network of torchaudio's tutorial: 25,290 parameters. It
reads a number of samples, not of seconds, so at 4 kHz it is asked in two ways: with every second sample as it is, and
with those samples interpolated back to 8 kHz.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longscan.audio.data.augmentation import Augmentation
from longscan.audio.data.classification import AudioClassificationDataModule

RATE = 8000


def m5(classes: int = 10, channels: int = 32) -> nn.Sequential:
    """Four convolutions with batch norm and pooling, mean over time: (batch, 1, samples) to (batch, classes)."""

    def block(inputs: int, outputs: int, width: int, stride: int = 1) -> list[nn.Module]:
        return [nn.Conv1d(inputs, outputs, width, stride), nn.BatchNorm1d(outputs), nn.ReLU(), nn.MaxPool1d(4)]

    layers = [*block(1, channels, 80, 16), *block(channels, channels, 3), *block(channels, 2 * channels, 3)]
    layers += [*block(2 * channels, 2 * channels, 3)[:3], nn.AdaptiveAvgPool1d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(2 * channels, classes))


def main() -> None:
    """Train once for each seed and print the accuracies of the test recordings."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.digits_cnn", description=__doc__)
    parser.add_argument("--folder", help="checkout of the Free Spoken Digit Dataset; the packaged half without it")
    parser.add_argument("--hold-out-speaker", help="test on this speaker, train on the others")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for seed in options.seeds:
        torch.manual_seed(seed)
        data = AudioClassificationDataModule(
            dataset="spoken_digits",
            folder=options.folder,
            hold_out_speaker=options.hold_out_speaker,
            length=RATE,
            normalize="peak",
            augmentation=Augmentation(shift_seconds=0.1, gain_db=6.0, noise_probability=0.5),
            batch_size=32,
            eval_batch_size=100,
            num_workers=options.workers,
            seed=seed,
        )
        data.setup("fit")
        data.setup("test")
        model = train(m5().to(device), data, options.epochs, device)
        found = accuracies(model, data, device)
        print(f"seed {seed}: " + ", ".join(f"{name} {value:.4f}" for name, value in found.items()), flush=True)


def train(
    model: nn.Sequential, data: AudioClassificationDataModule, epochs: int, device: torch.device
) -> nn.Sequential:
    """AdamW on a one-cycle schedule; the last weights, no selection."""
    loader = data.train_dataloader()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, epochs=epochs, steps_per_epoch=len(loader))
    for _ in range(epochs):
        model.train()
        for batch in loader:
            loss = F.cross_entropy(model(batch["input_ids"].to(device).mT), batch["labels"].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def accuracies(model: nn.Module, data: AudioClassificationDataModule, device: torch.device) -> dict[str, float]:
    """Share of test recordings that are right, at 8 kHz and at 4 kHz."""
    ways = {
        "8 kHz": lambda x: x,
        "4 kHz, every second sample": lambda x: x[..., ::2],
        "4 kHz, interpolated to 8 kHz": lambda x: F.interpolate(x[..., ::2], scale_factor=2.0, mode="linear"),
    }
    right, total = dict.fromkeys(ways, 0), 0
    loaders = data.test_dataloader()
    for loader in loaders if isinstance(loaders, list) else [loaders]:
        for batch in loader:
            samples: Tensor = batch["input_ids"].to(device).mT
            total += len(samples)
            for name, change in ways.items():
                right[name] += int((model(change(samples)).argmax(1).cpu() == batch["labels"]).sum())
    return {name: count / total for name, count in right.items()}


if __name__ == "__main__":
    main()
