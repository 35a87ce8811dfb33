"""Simple models on embeddings: honest measurements, and the published protocol with its flaws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from longscan.core.errors import UserError
from longscan.genomics.caduceus_protocol import VALUES, best_on_test, caduceus_protocol
from longscan.genomics.probing import ESTIMATORS, ProbeData, ProbeSettings, cross_validate, evaluate_once


def blobs(rows: int = 90, classes: int = 2, distance: float = 4.0, channels: int = 8, seed: int = 0) -> ProbeData:
    """Rows of Gaussian clouds, whose centres are ``distance`` apart on axes of their own."""
    generator = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    x = generator.normal(size=(rows, channels))
    x[np.arange(rows), y] += distance
    return ProbeData("blobs", x.astype(np.float32), np.array([f"c{value}" for value in y]))


@pytest.mark.parametrize("estimator", ESTIMATORS["classification"])
@pytest.mark.parametrize("classes", [2, 3])
def test_separable_classes_are_found(estimator: str, classes: int) -> None:
    settings = ProbeSettings(estimator=estimator, values=(0.1, 1.0))
    results = list(cross_validate(blobs(classes=classes), settings))
    assert len(results) == 5
    for result in results:
        assert (result.train, result.test) == (72, 18)
        assert result.metrics["roc_auc"] > 0.97
        assert result.metrics["accuracy"] > 0.8
        assert result.metrics["mcc"] > 0.6
    assert sorted(np.concatenate([result.test_rows for result in results])) == list(range(90))


@pytest.mark.parametrize("estimator", ESTIMATORS["regression"])
def test_a_linear_target_is_found(estimator: str) -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(120, 5)).astype(np.float32)
    data = ProbeData("line", x, x @ np.array([1.0, -2, 0, 0.5, 0]) + 0.05 * generator.normal(size=120))
    results = list(cross_validate(data, ProbeSettings("regression", estimator, values=(0.1, 1.0, 10.0))))
    assert min(result.metrics["r2"] for result in results) > (0.8 if estimator == "svm" else 0.98)
    assert min(result.metrics["pearson"] for result in results) > 0.9


def test_shuffled_labels_give_chance() -> None:
    """Many noise channels and few rows, where any leak of the test rows shows."""
    data = blobs(rows=120, distance=4.0, channels=200)
    shuffled = ProbeData("s", data.x, np.random.default_rng(3).permutation(data.y))
    scores = [r.metrics["roc_auc"] for r in cross_validate(shuffled, ProbeSettings(), seeds=range(2))]
    assert abs(np.mean(scores) - 0.5) < 0.1


def test_nothing_that_is_fitted_sees_the_test_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    data = blobs(rows=60)
    data.x[:, -1] = np.arange(60)  # tells rows apart
    seen: set[int] = set()
    for owner in (StandardScaler, LogisticRegression):
        fit = owner.fit

        def recorded(self: Any, x: np.ndarray, *rest: Any, fit: Any = fit, owner: Any = owner, **more: Any) -> Any:
            if owner is StandardScaler:
                seen.update(x[:, -1].astype(int).tolist())
            return fit(self, x, *rest, **more)

        monkeypatch.setattr(owner, "fit", recorded)
    for result in cross_validate(data, ProbeSettings()):
        assert len(seen) == 48
        assert not seen & set(result.test_rows.tolist())
        seen.clear()


def test_the_strength_is_chosen_without_the_test_table() -> None:
    train, test = blobs(rows=80, distance=1.0, channels=40), blobs(rows=40, distance=1.0, channels=40, seed=1)
    flipped = ProbeData("flipped", test.x, np.where(test.y == "c0", "c1", "c0"))
    settings = ProbeSettings(values=(0.001, 0.1, 10.0))
    one, other = evaluate_once(train, test, settings), evaluate_once(train, flipped, settings)
    assert one.value == other.value
    assert one.metrics["accuracy"] == pytest.approx(1 - other.metrics["accuracy"])
    assert one.metrics["roc_auc"] == pytest.approx(1 - other.metrics["roc_auc"])


def test_metrics_are_those_of_scikit_learn() -> None:
    train, test = blobs(classes=3, distance=1.0), blobs(classes=3, distance=1.0, seed=5)
    result = evaluate_once(train, test, ProbeSettings(values=(1.0,)))
    scaler = StandardScaler().fit(train.x)
    model = LogisticRegression(C=1.0, max_iter=2000).fit(scaler.transform(train.x), train.y)
    decision, predicted = model.decision_function(scaler.transform(test.x)), model.predict(scaler.transform(test.x))
    each = [metrics.roc_auc_score(test.y == name, decision[:, i]) for i, name in enumerate(model.classes_)]
    assert result.metrics == pytest.approx({
        "roc_auc": np.mean(each),
        "accuracy": np.mean(predicted == test.y),
        "mcc": metrics.matthews_corrcoef(test.y, predicted),
        "f1_macro": metrics.f1_score(test.y, predicted, average="macro"),
    })  # fmt: skip


def test_groups_stay_together() -> None:
    """Labels that follow the group and nothing else: rows in random folds are recognised, whole groups are not."""
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), 10)
    centres = generator.normal(size=(12, 20)) * 3
    x = (centres[groups] + 0.1 * generator.normal(size=(120, 20))).astype(np.float32)
    y = np.array(["a", "b"])[np.random.default_rng(1).permutation(np.arange(12) % 2)[groups]]
    grouped = ProbeData("g", x, y, groups.astype(str))
    settings = ProbeSettings("classification", "svm", (1.0,), folds=4, inner_folds=2)
    loose = [r.metrics["accuracy"] for r in cross_validate(ProbeData("g", x, y), settings)]
    results = list(cross_validate(grouped, settings))
    assert np.mean(loose) == 1.0
    assert np.mean([r.metrics["accuracy"] for r in results]) < 0.8
    for result in results:
        inside = set(groups[result.test_rows])
        assert not inside & set(np.delete(groups, result.test_rows))


def test_caduceus_protocol_is_reproduced() -> None:
    """Hard predictions, C from the list, and the best picked on test."""
    train, test = blobs(rows=300, distance=1.0), blobs(rows=200, distance=1.0, seed=9)
    rows = caduceus_protocol(train, test, rows=100)
    assert [(row.seed, row.value) for row in rows] == [(seed, c) for seed in range(5) for c in (1.0, 5.0, 10.0)]
    from sklearn.svm import SVC

    chosen = np.sort(np.random.default_rng(2).permutation(300)[:100])
    scaler = StandardScaler().fit(train.x[chosen])
    model = SVC(C=5.0).fit(scaler.transform(train.x[chosen]), train.y[chosen])
    hard = model.predict(scaler.transform(test.x)) == "c1"
    row = next(row for row in rows if (row.seed, row.value) == (2, 5.0))
    assert row.train == 100
    assert row.auc_hard == pytest.approx(metrics.roc_auc_score(test.y == "c1", hard))
    decision = model.decision_function(scaler.transform(test.x))
    assert row.auc_decision == pytest.approx(metrics.roc_auc_score(test.y == "c1", decision))
    means = {value: np.mean([r.auc_hard for r in rows if r.value == value]) for value in VALUES}
    assert means[best_on_test(rows)] == max(means.values())
    with pytest.raises(UserError, match=r"blobs: 3 class\(es\); --protocol caduceus-vep is for two"):
        caduceus_protocol(blobs(classes=3), test)


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        (blobs(rows=8), {}, "--folds 5: class 'c0' of blobs has 4 row"),
        (blobs(rows=10), {"folds": 2, "inner_folds": 5}, "--inner-folds 5: class 'c0' of blobs has 2 row"),
        (blobs(classes=1), {}, "blobs: only one class, 'c0'"),
        (ProbeData("g", blobs().x, blobs().y, np.array(["u", "v", "w"] * 30)), {}, r"--folds 5: g has 3 group\(s\)"),
        (ProbeData("g", blobs().x, blobs().y, blobs().y), {"folds": 2}, "fold 1 leaves no row of class 'c"),
        (ProbeData("n", blobs().x * np.nan, blobs().y), {}, "n: the embedding of row 1 is not finite"),
    ],
)  # fmt: skip
def test_bad_data(data: ProbeData, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        list(cross_validate(data, ProbeSettings(**settings)))
    assert "\n" not in str(caught.value)


def test_bad_settings_and_pairs() -> None:
    for settings, message in (
        ({"estimator": "forest"}, "--estimator forest: is not for classification"),
        ({"task": "regression"}, "--estimator logistic: is not for regression"),
        ({"values": (0.0, 1.0)}, "--values 0,1: must be"),
        ({"folds": 1}, "--folds 1: must be at least 2"),
    ):
        with pytest.raises(UserError, match=message):
            ProbeSettings(**settings)  # type: ignore[arg-type]
    grouped = ProbeData("g", blobs().x, blobs().y, np.repeat([str(i) for i in range(9)], 10))
    with pytest.raises(UserError, match="--seeds: folds of whole groups are the same"):
        list(cross_validate(grouped, ProbeSettings(), seeds=(0, 1)))
    with pytest.raises(UserError, match="embeddings have 5 channels, those of blobs 8"):
        evaluate_once(blobs(), blobs(channels=5), ProbeSettings())
    with pytest.raises(UserError, match="class 'c2' does not occur in blobs"):
        evaluate_once(blobs(), blobs(classes=3), ProbeSettings())


def test_f1_is_over_the_classes_that_occur() -> None:
    """A class that a fold of whole groups does not have, and that is not predicted, is no failure of the probe."""
    train = blobs(classes=3, distance=8.0)
    test = blobs(classes=3, distance=8.0, seed=5)
    two = test.take(np.flatnonzero(test.y != "c2"))
    result = evaluate_once(train, two, ProbeSettings(values=(1.0,)))
    assert result.metrics["accuracy"] == 1.0
    assert result.metrics["f1_macro"] == 1.0


def test_strengths_and_test_rows_are_finite() -> None:
    for value in (float("nan"), float("inf"), 0.0):
        with pytest.raises(UserError, match="must be one or more numbers above 0"):
            ProbeSettings(values=(1.0, value))
    train, test = blobs(), blobs(seed=1)
    test.x[3, 0] = np.nan
    with pytest.raises(UserError, match="the embedding of row 4 is not finite"):
        evaluate_once(train, test, ProbeSettings())


def test_embeddings_of_two_models_are_not_mixed() -> None:
    train, test = blobs(), blobs(seed=1)
    known = {"revision": "aaaa", "pooling": "mean", "strand": "both", "window": "5"}
    for name, value in (("revision", "bbbb"), ("pooling", "max"), ("strand", "forward")):
        one, other = replace(train, metadata=known), replace(test, metadata=known | {name: value})
        with pytest.raises(UserError, match=f"was embedded with {name} {value}, .* with {known[name]}"):
            evaluate_once(one, other, ProbeSettings())
    other = replace(test, metadata=known | {"window": "6"})
    assert evaluate_once(replace(train, metadata=known), other, ProbeSettings()).test == len(test.y)
