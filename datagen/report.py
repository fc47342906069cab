"""What a store holds, in numbers and in a picture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from datagen.errors import DatagenError, VerificationError
from datagen.place import place, sizes
from datagen.recipe import ARRAYS, COST2100Recipe, describe_arrays
from datagen.store import Store

SMALLEST = np.finfo(np.float32).tiny  # divisors: imported samples may be 0
LOOKED_AT = 2048  # samples of the first split that the measured figures and the picture come from


COLUMNS = {  # of the table: figure -> its heading and format
    "mean_energy": ("mean energy", ".4g"),
    "mean_delay_taps": ("mean delay [taps]", ".2f"),
    "rms_delay_taps": ("RMS delay [taps]", ".2f"),
    "energy_in_32_strongest_cells": ("energy in 32 cells", ".3f"),
    "correlation": ("correlation with Z", ".3f"),
    "nmse_db": ("NMSE as Z [dB]", ".2f"),
    "entry_power": ("power of an entry", ".4g"),
    "edge_correlation": ("correlation of the band's edges", ".4f"),
}

Arrays = dict[str, NDArray[np.complex64]]  # by name, each [sample, angle, delay]; H is [sample, antenna, subcarrier]


def summary(store: Store, samples: Arrays) -> dict[str, Any]:
    """What ``datagen inspect`` prints: provenance from the manifest, and figures measured on the first samples.

    :param samples: of :func:`first_samples`
    :returns: JSON-ready dictionary; energies are means of ||.||_F^2, ``nmse_db`` that of taking X or Y for Z,
        ``correlation`` the mean of |<A, Z>| / (||A|| ||Z||), ``edge_correlation`` that of H's first and last subcarrier
    """
    manifest, recipe = store.manifest, store.recipe
    energies = {
        split: {
            name: sum(r.arrays[name].energy * (r.stop - r.start) for r in manifest.shards if r.split == split) / size
            for name in recipe.shapes(split)
        }
        for split, size in recipe.splits.items()
    }
    return {
        "path": str(store.path),
        "name": manifest.name,
        "samples": recipe.splits,
        "arrays": {name: list(shape) for name, shape in recipe.arrays.items()},
        "arrays_in_words": describe_arrays(recipe),
        "bytes": sum(sizes(place(store.path)).values()),
        "shards": len(manifest.shards),
        "shard_samples": manifest.shard_samples,
        "recipe": recipe.model_dump(mode="json"),
        "recipe_digest": manifest.recipe_digest,
        "digest": manifest.digest,
        "created": manifest.created,
        "producer": manifest.producer.model_dump(),
        "mean_energy": energies,
        "measured": measure(samples),
    }


def first_samples(store: Store) -> Arrays:
    """Arrays of the first :data:`LOOKED_AT` samples of the first split.

    :raises VerificationError: they are damaged
    """
    split = next(iter(store))
    arrays = {}
    for name in store.recipe.shapes(split):
        try:
            arrays[name] = np.asarray(store[split][name][:LOOKED_AT])
        except Exception as error:  # whatever zarr or a codec makes of damaged bytes
            raise VerificationError(
                f"{store.path}: {split}/{name} cannot be read ({error}); see datagen verify"
            ) from None
        if not np.isfinite(arrays[name]).all():
            raise VerificationError(
                f"{store.path}: samples of {split}/{name} are missing or not finite; see datagen verify"
            )
    return arrays


def measure(arrays: Arrays) -> dict[str, Any]:
    """Figures of some samples: relation of each array to the target Z, where the power lies in delay; power and flatness of H."""
    result: dict[str, Any] = {"samples": len(next(iter(arrays.values())))}
    for name in arrays:
        if name == "H":
            edges = correlation(arrays[name][..., :1], arrays[name][..., -1:])
            power = float(np.square(np.abs(arrays[name])).mean())
            result[name] = {"entry_power": power, "edge_correlation": float(edges.mean())}
            continue
        target = arrays["Z"] if "Z" in arrays else arrays["X"]
        profile = np.square(np.abs(arrays[name])).mean(axis=(0, 1))
        taps = np.arange(len(profile))
        mean = float((profile * taps).sum() / profile.sum())
        result[name] = {
            "mean_delay_taps": mean,
            "rms_delay_taps": float(np.sqrt((profile * (taps - mean) ** 2).sum() / profile.sum())),
            "energy_in_32_strongest_cells": float(np.mean(_strongest_share(arrays[name], 32))),
        }
        if name != "Z":
            error = _energy(target - arrays[name]) / np.maximum(_energy(target), SMALLEST)
            result[name]["correlation"] = float(correlation(arrays[name], target).mean())
            result[name]["nmse_db"] = float(10 * np.log10(error.mean())) if error.any() else None
    return result


def _energy(array: NDArray[np.complex64]) -> NDArray[np.float32]:
    energy: NDArray[np.float32] = np.square(np.abs(array)).sum(axis=(1, 2))
    return energy


def _strongest_share(array: NDArray[np.complex64], cells: int) -> NDArray[np.float32]:
    power = np.sort(np.square(np.abs(array)).reshape(len(array), -1), axis=1)[:, ::-1]
    share: NDArray[np.float32] = power[:, :cells].sum(axis=1) / np.maximum(power.sum(axis=1), SMALLEST)
    return share


def correlation(a: NDArray[np.complex64], b: NDArray[np.complex64]) -> NDArray[np.float64]:
    """|<a, b>| / (||a|| ||b||) of each sample, shape [sample]."""
    inner: NDArray[np.float64] = np.abs(np.einsum("nad,nad->n", a.conj(), b))
    scale = np.linalg.norm(a, axis=(1, 2)) * np.linalg.norm(b, axis=(1, 2))
    result: NDArray[np.float64] = inner / np.maximum(scale, SMALLEST)
    return result


def table(facts: dict[str, Any]) -> str:
    """The summary as text."""
    from rich.console import Console
    from rich.table import Table

    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=120, file=nowhere, markup=False)
        head = Table(show_header=False, box=None)
        head.add_row(
            "data set",
            f"{facts['name']}, made {facts['created']} by datagen {facts['producer']['datagen']} ({facts['producer']['engine']})",
        )
        head.add_row("samples", ", ".join(f"{n} {split}" for split, n in facts["samples"].items()))
        head.add_row(
            "arrays",
            f"{facts['arrays_in_words']}, complex64",
        )
        size = f"{facts['bytes'] / 1e6:.1f} MB in " if facts["bytes"] is not None else ""
        head.add_row("size", f"{size}{facts['shards']} shards of {facts['shard_samples']} samples")
        head.add_row(
            "recipe",
            ", ".join(
                f"{k} {v['file'] if isinstance(v, dict) else v}"
                for k, v in facts["recipe"].items()
                if k not in ("name", "dataset_version", "train", "val", "test") and v is not None
            ),
        )
        head.add_row("digest", facts["digest"])
        console.print(head)
        title = f"measured on the first {facts['measured']['samples']} samples"
        headings, *rows = figures(facts)
        measured = Table(headings[0], title=title, title_justify="left")
        for heading in headings[1:]:
            measured.add_column(heading, justify="right")
        for row in rows:
            measured.add_row(*row)
        console.print(measured)
        return console.export_text()


def figures(facts: dict[str, Any]) -> list[list[str]]:
    """The measured figures of a summary as rows of text, the headings first, then an array each."""
    first = next(iter(facts["mean_energy"].values()))
    rows = {name: {"mean_energy": energy, **facts["measured"][name]} for name, energy in first.items()}
    shown = [key for key in COLUMNS if any(row.get(key) is not None for row in rows.values())]
    cells = [
        [name, *(format(row[k], COLUMNS[k][1]) if row.get(k) is not None else "" for k in shown)]
        for name, row in rows.items()
    ]
    return [["array", *(COLUMNS[key][0] for key in shown)], *cells]


def paths(store: Store, index: int, split: str) -> dict[str, Any]:
    """The multipath components behind a sample, JSON-ready: see :class:`datagen.Multipath`.

    :raises DatagenError: the store was not made from paths that can be listed, or there is no such sample
    """
    recipe = store.recipe
    if not isinstance(recipe, COST2100Recipe):
        raise DatagenError(f"{store.path} holds {recipe.scenario} samples; only paths of cost2100 sets can be listed")
    from datagen.scenarios.cost2100 import multipath

    found = multipath(recipe, index, split)
    columns = {
        "kind": found.kind, "cluster": found.cluster, "delay_ns": found.delay_s * 1e9,
        "power_db": 20 * np.log10(np.maximum(np.abs(found.amplitude), 1e-30)), "phase_rad": np.angle(found.amplitude),
        "azimuth_bs_deg": np.rad2deg(found.azimuth_bs_rad), "azimuth_ue_deg": np.rad2deg(found.azimuth_ue_rad),
    }  # fmt: skip
    return {"split": split, "sample": index, "user_m": found.user_m, **{k: v.tolist() for k, v in columns.items()}}


def paths_table(facts: dict[str, Any]) -> str:
    """The paths of a sample as text, one a line."""
    names = [name for name in facts if name not in ("split", "sample", "user_m")]
    x, y = facts["user_m"]
    lines = [f"{facts['split']} sample {facts['sample']}: user at ({x:.1f}, {y:.1f}) m, {len(facts['kind'])} paths"]
    lines.append(" ".join(f"{name:>14}" for name in names))
    lines += [
        " ".join(f"{cell:>14.3f}" if isinstance(cell, float) else f"{cell:>14}" for cell in row)
        for row in zip(*(facts[name] for name in names), strict=True)
    ]
    return "\n".join(lines)


def plot(store: Store, arrays: Arrays, out: Path | IO[bytes]) -> None:
    """Draw a store: magnitudes, power over delay and over angle, and the correlation with the target.

    The magnitudes are of the first sample's arrays; where there is but one array, of the first three samples.

    :param arrays: of :func:`first_samples`
    :param out: picture file, whose ending chooses the kind (png, pdf, svg), or where to write a png
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    arrays = {name: array for name, array in arrays.items() if name != "H"} or arrays
    row, column, _ = ARRAYS[next(iter(arrays))]
    labels = {"angle": "angle [bin]", "delay": "delay [tap]"}
    row, column = labels.get(row, row), labels.get(column, column)
    target = "Z" if "Z" in arrays else next(iter(arrays))
    colours = {"X": "tab:blue", "Y": "tab:orange", "Z": "tab:green", "H": "tab:red"}
    figure, axes = plt.subplots(2, 3, figsize=(12, 7), layout="constrained")
    titles = {"X": "X: downlink now", "Y": "Y: uplink later", "Z": "Z: downlink later", "H": "H: frequency response"}
    if len(arrays) == 1:
        shown = [(f"{titles[target]}, sample {i}", sample) for i, sample in enumerate(arrays[target][:3])]
    else:
        shown = [(titles[name], array[0]) for name, array in arrays.items()]
    peak = max(max(float(np.abs(sample).max()) for _, sample in shown), SMALLEST)
    for axis in axes[0, len(shown) :]:
        axis.set_axis_off()
    for axis, (title, sample) in zip(axes[0], shown, strict=False):
        level = 20 * np.log10(np.abs(sample) / peak + 1e-6)
        image = axis.imshow(level, vmin=-40, vmax=0, origin="lower", aspect="auto")
        axis.set(title=title, xlabel=column, ylabel=row)
    figure.colorbar(image, ax=axes[0], label="magnitude [dB]")
    for axis, other, label in ((axes[1, 0], 1, column), (axes[1, 1], 2, row)):
        for name, array in arrays.items():
            power = np.square(np.abs(array)).mean(axis=(0, other))
            axis.plot(10 * np.log10(power / power.sum()), label=name, color=colours[name])
        axis.set(
            xlabel=label,
            ylabel="share of the mean power [dB]",
            title={"delay [tap]": "power-delay profile", "angle [bin]": "angular spectrum"}.get(
                label, f"power by {label}"
            ),
        )
        axis.legend()
        axis.grid(alpha=0.3)
    if len(arrays) == 1:
        axes[1, 2].set_axis_off()
    for name in arrays:
        if name != target:
            values = correlation(arrays[name], arrays[target])
            axes[1, 2].hist(
                values,
                bins=np.linspace(0, 1, 41),
                alpha=0.6,
                color=colours[name],
                label=f"{name}–{target}, mean {values.mean():.2f}",
            )
            axes[1, 2].set(xlabel="|⟨A, B⟩| / (‖A‖ ‖B‖)", ylabel="samples", title="correlation with the target")
            axes[1, 2].legend()
    size = " × ".join(f"{n} {what}s" for n, what in zip(arrays[target].shape[1:], ARRAYS[target], strict=False))
    figure.suptitle(f"{store.manifest.name}: {len(arrays[target])} samples, {size}")
    figure.savefig(out, dpi=110)
    plt.close(figure)
