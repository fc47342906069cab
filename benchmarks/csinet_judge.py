"""Published CsiNets, trained on the official COST 2100 files, run over our sets: the nearer their NMSE to the published, the nearer the set.

The networks are not part of this repository. Get ``saved_model/model_CsiNet_*.h5`` from the authors' public code of C.-K. Wen, W.-T. Shih,
S. Jin, "Deep Learning for Massive MIMO CSI Feedback", IEEE Wireless Communications Letters, 2018, and say where they are:

python benchmarks/csinet_judge.py saved_model --readme README.md
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor
from torch.nn import functional

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import datagen
from benchmarks.cost2100 import variants
from benchmarks.tables import arguments, publish

PUBLISHED = {  # NMSE [dB] by codeword length (Table I)
    "outdoor": {128: -4.51, 64: -2.81, 32: -1.93},
    "indoor": {128: -8.65, 64: -6.24, 32: -5.84},
}


class CsiNet:
    """A published CsiNet (section III), read from its Keras file: channels first, batch normalisation over the last axis.

    :param path: HDF5 file of weights
    """

    def __init__(self, path: Path) -> None:
        def texts(item: Any, name: str) -> list[str]:
            return [text.decode() if isinstance(text, bytes) else text for text in item.attrs[name]]

        with h5py.File(path) as file:
            weights = file.get("model_weights", file)
            order = texts(weights, "layer_names")
            layers = {
                layer: [
                    torch.from_numpy(np.asarray(weights[layer][part], np.float32))
                    for part in texts(weights[layer], "weight_names")
                ]
                for layer in order
            }
        self.convolutions = [layers[n] for n in order if n.startswith("conv")]
        self.norms = [layers[n] for n in order if n.startswith("batch")]
        self.dense = [layers[n] for n in order if n.startswith("dense")]

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Encode and decode, [n, 2, angle, delay] in 0 ... 1."""
        convolve, normalise = iter(self.convolutions), iter(self.norms)

        def conv(y: Tensor) -> Tensor:
            kernel, bias = next(convolve)
            return functional.conv2d(y, kernel.permute(3, 2, 0, 1), bias, padding=1)

        def norm(y: Tensor) -> Tensor:
            gain, shift, mean, variance = next(normalise)
            return (y - mean) / torch.sqrt(variance + 1e-3) * gain + shift

        y = functional.leaky_relu(norm(conv(x)), 0.3).flatten(1)
        for kernel, bias in self.dense:
            y = y @ kernel + bias
        y = y.view(x.shape)
        for _ in range(2):  # RefineNet
            skip = y
            y = functional.leaky_relu(norm(conv(y)), 0.3)
            y = functional.leaky_relu(norm(conv(y)), 0.3)
            y = functional.leaky_relu(norm(conv(y)) + skip, 0.3)
        return torch.sigmoid(conv(y))


def official(networks: list[CsiNet]) -> dict[str, Any]:
    """What networks know of the power of the official training set, from the moving variance in front of their first activation.

    The first layer is linear, and its normalisation is by delay: what the variance at delay d exceeds that of an empty channel by is the
    power of d and its neighbours through the squared kernel (cells taken as uncorrelated). Least squares with powers not negative.

    :returns: mean energy of a sample, its profile over delay with mean and RMS [taps], and the relative residual
    """
    rows, excesses = [], []
    for network in networks:
        kernel, bias = network.convolutions[0]  # [3 (angle), 3 (delay), re/im, channel]
        variance = network.norms[0][3].double().numpy()
        image = torch.full((1, 2, 32, 32), 0.5)
        empty = functional.conv2d(image, kernel.permute(3, 2, 0, 1), bias, padding=1)
        excess = variance - empty.double().var((0, 1, 2), unbiased=False).numpy()
        squared = kernel.double().square().sum((0, 2)).mean(1).numpy()
        through = sum(squared[j] * np.eye(32, k=j - 1) for j in range(3))
        rows.append(through / np.linalg.norm(excess))
        excesses.append(excess / np.linalg.norm(excess))
    power, residual = nnls(np.concatenate(rows), np.concatenate(excesses))  # of a real or imaginary part at each delay
    profile = power / power.sum()
    taps = np.arange(32)
    mean = float(profile @ taps)
    return {
        "mean_energy": float(power.sum() * 64), "mean_delay_taps": mean, "rms_delay_taps": float(np.sqrt(profile @ (taps - mean) ** 2)),
        "delay_profile": profile.tolist(), "residual": float(residual / np.sqrt(len(networks))),
    }  # fmt: skip


def nmse_db(network: CsiNet, x: NDArray[np.complex64]) -> float:
    """NMSE [dB] of a network on samples of peak 0.5, complex64 [n, angle, delay]."""
    image = torch.from_numpy(np.stack([x.real, x.imag], 1)) + 0.5
    error = (network(image) - image).square().sum((1, 2, 3)) / (image - 0.5).square().sum((1, 2, 3))
    return 10 * float(torch.log10(error.mean()))


def measure(networks: Path, samples: int) -> dict[str, Any]:
    """NMSE of every network on every variant of :func:`benchmarks.cost2100.variants`, beside the published."""
    results: dict[str, Any] = {"samples": samples, "environments": {}}
    for environment, published in PUBLISHED.items():
        loaded = {size: CsiNet(networks / f"model_CsiNet_{environment}_dim{size}.h5") for size in published}
        found = {}
        for name, recipe in variants(environment).items():
            x = torch.cat([batch["X"] for batch in datagen.sample(recipe, range(samples), "test")]).numpy()
            found[name] = {str(size): nmse_db(network, x) for size, network in loaded.items()}
        results["environments"][environment] = {
            "nmse_db": found, "published_nmse_db": {str(size): value for size, value in published.items()},
            "official": official(list(loaded.values())),
        }  # fmt: skip
    return results


def markdown(results: dict[str, Any]) -> str:
    """The table of the README."""
    lines = []
    for environment, found in results["environments"].items():
        lines += [
            f"| CsiNet, {environment}, NMSE [dB] | {' | '.join(found['nmse_db'])} | official set, published |",
            "|---" + "|---:" * (len(found["nmse_db"]) + 1) + "|",
        ]
        for size, published in found["published_nmse_db"].items():
            values = " | ".join(f"{row[size]:.2f}" for row in found["nmse_db"].values())
            lines.append(f"| codeword of {size} | {values} | {published:.2f} |")
        lines.append("")
    return "\n".join([*lines, f"{results['samples']} samples each.", ""])


def main() -> None:
    parser = arguments(__file__, __doc__)
    parser.add_argument("networks", type=Path, help="directory of the saved models")
    parser.add_argument("--samples", type=int, default=4096)
    given = parser.parse_args()
    results = measure(given.networks, given.samples)
    publish(__file__, given, results, markdown(results))


if __name__ == "__main__":
    main()
