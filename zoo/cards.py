"""Model cards: what a family's page on the Hub says, all of it from the configs and the results of its models."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo import plot
from zoo.publication import PICTURE
from zoo.registry import architecture
from zoo.results import domain
from zoo.results import effort as effort_of

LICENCE = "apache-2.0"  # of the weights, as of the code
CITATION = """\
@misc{kim_gd_csi,
  title = {Generative Diffusion Model-based Compression of {MIMO} {CSI}},
  author = {Kim, Heasung and Lee, Taekyun and Kim, Hyeji and De Veciana, Gustavo and Arfaoui, Mohamed Amine and Koc, Asil and
            Pietraski, Phil and Zhang, Guodong and Kaewell, John},
}
@misc{ankireddy_rd_jscc,
  title = {Residual Diffusion Models for Variable-Rate Joint Source Channel Coding of {MIMO} {CSI}},
  author = {Ankireddy, Sravan Kumar and Kim, Heasung and Kim, Hyeji},
}
@software{csi_feedback_zoo,
  title = {csi-feedback-zoo: {FDD} massive {MIMO} {CSI} feedback, data sets and codecs with real bytes},
}
"""


@dataclass(frozen=True)
class Entry:
    """A model that is to be published."""

    name: str
    folder: str
    path: Path
    config: Mapping[str, Any]
    results: Mapping[str, Any]

    @property
    def symbols(self) -> bool:
        """Whether it sends symbols, not payloads."""
        return "points" in self.results


def card(family: str, repo: str, entries: Sequence[Entry], data_manifests: Mapping[str, str]) -> str:
    """``README.md`` of a family's repository.

    :param entries: by rate
    :param data_manifests: digest of a data set's released manifest, by the data set's name
    """
    from huggingface_hub import CardData

    sort = ("joint source-channel code", "symbols over a radio link") if entries[0].symbols else ("codec", "real bytes")
    count = f"{len(entries)} {sort[0]}" + "s" * (len(entries) != 1)
    index: dict[str, Any] = {
        "model-index": [{"name": entry.name, "results": [_evaluation(entry)]} for entry in entries]
    }
    tags = ["csi-feedback", "fdd", "massive-mimo", "wireless", entries[0].config["architecture"]]
    metadata = CardData(license=LICENCE, library_name="csi-feedback-zoo", tags=tags, **index).to_yaml()
    parts = [
        f"---\n{metadata}\n---\n", f"# {family}\n",
        f"CSI feedback for FDD massive MIMO in {sort[1]}: {count}, made and measured by `csi-feedback-zoo`. "
        "Each folder is a model; `manifest.json` has the SHA-256 of every file.\n",
        _about(entries[0]),
        "## What they are worth\n", _table(entries), f"\n![NMSE]({PICTURE})\n", _measured(entries),
        "## How to load\n", _loading(repo, entries[0]),
        "## How they were trained\n", _training(entries),
        "## Data\n", _data(entries, data_manifests),
        "## Licence and citation\n",
        f"Weights: {LICENCE}. Data sets that `datagen` simulates: cc-by-4.0.\n", f"```bibtex\n{CITATION}```",
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def picture(entries: Sequence[Entry]) -> bytes:
    """``rd.png``: NMSE over the rate, or over the SNR of the link.

    :raises ZooError: the results are of different data, or have no quality of the side information in common
    """
    found = [entry.results for entry in entries]
    file = io.BytesIO()
    if entries[0].symbols:
        plot.render(plot.curves(found, chosen=_clean(found)), plot.OVER["snr_db"], file)
    else:
        plot.render(plot.rates(found, snr_db=_side_information(found)), plot.RATE, file)
    return file.getvalue()


def _side_information(results: Sequence[Mapping[str, Any]]) -> float | None:
    """Best measured quality of Y that all have in common; None is Y as simulated."""
    levels = [{level["snr_db"] for level in result["side_information"]} for result in results]
    common = {level for level in set.intersection(*levels) if level is not None}
    return max(common, default=None)


def _clean(results: Sequence[Mapping[str, Any]]) -> dict[str, list[None]]:
    """Of the points of models that send symbols, those with analog symbols and perfect CSI, where there are such."""
    points = [point for result in results for point in result["points"]]
    return {column: [None] for column in ("bits", "cnr_db") if any(point[column] is None for point in points)}


def _points(entry: Entry) -> list[Mapping[str, Any]]:
    wanted = _clean([entry.results])
    return [point for point in entry.results["points"] if all(point[column] is None for column in wanted)]


def _evaluation(entry: Entry) -> dict[str, Any]:
    """A model's measured metrics, as the Hub's model-index wants them."""
    data = entry.results["data"]
    metrics = []
    if entry.symbols:
        for point in _points(entry):
            what = ", ".join(plot.SAID[column](point[column]) for column in ("k", "snr_db", "steps"))
            metrics.append({"type": "nmse_db", "name": f"NMSE [dB], {what}", "value": round(point["nmse_db"], 3)})
    else:
        metrics.append({"type": "bits", "name": "payload [bit]", "value": entry.results["bits"]})
        for level in entry.results["side_information"]:
            value = round(level["nmse_db"], 3)
            metrics.append({"type": "nmse_db", "name": f"NMSE [dB], {_quality(level)}", "value": value})
    return {
        "task": {"type": "csi-feedback", "name": "CSI feedback"},
        "dataset": {"type": data["name"], "name": data["name"], "split": data["split"], "revision": data["recipe_digest"]},
        "metrics": metrics,
    }  # fmt: skip


def _quality(level: Mapping[str, Any]) -> str:
    return "Y as simulated" if level["snr_db"] is None else f"Y at {level['snr_db']:g} dB"


def _table(entries: Sequence[Entry]) -> str:
    """Error by rate, or by SNR."""
    rows = _link_rows(entries) if entries[0].symbols else _rate_rows(entries)
    head = list(dict.fromkeys(column for row in rows for column in row))
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row.get(column, "") for column in head) + " |" for row in rows)])


def _rate_rows(entries: Sequence[Entry]) -> list[dict[str, str]]:
    return [
        {
            "model": f"`{entry.name}`", "bits": str(entry.results["bits"]), "bytes": str(entry.results["payload_bytes"]),
            "parameters": str(entry.results["parameters"]), **_speed(entry),
            **{f"NMSE [dB], {_quality(level)}": f"{level['nmse_db']:.2f}" for level in entry.results["side_information"]},
        }
        for entry in entries
    ]  # fmt: skip


def _speed(entry: Entry) -> dict[str, str]:
    """Samples a second of both ends, as they were measured."""
    found = entry.results.get("throughput", {})
    sides = {"compress": "sent, samples/s", "decompress": "decoded, samples/s"}
    return {head: f"{found[key]:.0f}" for side, head in sides.items() if (key := f"{side}_samples_per_second") in found}


def _link_rows(entries: Sequence[Entry]) -> list[dict[str, str]]:
    rows: dict[tuple[Any, ...], dict[str, str]] = {}
    for entry in entries:
        for point in _points(entry):
            key = (entry.name, point["k"], point["steps"], point["bits"], point["cnr_db"])
            shown = {
                "model": f"`{entry.name}`", "k": str(point["k"]), "steps": str(point["steps"]),
                "symbols": plot.SAID["bits"](point["bits"]), "CSI": plot.SAID["cnr_db"](point["cnr_db"]),
            }  # fmt: skip
            rows.setdefault(key, shown)[f"NMSE [dB], {plot.SAID['snr_db'](point['snr_db'])}"] = (
                f"{point['nmse_db']:.2f}"
            )
    return list(rows.values())


def _about(entry: Entry) -> str:
    """Say what the models are, and what the phone does beside the network."""
    kind, effort = architecture(entry.config["architecture"]), effort_of(entry.results)
    searched = (
        f" Figures are at effort {effort}: the phone looks for {'better symbols' if entry.symbols else 'a better payload of the same length'} through the decoder."
        if effort
        else ""
    )
    return f"{kind.about(entry.config.get('codec', {}))}{searched}\n"


def _measured(entries: Sequence[Entry]) -> str:
    data = entries[0].results["data"]
    return (
        f"{data['samples']} {data['split']} samples of `{data['name']}`, by `zoo eval`; "
        f"NMSE is the mean over samples of the squared error over the squared norm in the {domain(entries[0].results)} domain. `results.json` has more, and was made from the very "
        "weights beside it.\n"
    )  # fmt: skip


def _loading(repo: str, entry: Entry) -> str:
    use = (
        "s = model.encode(x, snr_db=5)  # x complex [n, angle, delay], s complex [n, k]\n"
        "z = model.decode(received, snr_db=5)  # s as the link left it"
        if entry.symbols
        else "payloads = model.compress(x)  # x complex [n, angle, delay]: one bytes object a sample\n"
        f"z = model.decompress(payloads{', side_information=y' * bool(entry.results.get('decoder_has_y'))})"
    )
    return (
        "```python\nimport zoo  # the package csi-feedback-zoo\n\n"
        f'model = zoo.load("{entry.name}")  # where the package knows this release: pinned to its commit\n'
        f'model = zoo.load("hf:{repo}/{entry.folder}")  # @v1, @<commit>\n{use}\n```\n\n'
        f"`zoo pull {entry.name}` fetches it for later, offline; every file is checked against its SHA-256 each time.\n"
    )


def _training(entries: Sequence[Entry]) -> str:
    config = entries[0].config
    facts = {key: config[key] for key in ("steps", "minutes", "trained_with") if key in config}
    return (
        f"Recipe of `{entries[0].name}`; every model's `config.json` has its own.\n\n"
        f"```json\n{json.dumps(config.get('recipe', {}), indent=1)}\n```\n\n"
        + (f"Done as: `{json.dumps(facts)}`.\n" if facts else "")
    )


def _data(entries: Sequence[Entry], manifests: Mapping[str, str]) -> str:
    """Data sets of training and of measuring, with what identifies them."""
    roles: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        for role, data in (("trained on", entry.config.get("dataset")), ("measured on", entry.results["data"])):
            known = roles.setdefault((data["name"], data["recipe_digest"]), []) if data else []
            known.extend([role] if role not in known else [])
    lines = []
    for (name, digest), said in roles.items():
        released = (
            f", manifest `{manifests[name]}`: `datagen regenerate manifests/datasets/{name}.json` makes it again"
            if name in manifests
            else ""
        )
        lines.append(f"* `{name}` ({', '.join(said)}): recipe `{digest}`{released}")
    return "\n".join(lines) + "\n"
