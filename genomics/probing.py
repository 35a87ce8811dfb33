"""Simple models on frozen embeddings, and what they reach on data that they have not seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from ..core.errors import UserError

Task = Literal["classification", "regression"]

#: Strengths that cross-validation chooses from: C (inverse regularisation), or for ridge alpha (regularisation).
C_VALUES = (0.01, 0.1, 1.0, 10.0, 100.0)
ALPHA_VALUES = (0.1, 1.0, 10.0, 100.0, 1000.0)
ESTIMATORS: dict[str, tuple[str, ...]] = {
    "classification": ("logistic", "svm", "linear-svm", "ridge"),
    "regression": ("ridge", "svm", "linear-svm"),
}
#: Metadata in which the embeddings of two files must agree; the model's name is for people, its revision identifies it.
IDENTITY = ("model", "revision", "pooling", "strand")


@dataclass(frozen=True)
class ProbeData:
    """Embeddings with what is to be predicted of them.

    Attributes:
        source: where they come from, for errors.
        x: (rows, channels) float32.
        y: (rows,) class names (str), or numbers (float64).
        groups: (rows,) what must stay together, or None.
        metadata: what the embeddings were computed with, where that is known; of it `IDENTITY` is compared.
        categories: (rows,) str, what `probe_data.add_categories` appends to the features, or None.
        distances: (rows,) float64 from 0, by which figures are split into buckets, or None.
    """

    source: str
    x: np.ndarray
    y: np.ndarray
    groups: np.ndarray | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    categories: np.ndarray | None = None
    distances: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> ProbeData:
        """The rows at these indices."""
        optional = (self.groups, self.categories, self.distances)
        groups, categories, distances = (None if values is None else values[rows] for values in optional)
        return replace(self, x=self.x[rows], y=self.y[rows], groups=groups, categories=categories, distances=distances)


@dataclass(frozen=True)
class ProbeSettings:
    """What is fitted and how it is chosen.

    Attributes:
        task: what ``y`` is.
        estimator: of `ESTIMATORS`; ``svm`` has the RBF kernel. Features are standardised before it.
        values: strengths to choose from.
        folds: of the outer cross-validation, which measures.
        inner_folds: of the inner one, on training rows alone, which chooses; by ROC-AUC for two classes, accuracy for
            more, R² in regression.
    """

    task: Task = "classification"
    estimator: str = "logistic"
    values: tuple[float, ...] = C_VALUES
    folds: int = 5
    inner_folds: int = 3

    def __post_init__(self) -> None:
        if self.estimator not in ESTIMATORS[self.task]:
            known = ", ".join(ESTIMATORS[self.task])
            raise UserError(f"--estimator {self.estimator}: is not for {self.task}; take one of {known}")
        if not self.values or not all(0 < value < float("inf") for value in self.values):
            raise UserError(f"--values {','.join(f'{v:g}' for v in self.values)}: must be one or more numbers above 0")
        for name, count in (("folds", self.folds), ("inner-folds", self.inner_folds)):
            if count < 2:
                raise UserError(f"--{name} {count}: must be at least 2")


@dataclass(frozen=True)
class ProbeResult:
    """One measurement: ``value`` is the strength chosen, ``test_rows`` the rows that it was not fitted on and is
    measured on; ``part`` names them where they are not all of the test table."""

    seed: int
    fold: int
    value: float
    train: int
    test: int
    metrics: dict[str, float]
    test_rows: np.ndarray
    part: str = ""


def cross_validate(data: ProbeData, settings: ProbeSettings, seeds: Sequence[int] = (0,)) -> Iterator[ProbeResult]:
    """Yield the result of each fold of a nested cross-validation, for each seed.

    Of each fold, scaling, the choice of the strength and the fit see the other folds alone. Folds are stratified by
    class; with groups, a group is on one side only.

    Raises:
        UserError: a single class, more folds than rows of the smallest class (or groups), or a fold whose training
            part lacks a class.
    """
    _check_labels(data, settings.task)
    if data.groups is not None and len(seeds) > 1:
        raise UserError("--seeds: folds of whole groups are the same for every seed; leave --seeds at 1 with --groups")
    for seed in seeds:
        splits = _splitter(data, settings.folds, settings.task, seed, "--folds").split(data.x, data.y, data.groups)
        for fold, (train, test) in enumerate(splits, start=1):
            part = data.take(train)
            if settings.task == "classification" and len(set(part.y)) < len(set(data.y)):
                missing = min(map(str, set(data.y) - set(part.y)))
                raise UserError(
                    f"{data.source}: fold {fold} leaves no row of class {missing!r} to train on; use fewer or other "
                    f"groups"
                )
            chosen, value = fit(part, settings, seed)
            scores = measure(chosen, data.x[test], data.y[test], settings.task)
            yield ProbeResult(seed, fold, value, len(train), len(test), scores, test)


def evaluate_once(train: ProbeData, test: ProbeData, settings: ProbeSettings, seed: int = 0) -> ProbeResult:
    """Choose and fit on ``train`` alone, and measure on ``test`` once.

    Raises:
        UserError: as `cross_validate`, or a class of ``test`` that ``train`` does not have.
    """
    return evaluate_parts(train, test, {"": np.arange(len(test.y))}, settings, seed)[0]


def evaluate_parts(
    train: ProbeData, test: ProbeData, parts: Mapping[str, np.ndarray], settings: ProbeSettings, seed: int = 0
) -> list[ProbeResult]:
    """As `evaluate_once`, with the one fitted model measured on several parts of ``test``.

    Args:
        parts: name to the indices of rows, at least one each.
    """
    _check_labels(train, settings.task)
    _check_finite(test)
    _check_same(train, test, settings.task)
    chosen, value = fit(train, settings, seed)
    result = []
    for name, rows in parts.items():
        scores = measure(chosen, test.x[rows], test.y[rows], settings.task)
        result.append(ProbeResult(seed, 1, value, len(train.y), len(rows), scores, rows, name))
    return result


def fit(train: ProbeData, settings: ProbeSettings, seed: int = 0) -> tuple[Any, float]:
    """Choose the strength by cross-validation inside ``train``, fit on all of it, and return both."""
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    model = _estimator(settings.task, settings.estimator, seed)
    name = "alpha" if settings.estimator == "ridge" else "C"
    pipeline = Pipeline([("scaler", StandardScaler()), ("estimator", model)])
    if len(settings.values) == 1:
        pipeline.set_params(**{f"estimator__{name}": settings.values[0]})
        return pipeline.fit(train.x, train.y), settings.values[0]
    scoring = "r2"
    if settings.task == "classification":
        scoring = "roc_auc" if len(set(train.y)) == 2 else "accuracy"
    splitter = _splitter(train, settings.inner_folds, settings.task, seed, "--inner-folds")
    inner = list(splitter.split(train.x, train.y, train.groups))
    if settings.task == "classification" and any(len(set(train.y[side])) < 2 for pair in inner for side in pair):
        raise UserError(
            f"{train.source}: an inner fold of whole groups holds one class only, so no strength can be chosen; give "
            f"one with --values, or other groups"
        )
    search = GridSearchCV(
        pipeline, {f"estimator__{name}": list(settings.values)}, cv=inner, scoring=scoring, error_score="raise"
    )
    search.fit(train.x, train.y)
    return search.best_estimator_, float(search.best_params_[f"estimator__{name}"])


def measure(model: Any, x: np.ndarray, y: np.ndarray, task: Task) -> dict[str, float]:
    """Metrics of a fitted model.

    For classes ``roc_auc`` (of the decision function; for several classes the mean over each against the rest),
    ``accuracy``, ``mcc`` (Matthews correlation) and ``f1_macro`` (over the classes that are there or are predicted);
    for numbers ``r2`` and ``pearson``. What is not defined (ROC-AUC and MCC of rows of one class) is NaN.
    """
    from sklearn import metrics

    predicted = model.predict(x)
    if task == "regression":
        varied = len(y) > 1 and np.std(y) > 0 and np.std(predicted) > 0
        return {
            "r2": float(metrics.r2_score(y, predicted)) if len(y) > 1 else float("nan"),
            "pearson": float(np.corrcoef(y, predicted)[0, 1]) if varied else float("nan"),
        }
    return {
        "roc_auc": _roc_auc(model.decision_function(x), y, model.classes_),
        "accuracy": float(metrics.accuracy_score(y, predicted)),
        "mcc": float(metrics.matthews_corrcoef(y, predicted)) if len(set(y)) > 1 else float("nan"),
        "f1_macro": float(metrics.f1_score(y, predicted, average="macro", zero_division=0)),
    }


def _roc_auc(decision: np.ndarray, y: np.ndarray, classes: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    if len(set(y)) < 2:
        return float("nan")
    if decision.ndim == 1:
        return float(roc_auc_score(y == classes[1], decision))
    present = [i for i, name in enumerate(classes) if (y == name).any()]
    return float(np.mean([roc_auc_score(y == classes[i], decision[:, i]) for i in present]))


def _estimator(task: Task, name: str, seed: int) -> Any:
    from sklearn import linear_model, svm

    if task == "regression":
        choices: dict[str, Any] = {
            "ridge": lambda: linear_model.Ridge(),
            "svm": lambda: svm.SVR(),
            "linear-svm": lambda: svm.LinearSVR(dual="auto", max_iter=10_000, random_state=seed),
        }
    else:
        choices = {
            "logistic": lambda: linear_model.LogisticRegression(max_iter=2000),
            "svm": lambda: svm.SVC(kernel="rbf"),
            "linear-svm": lambda: svm.LinearSVC(dual="auto", max_iter=10_000, random_state=seed),
            "ridge": lambda: linear_model.RidgeClassifier(),
        }
    return choices[name]()


def _splitter(data: ProbeData, folds: int, task: Task, seed: int, option: str) -> Any:
    from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold

    if data.groups is not None:
        count = len(set(data.groups))
        if count < folds:
            raise UserError(f"{option} {folds}: {data.source} has {count} group(s) to make them from; lower it")
        return GroupKFold(folds)
    if task == "regression":
        if len(data.y) < folds:
            raise UserError(f"{option} {folds}: {data.source} has {len(data.y)} row(s) to make them from; lower it")
        return KFold(folds, shuffle=True, random_state=seed)
    name, count = min(Counter(data.y.tolist()).items(), key=lambda entry: (entry[1], entry[0]))
    if count < folds:
        raise UserError(
            f"{option} {folds}: class {name!r} of {data.source} has {count} row(s) to make them from; lower it"
        )
    return StratifiedKFold(folds, shuffle=True, random_state=seed)


def _check_labels(data: ProbeData, task: Task) -> None:
    if task == "classification" and len(set(data.y)) < 2:
        raise UserError(f"{data.source}: only one class, {str(data.y[0])!r}; classification needs at least two")
    _check_finite(data)


def _check_finite(data: ProbeData) -> None:
    if not np.isfinite(data.x).all():
        row = int(np.flatnonzero(~np.isfinite(data.x).all(1))[0])
        raise UserError(f"{data.source}: the embedding of row {row + 1} is not finite; check the model")


def _check_same(train: ProbeData, test: ProbeData, task: Task) -> None:
    if train.x.shape[1] != test.x.shape[1]:
        raise UserError(
            f"{test.source}: embeddings have {test.x.shape[1]} channels, those of {train.source} {train.x.shape[1]}; "
            f"embed both with one model"
        )
    for name in IDENTITY[1:]:
        one, other = train.metadata.get(name), test.metadata.get(name)
        if one is not None and other is not None and one != other:
            raise UserError(
                f"{test.source}: was embedded with {name} {other}, {train.source} with {one}; embed both alike"
            )
    unknown = sorted(map(str, set(test.y) - set(train.y))) if task == "classification" else []
    if unknown:
        raise UserError(f"{test.source}: class {unknown[0]!r} does not occur in {train.source}; correct the labels")


__all__ = [
    "ESTIMATORS",
    "ProbeData",
    "ProbeResult",
    "ProbeSettings",
    "cross_validate",
    "evaluate_once",
    "evaluate_parts",
    "fit",
    "measure",
]
