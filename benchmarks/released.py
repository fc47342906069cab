"""Models that come with the package, by scenario (the data set's part of their names): what benchmarks/models.py and benchmarks/jscc.py share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.tables import results_file
from zoo import config, registry, results
from zoo.evaluate import parameter_count

MISSING = "*missing: needs a GPU*"
SIZED = {"inh": "-indoor"}  # ending of the recipes that the paper sizes for one data set


def released(scenario: str, symbols: bool) -> list[dict[str, Any]]:
    """Results of the models of a data set that send symbols, or of those that send payloads.

    :raises SystemExit: there are none
    """
    found = of_family("*", scenario, symbols)
    if not found:
        there = dict.fromkeys(map(registry.scenario_of, registry.list_models()))
        raise SystemExit(
            f"no models of {scenario!r} send {'symbols' if symbols else 'payloads'}; there are {', '.join(there)}"
        )
    return found


def of_family(family: str, scenario: str, symbols: bool) -> list[dict[str, Any]]:
    """The same of a family, or of all that match it; none where there are none."""
    names = registry.list_models(f"{family}-{scenario}-{'k*' if symbols else '*b'}")
    return [result for name in names if (result := results.read(registry.WEIGHTS / name)) is not None]


def missing(found: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Families in the papers' sizes that only have a smaller one or one of our own here, with their numbers of parameters.

    :param found: results of all models of a data set that are of one sort
    """
    data, families = found[0]["data"], {registry.family_of(result["model"]) for result in found}
    full = dict.fromkeys(_full_size(family, data["scenario"]) for family in sorted(families))
    side_information = any(result.get("decoder_has_y") for result in found)
    return {
        family: _parameters(config.load(family), side_information)
        for family in full
        if family not in families and family in config.names()
    }


def _full_size(family: str, scenario: str) -> str:
    """Family in the paper's size of one that is here; often itself."""
    name = family.removesuffix("-lite")
    for full in (f"{name}-paper{SIZED.get(scenario, '')}", f"{name}-paper"):
        if full in config.names():
            return full
    return name


def _parameters(recipe: config.Recipe, side_information: bool) -> int:
    kind = registry.architecture(recipe.architecture)
    of_data = {"side_information": side_information} if "side_information" in kind.Config.model_fields else {}
    with torch.device("meta"):  # sizes, no numbers
        return parameter_count(kind(kind.Config.model_validate({**of_data, **recipe.codec})))


def remark(data: dict[str, Any]) -> str:
    """How near a generated COST 2100 set is to the official one, which published figures are of; nothing of other data.

    :param data: of results
    """
    if data["scenario"] != "cost2100":
        return ""
    judged = json.loads(results_file("csinet_judge").read_text())
    found = judged["environments"][data["name"].split("-")[1]]
    here, there = found["nmse_db"]["default"], found["published_nmse_db"]
    return (
        f"`{data['name']}` is [generated](#cost-2100-without-matlab), not the official set, which the published figures are of. CsiNets that were trained "
        f"on the official set reach {_listed(here.values())} dB on ours, and {_listed(there.values())} dB on the official one as published (codewords of "
        f"{_listed(there)}; {judged['samples']} samples)."
    )


def _listed(values: Any) -> str:
    told = [value if isinstance(value, str) else f"{value:.2f}" for value in values]
    return f"{', '.join(told[:-1])} and {told[-1]}"
