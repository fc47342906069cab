"""Published CsiNets, trained on the official COST 2100 files, run over our sets: the nearer their NMSE to the published, the nearer the set.

The networks are not part of this repository. Get ``saved_model/model_CsiNet_*.h5`` from the authors' public code of C.-K. Wen, W.-T. Shih,
S. Jin, "Deep Learning for Massive MIMO CSI Feedback", IEEE Wireless Communications Letters, 2018, and say where they are:

python benchmarks/csinet_judge.py saved_model --readme README.md
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import datagen
from benchmarks.cost2100 import variants
from benchmarks.tables import put_into

PUBLISHED = {  # NMSE [dB] by codeword length (Table I)
    "outdoor": {128: -4.51, 64: -2.81, 32: -1.93},
    "indoor": {128: -8.65, 64: -6.24, 32: -5.84},
}


class CsiNet:
    """A published CsiNet (section III), read from its Keras file: channels first, batch normalisation over the last axis.

    :param path: HDF5 file of weights
    """

    def __init__(self, path: Path) -> None:
        layers: dict[str, list[Tensor]] = {}

        def collect(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                layers.setdefault(name.split("/")[0], []).append(torch.from_numpy(np.asarray(item, np.float32)))

        with h5py.File(path) as file:
            weights = file.get("model_weights", file)
            order = [n.decode() if isinstance(n, bytes) else n for n in weights.attrs["layer_names"]]
            for layer in order:
                names = [n.decode() if isinstance(n, bytes) else n for n in weights[layer].attrs["weight_names"]]
                for name in names:
                    collect(f"{layer}/x", weights[layer][name])
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
        official = {str(size): value for size, value in published.items()}
        results["environments"][environment] = {"nmse_db": found, "published_nmse_db": official}
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", type=Path, help="directory of the saved models")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/csinet_judge.json"))
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--readme", type=Path, help="put the table into this file")
    arguments = parser.parse_args()
    results = measure(arguments.networks, arguments.samples)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(markdown(results))
    if arguments.readme is not None:
        put_into(arguments.readme, "benchmarks/csinet_judge.py", markdown(results))


if __name__ == "__main__":
    main()
