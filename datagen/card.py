"""The card of a data set on the Hub: what it is and how to use it, in Markdown, with metadata that the Hub reads."""

from __future__ import annotations

import json
from typing import Any

from datagen.errors import DatagenError
from datagen.manifest import Manifest
from datagen.recipe import ARRAYS, COST2100Recipe
from datagen.report import Arrays, figures

TAGS = ["csi-feedback", "channel-state-information", "massive-mimo", "fdd", "wireless", "zarr", "croissant"]
LARGEST = 10**12  # samples: the Hub's last named size but one
SUMMARIES = {
    "cdl": "Downlink and uplink channels of the clustered delay line models of 3GPP TR 38.901, now and some symbols later.",
    "cost2100": "Channels of the COST 2100 model in the form of the CsiNet data sets.",
    "inh": "Channels of an indoor office, 3GPP TR 38.901 InH.",
    "matfile": "Channels imported from MATLAB files in the form of the CsiNet data sets.",
}


def card(manifest: Manifest, facts: dict[str, Any], samples: Arrays, repo: str, store: str, picture: str) -> str:
    """The card's text; it is the same whenever it is made of the same store.

    :param facts: of :func:`datagen.report.summary`
    :param samples: of :func:`datagen.report.first_samples`
    :param repo: ``ORG/NAME``
    :param store: name of the store in the repository
    :param picture: name of the picture in the repository
    """
    recipe, name = manifest.plan.recipe, manifest.name
    address = f"hf://datasets/{repo}/{store}"
    source = " --source DIRECTORY" if recipe.sources else ""
    parts = [
        _metadata(manifest),
        f"# {name}",
        SUMMARIES[recipe.scenario],
        f"Complex64, in the scale that the recipe says, in a [Zarr v3](https://zarr.dev) store, `{store}`:",
        _table(
            ["array", "what", *(f"{split} samples" for split in recipe.splits), "a sample", "unit"],
            *(
                [
                    name,
                    ARRAYS[name][-1],
                    *(str(n) if name in recipe.shapes(split) else "" for split, n in recipe.splits.items()),
                    " × ".join(f"{n} {what}s" for n, what in zip(shape, ARRAYS[name], strict=False)),
                    "1",
                ]
                for name, shape in recipe.arrays.items()
            ),
        ),
        f"{facts['bytes'] / 1e6:.1f} MB in shards of {facts['shard_samples']} samples, chunks of 256.",
        f"![{name}]({picture})",
        "## Use",
        _code(
            "import datagen", "", f'store = datagen.open_store("{address}")  # in place: what is asked for is read, nothing more',
            f'x = store["{next(iter(recipe.splits))}"].{next(iter(recipe.arrays))}[:256]', kind="python",
        ),
        _code(
            "# the whole set, verified",
            f"datagen pull {repo} --out {name}.zarr",
            "# or make it again, and prove that it is the same",
            f"datagen regenerate manifest.json --out {name}.zarr{source}",
        ),
        f"`@COMMIT` after `{repo}` pins what you read, in place and by `datagen pull`. `manifest.json` has the recipe and a digest for every shard: `datagen verify` holds the samples to them.",
        "## Recipe",
        _table(["field", "value"], *([key, _shown(value)] for key, value in recipe.model_dump(mode="json").items() if value is not None)),
        _table(
            ["", ""],
            ["recipe digest", f"`{manifest.recipe_digest}`"],
            ["manifest digest", f"`{manifest.digest}`"],
            ["made", f"{manifest.created} by datagen {manifest.producer.datagen}, engine {manifest.producer.engine}"],
        ),
        "## Figures",
        f"Measured on the first {facts['measured']['samples']} samples; mean energy is that of the whole first split.",
        _table(*figures(facts)),
        *_fidelity(manifest, samples),
        "## Licence and citation",
        f"{manifest.licence}. Please cite:",
        "\n".join(f"* {reference}" for reference in manifest.references) or "* this data set",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _metadata(manifest: Manifest) -> str:
    """What the Hub reads, as YAML of which every value is JSON."""
    licence = "unknown" if manifest.licence.startswith("LicenseRef-") else manifest.licence.lower()
    values = {
        "license": licence, "pretty_name": manifest.name, "size_categories": [size_category(manifest.plan.samples)],
        "tags": [*TAGS, manifest.plan.recipe.scenario], "viewer": False,
    }  # fmt: skip
    return "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in values.items()), "---"])


def size_category(samples: int) -> str:
    """The Hub's name for a number of samples, such as ``100K<n<1M``."""
    if samples >= LARGEST:
        return "n>1T"
    low = 10 ** (len(str(samples)) - 1)
    return "n<1K" if samples < 1000 else f"{_short(low)}<n<{_short(10 * low)}"


def _short(number: int) -> str:
    thousands = (len(str(number)) - 1) // 3
    return f"{number // 1000**thousands}{' KMBT'[thousands].strip()}"


def _fidelity(manifest: Manifest, samples: Arrays) -> list[str]:
    """How a COST 2100 set compares with the official one, where there is one to compare with."""
    from datagen import fidelity

    recipe = manifest.plan.recipe
    if not isinstance(recipe, COST2100Recipe):
        return []
    try:
        found = fidelity.compare(recipe, samples["X"])
    except DatagenError:
        return []
    return ["Beside what is known of the official set:", _code(fidelity.table(found), kind="text")]


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return f"{value['file']}, sha256 {value['sha256']}"
    return " to ".join(map(str, dict.fromkeys(value))) if isinstance(value, list) else str(value)


def _table(headings: list[str], *rows: list[str]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _code(*lines: str, kind: str = "sh") -> str:
    return "\n".join([f"```{kind}", *lines, "```"])
