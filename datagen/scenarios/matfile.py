"""Samples read from MATLAB files in the form of the CsiNet data sets, in place of simulated ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from datagen.errors import DatagenError
from datagen.matlab import Matrix
from datagen.recipe import MatfileRecipe, Recipe
from datagen.recipe.matfile import ANGLES, DELAYS, FREQUENCIES, SUBCARRIERS
from datagen.scenarios import Batch


def centre(rows: NDArray[np.float64]) -> NDArray[np.complex64]:
    """Rows of ``HT`` [n, 2 x 32 x 32] as samples: re - 0.5 + j (im - 0.5), rounded once, complex64 [n, angle, delay]."""
    planes = (rows - 0.5).reshape(-1, 2, ANGLES, DELAYS)
    out = np.empty((len(rows), ANGLES, DELAYS), np.complex64)
    out.real, out.imag = planes[:, 0], planes[:, 1]
    return out


def response(rows: NDArray[np.complex128]) -> NDArray[np.complex64]:
    """Rows of ``HF_all`` [n, 32 x 125] as responses of the antennas, complex64 [n, antenna, subcarrier].

    The files' angles are a forward DFT of the antennas with the zero angle in the middle; this undoes both.
    """
    angles = rows.reshape(-1, ANGLES, SUBCARRIERS)
    return np.fft.ifft(np.fft.ifftshift(angles, axes=1), axis=1).astype(np.complex64)


def band(samples: NDArray[np.complex64]) -> NDArray[np.complex128]:
    """What CsiNet's test compares with ``HF_all``: the delays of samples [n, angle, delay] padded with zeros and transformed.

    :returns: the first frequencies, still over angles, complex128 [n, 32, 125]
    """
    return np.fft.fft(samples.astype(np.complex128), FREQUENCIES, axis=2)[..., :SUBCARRIERS]


class Rows(NamedTuple):
    """What a block of samples is made from: rows of the files, each once, and which of them is each sample's."""

    samples: NDArray[np.float64]
    full: NDArray[np.complex128] | None
    order: NDArray[np.int64]


class Matlab:
    """Engine of imported data sets: a draw is a look into the files.

    :param recipe: what was imported
    :param device: of the results
    :param inputs: where the matrix of each of the recipe's sources lies
    """

    def __init__(self, recipe: Recipe, device: torch.device, inputs: Mapping[str, Matrix]) -> None:
        if not isinstance(recipe, MatfileRecipe):
            raise DatagenError(f"the engine matlab imports files; {recipe.label} is simulated")
        self.recipe, self.device, self._inputs = recipe, device, inputs

    def draw(self, split: str, indices: Sequence[int] | NDArray[np.int64]) -> Rows:
        """The files' rows of some samples, each read once.

        :raises DatagenError: the split has fewer samples
        """
        wanted, order = np.unique(np.asarray(indices, np.int64), return_inverse=True)
        size = self.recipe.splits.get(split, 0)
        if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < size:
            raise DatagenError(f"{self.recipe.label} has {size} samples in {split}; sample {wanted[-1]} is asked for")
        runs = np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1)

        def read(part: str) -> NDArray[Any]:
            return np.concatenate([self._inputs[part].read(int(run[0]), int(run[-1]) + 1) for run in runs])

        return Rows(read(split), read("full") if "H" in self.recipe.shapes(split) else None, order)

    def draw_on_device(self, n: int, generator: torch.Generator) -> NoReturn:
        """:raises DatagenError: always; there is no law to draw from"""
        raise DatagenError(f"{self.recipe.label} was imported from files and has no endless stream; read its store")

    def __call__(self, draws: Rows) -> Batch:
        arrays = {"X": centre(draws.samples)}
        if draws.full is not None:
            arrays["H"] = response(draws.full)
        return {name: torch.from_numpy(array[draws.order]).to(self.device) for name, array in arrays.items()}
