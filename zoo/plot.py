"""Pictures of error over rate and over SNR: measured models, limits, and what the papers published."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import IO, Any

from zoo.errors import ZooError
from zoo.files import require_place, whole
from zoo.registry import family_of
from zoo.results import domain

PUBLISHED = Path(__file__).with_name("published.json")  # points as printed, their sources and data sets
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

RATE = "payload [bit per CSI sample]"
REACH = 640  # bits: published points beyond it, and beyond what was measured, would squeeze the curves
OVER = {"snr_db": "SNR of the link at each antenna [dB]", "k": "symbols per CSI sample"}
SAID: dict[str, Callable[[Any], str]] = {  # a curve's columns, in words
    "name": str,
    "k": "k = {}".format,
    "snr_db": "SNR {:g} dB".format,
    "steps": lambda steps: "steps as they pay" if steps == "auto" else f"{steps} step" + "s" * (steps != 1),
    "bits": lambda bits: "analog" if bits is None else f"{bits} bits",
    "cnr_db": lambda cnr: "perfect CSI" if cnr is None else f"CNR {cnr:g} dB",
    "channel": str,
}
MEASURES = {"nmse_db": "NMSE [dB]", "bler": "block error rate"}  # what may be drawn of a point
Lines = dict[str, list[tuple[float, float]]]  # label to points, of x and NMSE [dB]


@dataclass(frozen=True)
class Picture:
    """What is drawn."""

    title: str
    measured: Lines
    limits: Lines
    published: Lines
    measure: str = "nmse_db"


def rd(
    results: Sequence[Mapping[str, Any]],
    out: Path,
    limits: Mapping[str, Any] | None = None,
    snr_db: float | None = 30.0,
) -> None:
    """Draw NMSE over bits: one line a family, the limits in grey, published points as open markers.

    :param results: contents of ``results.json`` files, all measured on the same samples, in the same domain
    :param out: picture; its ending chooses the kind (png, svg, pdf)
    :param limits: ``{"rows": [{"name": ..., "bits": [...], "nmse_db": [...]}]}``, as ``zoo limits`` prints them
    :param snr_db: which quality of the side information to draw; None for Y as simulated
    :raises ZooError: as :func:`rates` does, or a picture that cannot be written
    """
    _require_kind(out)
    _draw(rates(results, limits, snr_db), RATE, out)


def rates(
    results: Sequence[Mapping[str, Any]], limits: Mapping[str, Any] | None = None, snr_db: float | None = 30.0
) -> Picture:
    """NMSE over bits, see :func:`rd`; published points are left out beside errors in another domain than theirs.

    :raises ZooError: no results, results or limits of different data, results of different domains, limits of another domain, or an SNR
        that was not measured
    """
    data = _common_data(results, [limits] if limits else [])
    where = _common_domain(results, limits is not None)
    side = ", Y as simulated" if snr_db is None else f", Y at {snr_db:g} dB SNR"
    rows = (limits or {"rows": []})["rows"]
    reach = max(REACH, *(result["bits"] for result in results))
    return Picture(
        _told(data) + (side if any(result["decoder_has_y"] for result in results) else "") + where,
        _by_family(results, snr_db),
        {
            row["name"]: [point for point in zip(row["bits"], row["nmse_db"], strict=True) if None not in point]
            for row in rows
        },
        {
            row["name"]: points
            for row in ([] if where else published(data["name"], "bits"))
            if (points := [point for point in zip(row["bits"], row["nmse_db"], strict=True) if point[0] <= reach])
        },
    )


def snr(
    results: Sequence[Mapping[str, Any]], out: Path, limits: Sequence[Mapping[str, Any]] = (), over: str = "snr_db",
    chosen: Mapping[str, Collection[Any]] | None = None, with_published: bool = False, measure: str = "nmse_db",
) -> None:  # fmt: skip
    """Draw the curves of models that send symbols, see :func:`curves`.

    :param out: picture; its ending chooses the kind (png, svg, pdf)
    :raises ZooError: as :func:`curves` does, or a picture that cannot be written
    """
    _require_kind(out)
    _draw(curves(results, limits, over, chosen, with_published, measure), OVER[over], out)


def curves(
    results: Sequence[Mapping[str, Any]], limits: Sequence[Mapping[str, Any]] = (), over: str = "snr_db",
    chosen: Mapping[str, Collection[Any]] | None = None, with_published: bool = False, measure: str = "nmse_db",
) -> Picture:  # fmt: skip
    """NMSE, or block error rate, over the SNR of the link, or over the symbols: a curve for each combination of the rest, named by what differs.

    :param results: contents of ``results.json`` files of models that send symbols, all measured on the same samples
    :param limits: of separate coding, as ``zoo limits --link`` writes them; those of the same k, or SNR, are drawn
    :param over: ``snr_db`` or ``k``
    :param chosen: values to draw of any of ``k``, ``snr_db``, ``steps``, ``bits``, ``cnr_db``; all of the others
    :param with_published: the papers' points for the same data, k and SNR too
    :param measure: ``nmse_db`` or ``bler``
    :raises ZooError: no results, results or limits of different data, results of different domains or twice the same, values that were not
        measured, or limits or published points to be drawn when none belong to these curves
    """
    data, chosen = _common_data(results, limits), chosen or {}
    where = _common_domain(results, bool(limits) or with_published) if measure == "nmse_db" else ""
    measured = _chosen(_measured(results), chosen)
    if any(measure not in row for row in measured):
        raise ZooError("these results have no block error rates; zoo eval --bler measures them")
    if measure != "nmse_db" and (limits or with_published):
        raise ZooError("limits and published points are of the NMSE; leave them out beside block error rates")
    fixed = "k" if over == "snr_db" else "snr_db"
    drawn = {column: chosen[column] for column in ("k", "snr_db") if column in chosen}
    drawn[fixed] = sorted({row[fixed] for row in measured})

    def beside(rows: list[dict[str, Any]], what: str) -> list[dict[str, Any]]:
        kept = [row for row in rows if all(row[column] in wanted for column, wanted in drawn.items())]
        if not kept:
            raise ZooError(f"{what} at {_command_line(drawn)}, which these curves are of")
        return kept

    bounds = beside(_bounds(limits), "the limits hold nothing") if limits else []
    papers = published(data["name"], "snr_db")
    points = beside(_columns(papers), f"no points are published for {data['name']}") if with_published else []
    values = {column: {row[column] for row in measured + bounds if column in row} for column in SAID if column != over}
    values["name"] = {row["name"] for row in measured}
    differing = [column for column, found in values.items() if len(found) > 1] or ["name"]
    common = [column for column in values if column not in differing and values[column] != {None}]
    shared = ", ".join(SAID[column](measured[0][column]) for column in common)
    return Picture(
        _told(data) + where + (shared and f"\n{shared}"),
        _lines(measured, over, differing, measure),
        _lines(bounds, over, ["name", *(column for column in differing if column != "name")]),
        _lines(points, over, ["name", *({fixed} & set(differing))]),
        measure,
    )


def published(data: str, over: str) -> list[dict[str, Any]]:
    """What the papers printed for a data set.

    :param data: its name, e.g. ``cost2100-outdoor-v1``
    :param over: ``bits`` for codecs, ``snr_db`` for models that send symbols
    :returns: of each row a ``name``, its columns, ``nmse_db`` and ``source``
    """
    rows: list[dict[str, Any]] = json.loads(PUBLISHED.read_text())
    return [row for row in rows if over in row and any(data.startswith(f"{name}-") for name in row["data"])]


def _draw(picture: Picture, xlabel: str, out: Path) -> None:
    with whole(out) as draft, draft.open("wb") as file:
        render(picture, xlabel, file, out.suffix[1:])


def render(picture: Picture, xlabel: str, file: IO[bytes], kind: str = "png") -> None:
    """Models as coloured lines, limits in grey, published points as open markers.

    :param kind: png, svg or pdf
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):  # type: ignore[arg-type]
        figure, axes = plt.subplots(figsize=(8.4, 4.6), layout="constrained")
        looks = zip(cycle(COLOURS), cycle(MARKERS), strict=False)
        for (label, line), (colour, marker) in zip(picture.measured.items(), looks, strict=False):
            axes.plot(
                *zip(*line, strict=True), color=colour, marker=marker, markersize=5.5, linewidth=1.6, label=label, zorder=3
            )  # fmt: skip
        for (label, line), marker in zip(picture.published.items(), MARKERS, strict=False):
            axes.plot(
                *zip(*line, strict=True), linestyle="none", marker=marker, markersize=7, markerfacecolor="none",
                markeredgecolor="0.2", label=f"published: {label}", zorder=4,
            )  # fmt: skip
        for (label, line), dash in zip(picture.limits.items(), cycle(DASHES), strict=False):
            axes.plot(
                *zip(*line, strict=True), color="0.55", linestyle=dash, linewidth=1.3, label=f"limit: {label}", zorder=1
            )  # fmt: skip
        ticks = {x for lines in (picture.measured, picture.published) for line in lines.values() for x, _ in line}
        axes.set(xlabel=xlabel, ylabel=MEASURES[picture.measure], xticks=rates_to_print(sorted(ticks)))
        if picture.measure == "bler":
            axes.set_yscale("log")
        axes.grid(axis="y", color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_title(picture.title, loc="left", fontsize=10)
        figure.legend(loc="outside right upper", fontsize=9, handlelength=2.4, labelspacing=0.6)
        try:
            figure.savefig(file, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
        finally:
            plt.close(figure)


def _require_kind(out: Path) -> None:
    if out.suffix not in KINDS:
        raise ZooError(f"cannot draw {out}: its name must end in one of {', '.join(KINDS)}")
    require_place(out)


def read_limits(path: Path, over: str = "bits") -> dict[str, Any]:
    """A file of limits.

    :param over: ``bits``, or ``snr_db`` for those of a feedback link
    :raises ZooError: it is no such file
    """
    link = over == "snr_db"
    try:
        limits: dict[str, Any] = json.loads(path.read_text())
        sound = all(row["name"] and len(row[over]) == len(row["nmse_db"]) for row in limits["rows"])
        sound = sound and (not link or isinstance(limits["link"]["k"], int))
    except OSError as error:
        raise ZooError(f"cannot read limits from {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        kind, option = (" over SNR", " --link k=N") if link else ("", "")
        raise ZooError(f"{path} holds no limits{kind}; zoo limits STORE{option} --out {path} writes them")
    return limits


def _common_data(results: Sequence[Mapping[str, Any]], limits: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The split that all results are of, with the fewest and the most samples; limits that say what they are of must be of the same data set."""
    if not results:
        raise ZooError("there are no results to draw; zoo eval makes them")
    first = results[0]
    for other in results[1:]:
        if {**other["data"], "samples": 0} != {**first["data"], "samples": 0}:
            what = [
                f"{one['model']} on {one['data']['samples']} {one['data']['split']} samples of {one['data']['name']}"
                for one in (first, other)
            ]
            raise ZooError(f"results of different data cannot share a picture: {what[0]}, {what[1]}")
    counts = [result["data"]["samples"] for result in results]
    data: dict[str, Any] = {**first["data"], "samples": tuple(sorted({min(counts), max(counts)}))}
    for limit in limits:
        other = limit.get("data", data)
        if other["recipe_digest"] != data["recipe_digest"]:
            raise ZooError(f"the limits are of {other['name']}, the results of another data set, {data['name']}")
    return data


def _common_domain(results: Sequence[Mapping[str, Any]], beside: bool) -> str:
    """Domain of the NMSE of all results, as a title says it: nothing of the angular-delay domain.

    :param beside: limits or published points are drawn too, which are of the angular-delay domain
    :raises ZooError: there are two
    """
    models = {domain(result): result["model"] for result in results}
    if len(models) > 1:
        told = ", ".join(f"{model} in the {where} domain" for where, model in models.items())
        raise ZooError(f"errors in different domains cannot share a picture: {told}; see zoo eval --domain")
    [found] = models
    if found == "angular-delay":
        return ""
    if beside:
        raise ZooError(
            f"limits and published points are of the angular-delay domain; leave them out beside errors in the {found} domain"
        )
    return f", {found} domain"


def _told(data: Mapping[str, Any]) -> str:
    count = " to ".join(f"{samples:,}" for samples in data["samples"]).replace(",", "\N{THIN SPACE}")
    return f"{data['name']}, {count} {data['split']} samples"


def _by_family(results: Sequence[Mapping[str, Any]], snr_db: float | None) -> Lines:
    points: Lines = {}
    for result in sorted(results, key=lambda result: (family_of(result["model"]), result["bits"])):
        measured = {level["snr_db"]: level["nmse_db"] for level in result["side_information"]}
        wanted = snr_db if result["decoder_has_y"] else None
        if wanted not in measured:
            known = ", ".join("none" if snr is None else f"{snr:g}" for snr in measured)
            raise ZooError(f"{result['model']} was not measured at this SNR of Y; its results have --snr {known}")
        points.setdefault(family_of(result["model"]), []).append((result["bits"], measured[wanted]))
    return points


def _measured(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Points as rows, under the names of their families, or of their models where a family has several of one combination."""
    for name in (family_of, str):
        rows = [
            {**point, "name": name(result["model"]), "channel": result.get("channel")}
            for result in results
            for point in result["points"]
        ]
        if len({tuple(row[column] for column in SAID) for row in rows}) == len(rows):
            return rows
    raise ZooError("these results hold a model twice at one combination; draw one of them")


def _bounds(limits: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Limits over a link as rows."""
    return [
        {**row, **{key: limit["link"][key] for key in ("k", "channel") if key in limit["link"]}}
        for limit in limits
        for row in _columns(limit["rows"], ("snr_db", "nmse_db"))
    ]


def _columns(
    named: Sequence[Mapping[str, Any]], columns: Sequence[str] = ("k", "snr_db", "nmse_db")
) -> list[dict[str, Any]]:
    """Named columns as rows."""
    return [
        {"name": one["name"], **dict(zip(columns, values, strict=True))}
        for one in named
        for values in zip(*(one[column] for column in columns), strict=True)
    ]


def _chosen(rows: list[dict[str, Any]], chosen: Mapping[str, Collection[Any]]) -> list[dict[str, Any]]:
    for column, wanted in chosen.items():
        known = list(dict.fromkeys(row[column] for row in rows))
        missing = [value for value in wanted if value not in known]
        if missing:
            told = [_command_line({column: values}) for values in (missing, known)]
            raise ZooError(f"nothing was measured at {told[0]}; the results have {told[1]}")
    kept = [row for row in rows if all(row[column] in wanted for column, wanted in chosen.items())]
    if not kept:
        raise ZooError(f"nothing was measured at {_command_line(chosen)} together")
    return kept


def _command_line(chosen: Mapping[str, Collection[Any]]) -> str:
    told = {
        key: ",".join(
            "none" if value is None else value if isinstance(value, str) else f"{value:g}" for value in chosen[key]
        )
        for key in chosen
    }
    return " ".join(f"--{key.removesuffix('_db')} {values}" for key, values in told.items())


def _lines(
    rows: Sequence[Mapping[str, Any]], over: str, labels: Sequence[str], measure: str = "nmse_db"
) -> Lines:  # fmt: skip
    """Rows as lines, one for each combination of the columns that label them."""
    lines: Lines = {}
    for row in rows:
        label = ", ".join(SAID[column](row[column]) for column in labels if column in row)
        lines.setdefault(label, []).append((row[over], row[measure]))
    return {label: sorted(line) for label, line in lines.items()}


def rates_to_print(rates: Sequence[float]) -> list[float]:
    """Those of the sorted rates that have room on the axis: of 128 and 132, the first."""
    kept: list[float] = []
    for rate in rates:
        if not kept or rate - kept[-1] >= (rates[-1] - rates[0]) / 16:
            kept.append(rate)
    return kept
