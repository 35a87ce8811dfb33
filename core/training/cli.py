"""The training verbs ``fit``, ``validate``, ``test`` and ``predict`` of every domain.

torch and lightning are imported only when a verb runs, so that ``longscan --help`` answers at once.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

VERBS = {
    "fit": "train a model, or go on training one",
    "validate": "measure a model on the validation set",
    "test": "measure a model on the test sets",
    "predict": "write predictions as a table",
}


def run_training(
    verb: str,
    argv: Sequence[str],
    *,
    domain: str,
    task_base: type,
    data_base: type,
    callbacks: Sequence[Callable[[], Callback]] = (),
    prediction_writer: Callable[[str], Callback] | None = None,
) -> int:
    """Run a training verb and return the exit status.

    The command line is LightningCLI's: ``--config`` (a path, or the name of a packaged configuration), ``--model``,
    ``--data``, ``--trainer.*``, ``--seed_everything``; and ours: ``--output``, ``--ckpt_path`` (``last``, ``best`` or
    a path), ``--checkpoint.*``, ``--predictions``, and for ``fit`` ``--folds`` and ``--seeds``
    (:mod:`longscan.core.training.series`).

    Args:
        verb: ``fit``, ``validate``, ``test`` or ``predict``.
        argv: the arguments after the verb.
        domain: folder of the domain under ``configs/``, and its name on the command line.
        task_base: class that ``model:`` must be a subclass of; its subclasses that have been imported may be called by
            their bare name in a configuration.
        data_base: the same for ``data:``.
        callbacks: make the domain's own default callbacks.
        prediction_writer: makes the callback that writes predictions to a path; by default the table of the task.

    Returns:
        0; 2 after a mistake of the user, which is told in one line on standard error; 130 after Ctrl-C, 143
        after SIGTERM.
    """
    if verb not in VERBS:
        raise ValueError(f"verb must be one of {', '.join(VERBS)}, got {verb!r}")
    try:
        from .series import fit_series, take_series
        from .verbs import run_verb

        def run(verb: str, argv: list[str]) -> None:
            run_verb(
                verb,
                argv,
                domain=domain,
                task_base=task_base,
                data_base=data_base,
                callbacks=callbacks,
                prediction_writer=prediction_writer,
            )

        arguments = list(argv)
        series = take_series(arguments) if verb == "fit" else None
        if series is None:
            run(verb, arguments)
        else:
            fit_series(series, arguments, domain, run)
    except UserError as error:
        print(f"longscan: error: {one_line(error)}", file=sys.stderr)
        return 2
    except SystemExit as exit:
        return _status(exit)
    return 0


def one_line(error: BaseException) -> str:
    """Return the message of ``error`` on one line, without the traceback that a loader process wraps it in."""
    text = str(error)
    if "in DataLoader worker process" in text:
        text = re.split(r"^[\w.]*UserError: ", text, flags=re.MULTILINE)[-1]
    return " ".join(text.split())


def _status(exit: SystemExit) -> int:
    code: Any = exit.code
    if isinstance(exit.__context__, KeyboardInterrupt):  # Lightning ends with status 1 then
        print("longscan: interrupted", file=sys.stderr)
        return 130
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    if isinstance(exit, SIGTERMException):  # without a code, which would mean success
        print("longscan: terminated", file=sys.stderr)
        return 143
    if code is None or isinstance(code, int):
        return code or 0
    print(code, file=sys.stderr)
    return 1
