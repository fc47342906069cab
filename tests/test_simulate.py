"""Samples without a store: the same as in one, in any order and batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pytest
import torch

import datagen
from datagen import CDLRecipe, Store
from datagen.errors import DatagenError
from datagen.scenarios import Batch
from tests.conftest import small_recipe


def joined(batches: Iterable[Batch]) -> list[np.ndarray]:
    return [torch.cat(parts).numpy() for parts in zip(*(batch.values() for batch in batches), strict=True)]


def test_samples_are_those_of_the_store(small_store: Store, recipe: CDLRecipe) -> None:
    for split, size in recipe.splits.items():
        for name, array in zip("XYZ", joined(datagen.sample(recipe, range(size), split)), strict=True):
            np.testing.assert_array_equal(array, getattr(small_store[split], name)[:])


def test_order_batches_and_neighbours_do_not_matter(recipe: CDLRecipe) -> None:
    order = np.random.default_rng(0).permutation(600)
    shuffled = joined(datagen.sample(recipe, order, batch_size=77))
    for ordered, other in zip(joined(datagen.sample(recipe, range(600))), shuffled, strict=True):
        np.testing.assert_array_equal(ordered[order], other)
    single = next(datagen.sample(recipe, [599]))
    np.testing.assert_array_equal(single["Z"][0], shuffled[2][order == 599][0])


def test_batches_have_the_size_asked_for(recipe: CDLRecipe) -> None:
    assert [len(batch["X"]) for batch in datagen.sample(recipe, range(700), batch_size=300)] == [300, 300, 100]
    assert list(datagen.sample(recipe, [])) == []


def test_splits_and_seeds_hold_other_samples(recipe: CDLRecipe) -> None:
    one = next(datagen.sample(recipe, range(4)))["X"]
    assert not torch.equal(one, next(datagen.sample(recipe, range(4), "val"))["X"])
    assert not torch.equal(one, next(datagen.sample(small_recipe(seed=8), range(4)))["X"])


def test_stream_is_endless_fresh_and_seeded(recipe: CDLRecipe) -> None:
    first, second = itertools.islice(datagen.stream(recipe, 10, seed=3), 2)
    assert first["X"].shape == (10, 32, 32)
    assert first["X"].dtype == torch.complex64
    assert not torch.equal(first["X"], second["X"])
    assert torch.equal(first["Y"], next(datagen.stream(recipe, 10, seed=3))["Y"])
    assert not torch.equal(next(datagen.stream(recipe, 10))["Y"], next(datagen.stream(recipe, 10))["Y"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "validation"}, "unknown split 'validation'; allowed: train, val, test"),
        ({"indices": [-1]}, "0 and up"),
        ({"indices": [[1]]}, "list of sample numbers"),
        ({"indices": [0.9]}, "list of sample numbers"),
        ({"indices": range(5, -5, -1)}, "0 and up"),
        ({"batch_size": 0}, "give 1 or more"),
        ({"engine": "raytracer"}, "allowed: closed-form, sionna"),
        ({"device": "tpu"}, "unknown device 'tpu'; allowed: cpu, cuda"),
        ({"device": "cuda:77"}, "use --device cpu"),
    ],
)
def test_bad_arguments(recipe: CDLRecipe, options: dict[str, object], words: str) -> None:
    with pytest.raises(DatagenError, match=words):
        datagen.sample(recipe, **{"indices": [0], **options})  # type: ignore[arg-type]


def test_bad_stream_arguments(recipe: CDLRecipe) -> None:
    with pytest.raises(DatagenError, match="give 1 or more"):
        datagen.stream(recipe, 0)
    with pytest.raises(DatagenError, match="unknown device"):
        datagen.stream(recipe, device="quantum")
    with pytest.raises(DatagenError, match="seed -1 is not allowed"):
        datagen.stream(recipe, seed=-1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_holds_the_same_samples(recipe: CDLRecipe) -> None:
    for ours, theirs in zip(
        joined(datagen.sample(recipe, range(300))),
        next(datagen.sample(recipe, range(300), batch_size=300, device="cuda")).values(),
        strict=True,
    ):
        assert np.linalg.norm(theirs.cpu().numpy() - ours) < 1e-5 * np.linalg.norm(ours)
    assert next(datagen.stream(recipe, 10, device="cuda"))["X"].is_cuda
