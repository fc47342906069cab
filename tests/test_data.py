"""What zoo reads: stores of every kind of damage, training batches, noise on the side information."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from datagen import Store
from zoo import ZooError, data


@pytest.fixture
def source(small_store: Store) -> data.Cached:
    return data.Cached(data.Store(small_store.path), "cpu", None, seed=0)


@pytest.fixture
def copy(small_store: Store, tmp_path: Path) -> Path:
    """A store that may be damaged."""
    return Path(shutil.copytree(small_store.path, tmp_path / "s.zarr"))


def with_attributes(**changes: object) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        file = path / "zarr.json"
        metadata = json.loads(file.read_text())
        metadata["attributes"].update(changes)
        file.write_text(json.dumps(metadata))

    return damage


def with_nan(path: Path) -> None:
    zarr.open_array(path / "train/Y", mode="r+")[300, 1, 2] = complex(np.nan, 0)


def cut_short(path: Path) -> None:
    os.truncate(path / "train/X/c/1/0/0", 1000)


def empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def test_a_store_is_read_as_datagen_wrote_it(small_store: Store) -> None:
    store = data.Store(small_store.path)
    assert store.sizes == {"train": 600, "val": 40}
    facts = (
        store.dataset.name,
        store.dataset.scenario,
        store.dataset.shape,
        store.dataset.side_information,
        store.dataset.subcarriers,
    )
    assert facts == ("cdl-c-fdd-v1", "cdl", (32, 32), True, 667)
    batch = store.read("train", 250, 300)
    assert batch.y is not None
    for array, name in zip(batch, "XYZ", strict=True):
        assert array is not None
        assert (array.numpy() == getattr(small_store["train"], name)[250:300]).all()
    pieces = list(store.batches("train", size=256))
    assert [len(piece.x) for piece in pieces] == [256, 256, 88]
    assert torch.equal(torch.cat([piece.z for piece in pieces]), store.read("train").z)


def test_a_store_whose_target_is_x(copy: Path) -> None:
    for split in ("train", "val"):
        for name in "YZ":
            shutil.rmtree(copy / split / name)
    for file in (copy / "zarr.json", *copy.glob("*/zarr.json")):
        metadata = json.loads(file.read_text())
        del metadata["consolidated_metadata"]
        file.write_text(json.dumps(metadata))
    with_attributes(target="X")(copy)
    store = data.Store(copy)
    assert not store.dataset.side_information
    x, y, z = store.read("val")
    assert y is None
    assert z is x


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (with_attributes(format="other"), "no fdd-csi store"),
        (with_attributes(format_version=2), "format version 2; this zoo reads version 1"),
        (with_attributes(complete=False), "is not complete"),
        (with_attributes(recipe=None), "has no recipe"),
        (with_nan, "train/Y holds values that are missing or not finite; see datagen verify"),
        (cut_short, "train/X cannot be read"),
        (empty, "is not a CSI store"),
    ],
    ids=["format", "version", "incomplete", "recipe", "nan", "damaged", "empty"],
)
def test_damaged_stores(copy: Path, damage: Callable[[Path], None], words: str) -> None:
    damage(copy)
    with pytest.raises(ZooError) as raised:
        data.Cached(data.Store(copy), "cpu", None, seed=0)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_more_than_a_store_has(small_store: Store) -> None:
    store = data.Store(small_store.path)
    with pytest.raises(ZooError, match="has no split 'test'; it has train, val"):
        store.read("test")
    with pytest.raises(ZooError, match="has 600 samples in train; 601 are asked for"):
        store.read("train", 0, 601)
    with pytest.raises(ZooError, match="does not say what law"):
        data.Cached(store, "cpu", 10, seed=0).statistics()


def test_simulated_batches_are_a_function_of_the_step() -> None:
    source = data.Simulated(None, "cpu")
    whole, late = source.batches(0, 10), source.batches(3, 10)
    batches = [next(whole) for _ in range(4)]
    again = next(late)
    assert torch.equal(batches[3].x, again.x)
    assert not torch.equal(batches[0].x, batches[1].x)
    whole.close()  # type: ignore[attr-defined]
    late.close()  # type: ignore[attr-defined]


def test_streamed_batches_are_fresh_and_of_the_size_asked_for() -> None:
    source = data.Streamed({"scenario": "cost2100", "environment": "indoor"}, "cpu", seed=3)
    whole, again, late = source.batches(0, 1000), source.batches(0, 1000), source.batches(2, 1000)
    batches = [next(whole) for _ in range(3)]
    assert [len(batch.x) for batch in batches] == [1000] * 3
    assert torch.equal(batches[0].x, next(again).x)
    assert not torch.equal(batches[0].x, batches[1].x)
    assert not torch.equal(batches[2].x, next(late).x)  # a resumed run goes on with others
    assert batches[0].y is None
    assert batches[0].z is batches[0].x
    assert source.record()["train_samples"] == "simulated on the device, each used once"


def test_cached_batches_visit_every_sample_each_epoch(source: data.Cached) -> None:
    batches = source.batches(0, 100)
    epochs = [torch.cat([next(batches).x for _ in range(6)]) for _ in range(2)]
    first, second = (set(epoch.flatten(1).abs().sum(1).tolist()) for epoch in epochs)
    assert len(first) == 600
    assert first == second
    assert not torch.equal(*epochs)
    assert torch.equal(next(source.batches(7, 100)).x, epochs[1][100:200])


def test_each_batch_has_what_was_noted_of_its_own_rows(source: data.Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.data.READ", 256)  # 600 samples in three pieces
    asked: list[tuple[int, int]] = []

    def note(x: torch.Tensor, start: int) -> dict[str, torch.Tensor]:
        asked.append((start, len(x)))
        return {"number": start + torch.arange(len(x)), "energy": x.abs().square().sum((1, 2))}

    assert source.notes(0, 100) == {}
    source.observe(note)
    assert asked == [(0, 256), (256, 256), (512, 88)]
    for step, batch in zip(range(4, 8), source.batches(4, 100), strict=False):  # into the second epoch
        notes = source.notes(step, 100)
        assert torch.equal(notes["energy"], batch.x.abs().square().sum((1, 2)))
        assert torch.equal(batch.x, source.pick(notes["number"]).x)
    source.observe(lambda x, start: {})
    assert source.notes(0, 100) == {}


INDOOR = {"scenario": "cost2100", "environment": "indoor"}


@pytest.mark.parametrize("recipe", [None, INDOOR], ids=["cdl", "cost2100"])
def test_kept_samples_are_the_simulated_ones(recipe: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.data.READ", 16)
    kept, fresh = data.Kept(recipe, "cpu", 40, seed=3), data.Simulated(recipe, "cpu")
    held, simulated = kept.pick(slice(0, 40)), next(fresh._sample(range(40), "train", 40))
    assert (held.y is None) == (simulated.y is None) == (recipe is INDOOR)
    assert (held.z is held.x) == (simulated.z is simulated.x) == (recipe is INDOOR)
    for mine, its in zip(held[:3], simulated[:3], strict=True):
        if mine is not None and its is not None:
            error = (mine - its).abs().square().sum((1, 2)) / its.abs().square().sum((1, 2))
            assert error.max().sqrt() < 1e-3
    assert [len(piece.x) for piece in kept.once(30)] == [16, 14]
    assert torch.equal(torch.cat([piece.x for piece in kept.once(100)]), held.x)
    assert kept.record() == {**fresh.record(), "train_samples": 40}
    assert torch.equal(kept.validation(4).x, fresh.validation(4).x)  # which no training sees


def test_kept_batches_are_a_function_of_seed_and_step() -> None:
    first, again, other = (data.Kept(None, "cpu", 40, seed) for seed in (3, 3, 4))
    batches = first.batches(0, 8)
    epochs = [[next(batches).x for _ in range(5)] for _ in range(2)]
    whole = [torch.cat(epoch) for epoch in epochs]
    seen = [set(x.abs().square().sum((1, 2)).tolist()) for x in (*whole, first.pick(slice(0, 40)).x)]
    assert len(seen[0]) == 40
    assert seen[0] == seen[1] == seen[2]  # each of the samples once an epoch
    assert not torch.equal(*whole)  # each epoch in an order of its own
    late = again.batches(7, 8)  # of a run that is resumed
    assert torch.equal(next(late).x, epochs[1][2])
    assert torch.equal(next(late).x, epochs[1][3])
    assert not torch.equal(next(other.batches(0, 8)).x, epochs[0][0])
    with pytest.raises(ZooError, match="a batch of 41 does not fit 40 training samples"):
        first.batches(0, 41)


def test_half_precision_is_of_each_sample_s_own_range() -> None:
    x = torch.randn(6, 4, 5, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    x = x * torch.tensor([1e-12, 1e-3, 1.0, 1e3, 1e12, 0.0])[:, None, None]
    halved = data.Halved(6, (4, 5))
    halved.put(slice(0, 4), x[:4])
    halved.put(slice(4, 6), x[4:])
    assert halved.pairs.nbytes == 6 * 4 * 5 * 4
    largest = torch.view_as_real(x).abs().flatten(1).amax(1)
    error = torch.view_as_real(halved[slice(0, 6)] - x).abs().flatten(1).amax(1)
    assert (error <= largest / 2**11).all()
    rows = torch.tensor([5, 0, 3])
    assert torch.equal(halved[rows], halved[slice(0, 6)][rows])


@pytest.mark.parametrize(
    ("recipe", "label"),
    [
        (INDOOR, "cost2100indoor"),
        ({"scenario": "cost2100", "environment": "outdoor"}, "cost2100"),
        ({"scenario": "cost2100"}, "cost2100"),
        ({"scenario": "cdl", "environment": "indoor"}, "cdl"),
        ({"scenario": "inh"}, "inh"),
    ],
)
def test_the_data_set_s_part_of_a_name(recipe: dict[str, Any], label: str) -> None:
    assert data.scenario_label(recipe) == label


def test_stores_and_simulations_of_the_indoor_hall_have_one_label(copy: Path) -> None:
    assert data.Simulated(INDOOR, "cpu").dataset.scenario == "cost2100indoor"
    recipe = data.Store(copy).recipe | INDOOR
    with_attributes(recipe=recipe)(copy)
    assert data.Store(copy).dataset.scenario == "cost2100indoor"


def test_noise_on_the_side_information_has_the_stated_power() -> None:
    y = torch.randn(64, 32, 32, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    received = data.noisy(y, 20.0, torch.Generator().manual_seed(0))
    ratio = float((received - y).abs().square().sum() / y.abs().square().sum())
    assert ratio == pytest.approx(0.01, rel=0.02)
    assert data.noisy(y, None, torch.Generator()) is y


def test_only_simulating_imports_datagen(small_store: Store) -> None:
    script = (
        "import sys, zoo.train, zoo.evaluate, zoo.plot, zoo.bench, zoo.registry, zoo.limits, zoo.data, zoo.config\n"
        "for a in zoo.registry.ARCHITECTURES: zoo.registry.architecture(a)\n"
        f"zoo.data.Store({str(small_store.path)!r}).read('train', 0, 3)\n"
        "assert not [m for m in sys.modules if m.split('.')[0] in ('datagen', 'sionna', 'dask')]\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
