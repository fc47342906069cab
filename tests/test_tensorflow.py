"""The tf.data reader, with the real TensorFlow."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pytest

import datagen
from datagen import Store
from datagen.errors import DatagenError


@pytest.fixture(autouse=True)
def _their_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow 2.20 still imports what numpy 2 deprecates
        yield


def test_batches_hold_the_samples_in_order(small_store: Store) -> None:
    dataset = datagen.tf_dataset(str(small_store.path), "train", 100)
    assert len(dataset) == 6
    batches = [[tensor.numpy() for tensor in batch] for batch in dataset]
    assert [batch[0].shape for batch in batches] == [(100, 32, 32)] * 6
    assert batches[0][0].dtype == np.complex64
    for position, name in enumerate("XYZ"):
        np.testing.assert_array_equal(
            np.concatenate([batch[position] for batch in batches]), getattr(small_store["train"], name)[:]
        )


def test_real_channels_last_and_remainder(small_store: Store) -> None:
    dataset = datagen.tf_dataset(small_store, "train", 250, arrays=("Z", "Y"), real=True, drop_remainder=True)
    assert dataset.element_spec[0].shape == (250, 32, 32, 2)
    batches = [tuple(tensor.numpy() for tensor in batch) for batch in dataset]
    assert len(batches) == len(dataset) == 2
    z = np.concatenate([batch[0] for batch in batches])
    assert z.dtype == np.float32
    np.testing.assert_array_equal(z[..., 0] + 1j * z[..., 1], small_store["train"].Z[:500])


def test_shuffling_keeps_triples_together_and_differs_by_epoch(small_store: Store) -> None:
    dataset = datagen.tf_dataset(small_store, "train", 64, shuffle_seed=1)
    x, y = np.asarray(small_store["train"].X[:]), np.asarray(small_store["train"].Y[:])
    home = {sample.tobytes(): index for index, sample in enumerate(x)}
    orders = []
    for _ in range(2):
        order = []
        for batch_x, batch_y, _ in dataset:
            for one, other in zip(batch_x.numpy(), batch_y.numpy(), strict=True):
                order.append(home[one.tobytes()])
                np.testing.assert_array_equal(other, y[order[-1]])
        assert sorted(order) == list(range(600))
        orders.append(order)
    assert orders[0] != orders[1] != list(range(600))


def test_keras_trains_on_it(small_store: Store) -> None:
    import keras

    model = keras.Sequential([keras.layers.Conv2D(2, 3, padding="same")])
    model.compile("adam", "mse")
    history = model.fit(
        datagen.tf_dataset(small_store, "train", 100, arrays=("X", "Z"), real=True, shuffle_seed=0), epochs=3, verbose=0
    )
    assert history.history["loss"][-1] < history.history["loss"][0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"split": "test"}, "has no split 'test'; it has train, val"),
        ({"batch_size": 0}, "give 1 or more"),
        ({"arrays": ("X", "W")}, "has no array 'W'; it has X, Y, Z"),
        ({"store": "absent.zarr"}, "is not a datagen store"),
    ],
)
def test_bad_arguments(small_store: Store, arguments: dict[str, object], words: str) -> None:
    with pytest.raises(DatagenError, match=words):
        datagen.tf_dataset(**{"store": small_store, "split": "train", "batch_size": 4, **arguments})  # type: ignore[arg-type]
