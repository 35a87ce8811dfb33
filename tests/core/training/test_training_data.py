"""Order and content of training data as pure functions of seed, epoch and index."""

from __future__ import annotations

import numpy as np
import pytest
from toy_training import ToyData, ToyDataset

from longscan.core.errors import UserError
from longscan.core.training.data import ResumableSampler, SampleKey, TrainPosition, sample_generator


def test_sample_generator_depends_on_seed_epoch_and_index_alone() -> None:
    def draw(seed: int, epoch: int, index: int) -> list[int]:
        return sample_generator(seed, SampleKey(epoch, index)).integers(0, 2**31, 4).tolist()

    assert draw(1, 2, 3) == draw(1, 2, 3)
    different = {tuple(draw(seed, epoch, index)) for seed in (0, 1, -1) for epoch in (0, 1) for index in (0, 1)}
    assert len(different) == 12
    # Swapping epoch and index, or moving on by one draw, must not meet another sample's stream.
    assert draw(1, 2, 3) != draw(1, 3, 2)
    longer = sample_generator(1, SampleKey(0, 0)).integers(0, 2**31, 4000)
    assert not set(longer.tolist()[100:]) >= set(draw(1, 0, 1))


def test_sampler_shuffles_by_epoch_and_starts_anywhere() -> None:
    sampler = ResumableSampler(13, seed=4)
    first = list(sampler)
    assert sorted(key.index for key in first) == list(range(13))
    assert {key.epoch for key in first} == {0}
    sampler.set_position(1)
    second = list(sampler)
    assert [key.index for key in second] != [key.index for key in first]
    sampler.set_position(1, 9)
    assert list(sampler) == second[9:]
    assert len(sampler) == 13
    assert [key.index for key in ResumableSampler(4, shuffle=False)] == [0, 1, 2, 3]


@pytest.mark.parametrize("length", [1, 7, 8, 9])
def test_processes_share_an_epoch(length: int) -> None:
    shares = [ResumableSampler(length, seed=1, rank=rank, world_size=4) for rank in range(4)]
    orders = [share.order(2) for share in shares]
    assert {len(order) for order in orders} == {-(-length // 4)}
    kept = [
        int(index)
        for share, order in zip(shares, orders, strict=True)
        for position, index in enumerate(order)
        if not share.is_padding(position)
    ]
    assert sorted(kept) == list(range(length))


@pytest.mark.parametrize("workers", [0, 2])
def test_training_goes_on_at_the_restored_place(workers: int) -> None:
    def data() -> ToyData:
        module = ToyData(samples=11, batch_size=4, num_workers=workers, seed=3)
        module.setup()
        return module

    whole = data()
    loader = whole.train_dataloader()
    epochs = [[batch["input_ids"].tolist() for batch in loader] for _ in range(3)]
    assert [len(batch) for batch in epochs[0]] == [4, 4, 3]
    assert len({str(epoch) for epoch in epochs}) == 3

    part = data()
    part.load_state_dict(part.state_dict() | {"epoch": 1, "batch": 2})
    loader = part.train_dataloader()
    assert len(loader) == 3
    assert [batch["input_ids"].tolist() for batch in loader] == epochs[1][2:]
    assert [batch["input_ids"].tolist() for batch in loader] == epochs[2]


def test_prefetched_batches_do_not_count() -> None:
    module = ToyData(samples=40, batch_size=2, num_workers=2)
    module.setup()
    batches = iter(module.train_dataloader())
    assert module._train_position == TrainPosition(0, 0, begun=False)  # iter() alone starts nothing
    next(batches)
    next(batches)
    assert module.state_dict()["batch"] == 2


def test_evaluation_goes_in_order_and_never_changes() -> None:
    module = ToyData(batch_size=7, seed=2)
    module.setup()
    (loader,) = module.val_dataloader()
    dataset = ToyDataset(5, 3)
    expected = [dataset[SampleKey(0, index)][1:].tolist() for index in range(5)]
    for _ in range(2):
        assert [row for batch in loader for row in batch["input_ids"].tolist()] == expected
    assert module.val_names == ["val"]
    module.test_set = {"short": dataset, "long": ToyDataset(3, 1)}
    assert module.test_names == ["short", "long"]
    assert [len(loader) for loader in module.test_dataloader()] == [1, 1]


def test_evaluation_marks_the_samples_added_for_several_processes() -> None:
    module = ToyData(batch_size=2)
    rows = []
    for rank in range(2):
        dataset = ToyDataset(5, 0)
        sampler = ResumableSampler(5, shuffle=False, rank=rank, world_size=2)
        from longscan.core.training.data import EvaluationLoader

        loader = EvaluationLoader(module._loader(dataset, sampler, 2, persistent=False), sampler)
        batches = list(loader)
        assert [len(batch["padding"]) for batch in batches] == [2, 1]
        rows += [row for batch in batches for row in batch["input_ids"][~batch["padding"]].tolist()]
    assert len(rows) == 5
    assert len({str(row) for row in rows}) == 5


def test_a_changed_batch_size_is_refused_in_mid_epoch_only() -> None:
    module = ToyData(samples=11, batch_size=4)
    module.setup()
    saved = module.state_dict() | {"batch": 1}
    other = ToyData(samples=11, batch_size=8)
    other.setup()
    other.load_state_dict(saved)
    with pytest.raises(UserError, match="mid-epoch with batch_size 4, but this run has 8"):
        next(iter(other.train_dataloader()))
    other.load_state_dict(saved | {"epoch": 1, "batch": 0})
    assert len(next(iter(other.train_dataloader()))["input_ids"]) == 8


def test_stages_change_length_and_batch_size_of_training_alone() -> None:
    module = ToyData(samples=12, batch_size=3)
    module.setup()
    module.set_stage(seqlen=2, batch_size=6)
    assert next(iter(module.train_dataloader()))["input_ids"].shape == (6, 2)
    assert next(iter(module.val_dataloader()[0]))["input_ids"].shape == (3, 6)
    assert module.state_dict()["stage"] == [2, 6]
    module.train_set = np.zeros(3)
    with pytest.raises(UserError, match="set_seqlen"):
        module.set_stage(4, 4)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"num_workers": -1}])
def test_impossible_options(options: dict[str, int]) -> None:
    with pytest.raises(UserError, match="at least"):
        ToyData(**options)
    empty = ToyData(samples=0)
    empty.setup()
    with pytest.raises(UserError, match="holds no sample"):
        empty.train_dataloader()
