"""``tf.data`` over a store, for Keras users. Needs the extra ``[tensorflow]``; nothing else in datagen does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from datagen.errors import DatagenError
from datagen.plan import CHUNK
from datagen.store import Store, open_store

if TYPE_CHECKING:
    import tensorflow as tf


def tf_dataset(
    store: Store | str,
    split: str,
    batch_size: int,
    *,
    arrays: tuple[str, ...] | None = None,
    real: bool = False,
    shuffle_seed: int | None = None,
    drop_remainder: bool = False,
) -> tf.data.Dataset:
    """A ``tf.data.Dataset`` of batches, read chunk by chunk: memory stays bounded whatever the store's size.

    :param store: an opened store, or its path or URL
    :param split: ``train``, ``val`` or ``test``
    :param batch_size: samples in a batch
    :param arrays: which arrays, in this order; by default those that the store holds, with ``Z`` for the target
    :param real: float32 with a last axis (re, im), as convolution layers want, in place of complex64
    :param shuffle_seed: None keeps the order; a number shuffles the chunks and the samples of 16 chunks at a time, another
        way in every epoch
    :param drop_remainder: leave out a last batch that is not full
    :returns: data set of tuples, one tensor an array
    :raises DatagenError: TensorFlow is not installed, or the split or an array is not there
    """
    try:
        import tensorflow as tf
    except ImportError:
        raise DatagenError("TensorFlow is not installed; pip install 'csi-feedback-zoo[tensorflow]'") from None

    store = store if isinstance(store, Store) else open_store(store)
    if split not in set(store):
        raise DatagenError(f"{store.path} has no split {split!r}; it has {', '.join(store)}")
    if batch_size < 1:
        raise DatagenError(f"batch_size {batch_size} is not allowed; give 1 or more")
    shapes = store.recipe.shapes(split)
    names = arrays or tuple(shapes)
    for name in names:
        if name not in (*shapes, "Z" if "X" in shapes else ""):
            raise DatagenError(f"{store.path} has no array {name!r}; it has {', '.join(shapes)}")
    sources = [store[split][name] for name in names]
    size = len(store[split])
    starts = tf.data.Dataset.from_tensor_slices(np.arange(0, size, CHUNK))
    if shuffle_seed is not None:
        starts = starts.shuffle(-(-size // CHUNK), seed=shuffle_seed)

    def read(start: Any) -> list[np.ndarray]:
        chunk = [np.asarray(source[int(start) : int(start) + CHUNK]) for source in sources]
        return [np.stack([array.real, array.imag], -1) for array in chunk] if real else chunk

    dtype = tf.float32 if real else tf.complex64
    elements = [(None, *source.shape[1:], *((2,) if real else ())) for source in sources]

    def load(start: Any) -> tuple[Any, ...]:
        tensors = tf.numpy_function(read, [start], [dtype] * len(names))
        return tuple(tf.ensure_shape(*pair) for pair in zip(tensors, elements, strict=True))

    samples = starts.map(load, num_parallel_calls=2).unbatch()
    if shuffle_seed is not None:
        samples = samples.shuffle(16 * CHUNK, seed=shuffle_seed)
    batches = samples.batch(batch_size, drop_remainder=drop_remainder)
    count = size // batch_size if drop_remainder else -(-size // batch_size)
    return batches.apply(tf.data.experimental.assert_cardinality(count)).prefetch(tf.data.AUTOTUNE)
