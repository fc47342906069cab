"""Rate-distortion pictures: measured models, Gaussian limits, and what the papers published."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.files import require_place, whole
from zoo.registry import family_of

PUBLISHED = Path(__file__).with_name(
    "published.json"
)  # data set of a model's name -> points as printed, each with its source
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)  # Okabe and Ito, safe for the colour-blind
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<")  # 7 colours, 9 markers: 63 families look different
DASHES = ("--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)))
KINDS = (".png", ".svg", ".pdf")
STYLE = {
    "font.family": "DejaVu Sans", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
    "svg.fonttype": "none", "svg.hashsalt": "csi-feedback-zoo", "pdf.fonttype": 42, "legend.frameon": False,
}  # fmt: skip


def rd(
    results: Sequence[Mapping[str, Any]],
    out: Path,
    limits: Mapping[str, Any] | None = None,
    snr_db: float | None = 30.0,
) -> None:
    """Draw NMSE over bits: one line a family, the limits in grey, published points as open markers.

    :param results: contents of ``results.json`` files, all measured on the same samples
    :param out: picture; its ending chooses the kind (png, svg, pdf)
    :param limits: ``{"rows": [{"name": ..., "bits": [...], "nmse_db": [...]}]}``, as ``zoo limits`` prints them
    :param snr_db: which quality of the side information to draw; None for Y as simulated
    :raises ZooError: no results, results of different data, an SNR that was not measured, or a picture that cannot be written
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    if out.suffix not in KINDS:
        raise ZooError(f"cannot draw {out}: its name must end in one of {', '.join(KINDS)}")
    require_place(out)
    data = _common_data(results)
    points = _by_family(results, snr_db)
    with plt.rc_context(STYLE):  # type: ignore[arg-type]
        figure, axes = plt.subplots(figsize=(8.4, 4.6), layout="constrained")
        looks = zip(cycle(COLOURS), cycle(MARKERS), strict=False)
        for (family, line), (colour, marker) in zip(points.items(), looks, strict=False):
            axes.plot(
                *zip(*line, strict=True),
                color=colour,
                marker=marker,
                markersize=5.5,
                linewidth=1.6,
                label=family,
                zorder=3,
            )
        published = json.loads(PUBLISHED.read_text()).get(data["scenario"], [])
        for row, marker in zip(published, MARKERS, strict=False):
            axes.plot(
                row["bits"], row["nmse_db"], linestyle="none", marker=marker, markersize=7, markerfacecolor="none",
                markeredgecolor="0.2", label=f"published: {row['name']}", zorder=4,
            )  # fmt: skip
        for row, dash in zip((limits or {"rows": []})["rows"], cycle(DASHES), strict=False):
            finite = [point for point in zip(row["bits"], row["nmse_db"], strict=True) if None not in point]
            axes.plot(
                *zip(*finite, strict=True),
                color="0.55",
                linestyle=dash,
                linewidth=1.3,
                label=f"limit: {row['name']}",
                zorder=1,
            )
        rates = {bits for line in points.values() for bits, _ in line}.union(*(row["bits"] for row in published))
        axes.set(xlabel="payload [bit per CSI sample]", ylabel="NMSE [dB]", xticks=rates_to_print(sorted(rates)))
        axes.grid(axis="y", color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        side = "Y as simulated" if snr_db is None else f"Y at {snr_db:g} dB SNR"
        count = f"{data['samples']:,}".replace(",", "\N{THIN SPACE}")
        axes.set_title(f"{data['name']}, {count} {data['split']} samples, {side}", loc="left", fontsize=10)
        figure.legend(loc="outside right upper", fontsize=9, handlelength=2.4, labelspacing=0.6)
        try:
            with whole(out) as draft:
                figure.savefig(
                    draft, format=out.suffix[1:], dpi=160, metadata={"Date": None} if out.suffix == ".svg" else None
                )
        finally:
            plt.close(figure)


def read_limits(path: Path) -> dict[str, Any]:
    """A file of limits.

    :raises ZooError: it is no such file
    """
    try:
        limits: dict[str, Any] = json.loads(path.read_text())
        sound = all(row["name"] and len(row["bits"]) == len(row["nmse_db"]) for row in limits["rows"])
    except OSError as error:
        raise ZooError(f"cannot read limits from {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise ZooError(f"{path} holds no limits; zoo limits STORE --out {path} writes them")
    return limits


def _common_data(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if not results:
        raise ZooError("there are no results to draw; zoo eval makes them")
    first = results[0]
    for other in results[1:]:
        if other["data"] != first["data"]:
            what = [
                f"{one['model']} on {one['data']['samples']} {one['data']['split']} samples of {one['data']['name']}"
                for one in (first, other)
            ]
            raise ZooError(f"results of different data cannot share a picture: {what[0]}, {what[1]}")
    data: dict[str, Any] = first["data"]
    return data


def _by_family(results: Sequence[Mapping[str, Any]], snr_db: float | None) -> dict[str, list[tuple[int, float]]]:
    points: dict[str, list[tuple[int, float]]] = {}
    for result in sorted(results, key=lambda result: (family_of(result["model"]), result["bits"])):
        measured = {level["snr_db"]: level["nmse_db"] for level in result["side_information"]}
        wanted = snr_db if result["decoder_has_y"] else None
        if wanted not in measured:
            known = ", ".join("none" if snr is None else f"{snr:g}" for snr in measured)
            raise ZooError(f"{result['model']} was not measured at this SNR of Y; its results have --snr {known}")
        points.setdefault(family_of(result["model"]), []).append((result["bits"], measured[wanted]))
    return points


def rates_to_print(rates: Sequence[int]) -> list[int]:
    """Those of the sorted rates that have room on the axis: of 128 and 132, the first."""
    kept: list[int] = []
    for rate in rates:
        if not kept or rate - kept[-1] >= (rates[-1] - rates[0]) / 16:
            kept.append(rate)
    return kept
