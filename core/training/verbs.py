"""What the training verbs do: LightningCLI with our folders, checkpoints, callbacks and error messages."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from jsonargparse import ArgumentError
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from lightning.pytorch.utilities.warnings import PossibleUserWarning

from ..errors import UserError
from ..files import replacing
from .argument_errors import argument_message
from .arguments import find_configs, take_option, take_path
from .callbacks import (
    AtomicCheckpointIO,
    BestCheckpoint,
    ConfusionPicture,
    GracefulInterrupt,
    LastCheckpoint,
    LearningCurves,
    PredictionTable,
    RandomState,
    ResultTable,
    Throughput,
    TrainingProgress,
)
from .checkpoint_check import check_checkpoint, mismatch
from .run_files import RunFolder, check_writable, new_run, newest_run

#: Tells the processes that Lightning starts for further devices which folder the first one chose.
FOLDER_VARIABLE = "LONGSCAN_RUN_FOLDER"


#: What libraries warn of though it is meant: a resumed run finds its own checkpoints, a test needs no callbacks, and
#: weight averaging builds the model (which ``configure_model`` does once).
_EXPECTED_WARNINGS = (
    ".*LeafSpec.* is deprecated",
    "Checkpoint directory .* exists and is not empty",
    "Be aware that when using `ckpt_path`, callbacks used to create the checkpoint need to be provided",
    "You're using the WeightAveraging callback with a model that overrides the configure_model",
    "You're using the WeightAveraging callback, but loading a checkpoint outside the 'fit' stage",
)


@dataclass(frozen=True)
class CheckpointOptions:
    """When checkpoints are written.

    Args:
        every_n_steps: optimiser steps between writes of ``last.ckpt``, which is also written after each epoch.
        monitor: metric by which ``best.ckpt`` is chosen.
        mode: whether smaller or larger is better.
    """

    every_n_steps: int | None = 500
    monitor: str = "val/loss"
    mode: Literal["min", "max"] = "min"


@dataclass
class Request:
    """A verb as asked for, with its files found."""

    verb: str
    argv: list[str]
    domain: str
    callbacks: Sequence[Callable[[], Callback]]
    prediction_writer: Callable[[str], Callback] | None
    name: str
    output: Path | None
    checkpoint: Path | None
    predictions: Path | None


def run_verb(
    verb: str,
    argv: list[str],
    *,
    domain: str,
    task_base: type,
    data_base: type,
    callbacks: Sequence[Callable[[], Callback]],
    prediction_writer: Callable[[str], Callback] | None,
) -> None:
    """Run one verb; see :func:`longscan.core.training.cli.run_training`.

    Raises:
        UserError: a mistake of the user, whatever library found it.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.simplefilter("ignore", PossibleUserWarning)
    for message in _EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    request = _understand(verb, argv, domain, callbacks, prediction_writer)
    try:
        with _messages():
            cli = TrainingCLI(request, task_base, data_base)
            cli.run()
    except ArgumentError as error:
        raise UserError(argument_message(str(error), [*_subclasses(task_base), *_subclasses(data_base)])) from error
    except MisconfigurationException as error:
        raise UserError(str(error)) from error
    except RuntimeError as error:
        told = mismatch(error, request.checkpoint) if request.checkpoint else None
        if told is None:
            raise
        raise told from error


@contextlib.contextmanager
def _messages() -> Iterator[None]:
    """Show what longscan's loggers tell (held-out rows, windows left out) on standard error, once for all processes."""
    logger = logging.getLogger(__name__.split(".")[0])
    handler, level = logging.StreamHandler(), logger.level
    handler.setLevel(logging.WARNING if _rank() else logging.INFO)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _understand(
    verb: str,
    argv: list[str],
    domain: str,
    callbacks: Sequence[Callable[[], Callback]],
    prediction_writer: Callable[[str], Callback] | None,
) -> Request:
    """Find the configuration, the checkpoint and the folder that the arguments speak of.

    ``argv`` comes back with packaged names replaced by paths and without the options that are dealt with here.
    """
    given, names = find_configs(argv, domain)
    name = names[-1] if names else domain
    output = take_path(given, "--output")
    predictions = take_path(given, "--predictions")
    wanted = take_option(given, "--ckpt_path")
    checkpoint: Path | None = None
    if wanted in ("last", "best"):
        run = RunFolder(output) if output is not None and verb == "fit" else None
        checkpoint = (run or _run_of(output, name, bool(names))).checkpoint(str(wanted))
    elif wanted is not None:
        checkpoint = Path(wanted)
    if checkpoint is not None:
        check_checkpoint(checkpoint, resume=verb == "fit")
        run = RunFolder.of_checkpoint(checkpoint)
        if run is not None and not names and run.config.is_file():
            given = ["--config", str(run.config), *given]
        if run is not None and output in (None, run.path):  # what fit wrote there stays
            output = run.path if verb == "fit" else run.path / verb
    return Request(verb, given, domain, callbacks, prediction_writer, name, output, checkpoint, predictions)


def _run_of(output: Path | None, name: str, named: bool) -> RunFolder:
    if output is not None and RunFolder(output).checkpoints.is_dir():
        return RunFolder(output)
    if not named:
        raise UserError("--ckpt_path last and best need --config, or --output with the folder of a run")
    return newest_run(name)


class TrainingCLI(LightningCLI):
    """LightningCLI for one verb, whose name is not part of what it parses."""

    def __init__(self, request: Request, task_base: type, data_base: type) -> None:
        self.request = request
        super().__init__(
            model_class=task_base,
            datamodule_class=data_base,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults={"gradient_clip_val": 1.0, "log_every_n_steps": 10, "enable_model_summary": False},
            parser_kwargs={"exit_on_error": False, "prog": f"longscan {request.domain} {request.verb}"},
            args=request.argv,
            run=False,
            auto_configure_optimizers=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(CheckpointOptions, "checkpoint")
        # Taken out before parsing; declared for --help, and so that a configuration cannot set them unnoticed.
        ours = parser.add_argument_group("Files")
        ours.add_argument("--output", type=str | None, help="folder of the run; default runs/<config>/<time>")
        ours.add_argument("--ckpt_path", type=str | None, help="checkpoint: last, best or a path; fit resumes from it")
        if self.request.verb == "fit":
            ours.add_argument("--folds", type=int | None, help="cross-validate: one run for each of so many folds")
            ours.add_argument("--seeds", type=str | None, help="one run for each seed: 1,2,3, or how many")
        ours.add_argument("--predictions", type=str | None, help="table that predict writes; default in the folder")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)
        for name in ("output", "ckpt_path", "predictions", "folds", "seeds"):
            if self.config.get(name) is not None:
                raise UserError(f"{name} belongs on the command line (--{name}), not in a configuration")

    def before_instantiate_classes(self) -> None:
        """Choose the folder and check it, before anything slow happens."""
        request = self.request
        chosen = os.environ.get(FOLDER_VARIABLE) if _rank() else None
        folder = chosen or request.output or self.config.trainer.get("default_root_dir") or new_run(request.name)
        self.folder = RunFolder(Path(folder))
        os.environ[FOLDER_VARIABLE] = str(folder)
        if request.verb == "predict" and request.predictions is not None:
            if request.predictions.is_dir():
                raise UserError(f"--predictions {request.predictions}: is a folder; name a file in it")
            check_writable(request.predictions.parent, "--predictions")
            return
        last = self.folder.checkpoints / "last.ckpt"
        if request.verb == "fit" and request.checkpoint is None and last.exists() and not _rank():
            raise UserError(
                f"{self.folder.path} already holds a run: resume it with --ckpt_path last, or choose another --output"
            )
        check_writable(self.folder.path)

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as error:
            # What a constructor says of its arguments, which jsonargparse wraps in all it had tried to make of them.
            told = str(_innermost(error))
            if "must be a mapping, not NoneType" in told:
                told = "a group of settings, such as model.optimizer, is null; leave it out, or give its settings"
            raise UserError(told) from error

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        config: dict[str, Any] = {**self.config_init.trainer, **kwargs, "default_root_dir": str(self.folder.path)}
        fit = self.request.verb == "fit"
        if fit and config.get("logger") in (None, True):
            config["logger"] = [
                CSVLogger(str(self.folder.path), name="csv"),
                TensorBoardLogger(str(self.folder.path), name="tensorboard", version=""),
            ]
        elif not fit:
            config["logger"] = False
        plugins = _listed(config.get("plugins"))
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(AtomicCheckpointIO())
        callbacks = _listed(config.get("callbacks"))
        if config.get("enable_progress_bar") is not False and not any(isinstance(c, ProgressBar) for c in callbacks):
            callbacks.append(TrainingProgress())
        present = {type(callback) for callback in callbacks}
        callbacks += [callback for callback in self._default_callbacks() if type(callback) not in present]
        if not fit or config.get("enable_checkpointing") is False:
            config["enable_checkpointing"] = False
            callbacks = [callback for callback in callbacks if not isinstance(callback, Checkpoint)]
        return self.trainer_class(**config | {"callbacks": callbacks, "plugins": plugins})

    def _default_callbacks(self) -> list[Callback]:
        request = self.request
        own = [make() for make in request.callbacks]
        if request.verb == "predict":
            path = str(request.predictions or self.folder.path / "predictions.tsv")
            return [*own, (request.prediction_writer or PredictionTable)(path)]
        if request.verb != "fit":
            return [*own, ConfusionPicture(), ResultTable()]
        options = self.config_init.checkpoint
        checkpoints = str(self.folder.checkpoints)
        return [
            _AtStart(self._save_config),
            RandomState(),
            Throughput(),
            *own,
            LearningCurves(),
            ConfusionPicture(),
            ResultTable(),
            BestCheckpoint(options.monitor, options.mode, folder=checkpoints),
            LastCheckpoint(folder=checkpoints, every_n_steps=options.every_n_steps),
            GracefulInterrupt(self._resume_command),
        ]

    def _resume_command(self, checkpoint: str) -> list[str]:
        request = self.request
        return [
            "longscan",
            request.domain,
            request.verb,
            *request.argv,
            "--output",
            str(self.folder.path),
            "--ckpt_path",
            checkpoint,
        ]

    def run(self) -> None:
        """Run the verb."""
        request, trainer = self.request, self.trainer
        if request.checkpoint is not None:
            # Not an argument of the verb: so the task knows it when it builds the model.
            trainer.ckpt_path = str(request.checkpoint)
        common: dict[str, Any] = {"datamodule": self.datamodule, "weights_only": True}
        if request.verb == "fit":
            trainer.fit(self.model, **common)
        elif request.verb == "predict":
            trainer.predict(self.model, return_predictions=False, **common)
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                for path in getattr(callback, "written", []):
                    print(path)
        elif request.verb == "validate":
            trainer.validate(self.model, verbose=False, **common)
        else:
            trainer.test(self.model, verbose=False, **common)

    @rank_zero_only
    def _save_config(self) -> None:
        with replacing(self.folder.config) as temporary:
            config = self.config.clone()
            for name in ("folds", "seeds"):  # which the other verbs, that read the file too, do not have
                config.pop(name, None)
            temporary.write_text(self.parser.dump(config, skip_none=False))


class _AtStart(Callback):
    """Saves the configuration once all is read, a checkpoint too: what a run cannot be resumed with leaves no trace."""

    def __init__(self, save: Callable[[], None]) -> None:
        self.save = save

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.save()


def _innermost(error: BaseException) -> BaseException:
    while error.__cause__ is not None and not isinstance(error, UserError):
        error = error.__cause__
    return error


def _subclasses(base: Any) -> list[str]:
    return [base.__name__, *(name for child in base.__subclasses__() for name in _subclasses(child))]


def _rank() -> int:
    return getattr(rank_zero_only, "rank", 0)


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
