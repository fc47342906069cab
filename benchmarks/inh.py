"""InH against Sionna's own InH: calibration metrics of links with random numbers of their own, and the speed of both engines.

    python benchmarks/inh.py --out benchmarks/results/inh.json --readme README.md

Both columns of spreads come from Sionna's calibration metrics (TR 38.901 §7.8), once from our rays, once from Sionna's.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.datagen import kernel, machine, rate
from benchmarks.tables import arguments, publish
from datagen.recipe import InHRecipe
from datagen.scenarios import inh, make_engine

BATCH = 250  # links at a time
METRICS = {  # of a link: name and unit
    "delay spread [ns]": 1e9,
    "ASD [°]": 180 / np.pi,
    "ASA [°]": 180 / np.pi,
    "ZSD [°]": 180 / np.pi,
    "ZSA [°]": 180 / np.pi,
    "K-factor [dB]": 1.0,
    "shadow fading [dB]": 1.0,
    "path loss [dB]": 1.0,
    "strongest cluster": 1.0,
    "clusters": 1.0,
    "power": 1.0,
    "line of sight": 1.0,
}
Links = dict[str, NDArray[np.float64]]  # metric -> its values, one a link


def metrics(rays: Any, lsp: Any, scenario: Any, path_loss_db: torch.Tensor, narrowband: torch.Tensor) -> Links:
    """The metrics of n links from rays in Sionna's form, [n, 1 BS, 1 UE, ...], and from responses at the carrier [n, antenna]."""
    from sionna.phy.channel.tr38901.metrics import angular_spreads_from_rays, delay_spread_from_rays

    spreads = angular_spreads_from_rays(rays, lsp, scenario)
    los = scenario.los.flatten()
    values = [
        delay_spread_from_rays(rays, lsp, scenario),
        *(spreads[name] for name in ("asd", "asa", "zsd", "zsa")),
        torch.where(los, 10 * torch.log10(lsp.k_factor.flatten()), torch.nan),
        10 * torch.log10(lsp.sf),
        path_loss_db,
        rays.powers.amax(-1),
        (rays.powers > 0).double().sum(-1),
        narrowband.abs().square().mean(-1),
        los.double(),
    ]
    return {name: scale * value.flatten().numpy() for (name, scale), value in zip(METRICS.items(), values, strict=True)}


def ours(recipe: InHRecipe, n: int) -> Links:
    """The first n links of the train split, by the closed-form engine."""
    engine = inh.ClosedForm(recipe, torch.device("cpu"))
    parts = []
    for start in range(0, n, BATCH):
        draws = engine.draw("train", range(start, min(start + BATCH, n)))
        link = inh.links(recipe, engine.table, draws)
        cluster = inh.clusters(engine.table, draws, link)
        order = cluster.delays.where(cluster.powers > 0, torch.inf).argsort(-1)
        which = link.los.long()

        def rays(row: int, draws=draws, link=link, cluster=cluster, order=order, which=which) -> torch.Tensor:  # type: ignore[no-untyped-def]
            centres = inh.angles(engine.table, draws, link, cluster, row).gather(1, order)
            return torch.deg2rad(
                centres[..., None] + engine.table.spread[which, row, None, None] * engine.table.offsets
            )[:, None, None]

        def of_link(value: torch.Tensor) -> torch.Tensor:
            return value[:, None, None]

        gains, _ = engine.paths(draws)
        parts.append(
            metrics(
                SimpleNamespace(
                    delays=of_link(cluster.delays.gather(1, order)), powers=of_link(cluster.powers.gather(1, order)),
                    aod=rays(inh.AOD), aoa=rays(inh.AOA), zod=rays(inh.ZOD), zoa=rays(inh.ZOA),
                ),
                SimpleNamespace(k_factor=of_link(link.k), sf=link.sf),
                SimpleNamespace(
                    los=of_link(link.los), get_param=lambda _, which=which: of_link(1e9 * engine.table.cluster_ds_s[which]),
                    los_aod=of_link(link.azimuth), los_aoa=of_link(link.azimuth + 180),
                    los_zod=of_link(link.zenith), los_zoa=of_link(180 - link.zenith),
                ),
                link.path_loss_db,
                gains.sum(1),
            )
        )  # fmt: skip
    return {name: np.concatenate([part[name] for part in parts]) for name in METRICS}


def sionnas(recipe: InHRecipe, n: int, seed: int = 1) -> Links:
    """As many links by Sionna's InH, with its own random numbers throughout."""
    from sionna.phy import config

    from datagen.scenarios.inh_sionna import Sionna

    config.seed = seed
    generator = torch.Generator().manual_seed(seed)
    engine = Sionna(recipe, torch.device("cpu"))
    parts = []
    for start in range(0, n, BATCH):
        uniform = torch.rand(min(BATCH, n - start), 1, 2, generator=generator, dtype=torch.float64)
        places = (uniform - 0.5) * uniform.new_tensor([recipe.room_length_m, recipe.room_width_m])
        model = engine.channel()
        engine.set_topology(model, places, {"los": True, "nlos": False}.get(recipe.line_of_sight, "random"))
        with torch.no_grad():
            h, _, rays = model(1, 1.0)
        narrowband = h[:, 0, 0, 0].sum((-2, -1))
        parts.append(metrics(rays, model._lsp, model._scenario, model._scenario.basic_pathloss, narrowband))
    return {name: np.concatenate([part[name] for part in parts]) for name in METRICS}


def distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Largest difference of two empirical distribution functions (Kolmogorov and Smirnov), NaN left out."""
    a, b = np.sort(a[np.isfinite(a)]), np.sort(b[np.isfinite(b)])
    at = np.concatenate([a, b])
    return float(np.abs(np.searchsorted(a, at, "right") / len(a) - np.searchsorted(b, at, "right") / len(b)).max())


def critical_distance(a: NDArray[np.float64], b: NDArray[np.float64], chance: float) -> float:
    """What :func:`distance` of two samples of one law exceeds with this chance, by sample size."""
    n, m = (np.isfinite(values).sum() for values in (a, b))
    return float(np.sqrt(-np.log(chance / 2) / 2 * (n + m) / (n * m)))


def markdown(results: dict[str, Any]) -> str:
    """The table of the README."""
    states = list(results["calibration"])
    lines = ["| median, ours / Sionna's | " + " | ".join(states) + " |", "|---|" + "---:|" * len(states)]
    for name in results["calibration"][states[0]]:
        cells = []
        for state in states:
            row = results["calibration"][state].get(name)
            cells.append(f"{row['ours']:.3g} / {row['sionna']:.3g}" if row else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    worst = max(row["distance"] / row["critical"] for rows in results["calibration"].values() for row in rows.values())
    lines += [
        "",
        f"{results['links']} links a column and side, 20 m × 20 m, 5.4 GHz; power and line of sight are means. The largest distance of two "
        f"distribution functions is {worst:.2f} of what two samples of one law exceed once in a thousand times.",
        "",
        "| one core | samples/s | times Sionna |",
        "|---|---:|---:|",
    ]
    for kind, row in results["speed"].items():
        for engine in ("sionna", "closed-form"):
            speed = f"{row[engine]:,.0f}".replace(",", " ")
            lines.append(f"| {kind}, `--engine {engine}` | {speed} | {row[engine] / row['sionna']:.1f} |")
    lines += [
        "",
        f"{results['machine']['processor']}, torch {results['machine']['torch']}, Sionna {results['machine']['sionna']}. "
        f"On the same random numbers the engines differ by {results['engines_differ_by']:.0e} relative.",
    ]
    return "\n".join(lines) + "\n"


def agreement(recipe: InHRecipe, samples: int = 64) -> float:
    """Relative error between both engines on the same random numbers."""
    closed_form, sionna = (make_engine(recipe, name) for name in ("closed-form", "sionna"))
    draws = closed_form.draw("train", range(samples))
    found, expected = closed_form(draws), sionna(draws)
    return max(
        float(torch.linalg.norm(found[name] - expected[name]) / torch.linalg.norm(expected[name])) for name in expected
    )


def main() -> None:
    parser = arguments(__file__, __doc__)
    parser.add_argument("--links", type=int, default=4000, help="links of each state and side")
    parser.add_argument("--seconds", type=float, default=5, help="measuring time of each speed")
    given = parser.parse_args()
    torch.set_num_threads(1)

    calibration: dict[str, Any] = {}
    for title, state in (("line of sight", "los"), ("no line of sight", "nlos"), ("open office", "drawn")):
        recipe = InHRecipe(line_of_sight=state, antennas=4)  # type: ignore[arg-type]
        found, expected = ours(recipe, given.links), sionnas(recipe, given.links)
        calibration[title] = {}
        for name in METRICS:
            a, b = found[name], expected[name]
            if np.isnan(a).all():
                continue
            centre = np.nanmean if name in ("power", "line of sight") else np.nanmedian
            calibration[title][name] = {
                "ours": float(centre(a)), "sionna": float(centre(b)),
                "distance": distance(a, b), "critical": critical_distance(a, b, 1e-3),
            }  # fmt: skip
    speed = {
        title: {name: rate(kernel(recipe, name, 256), given.seconds) for name in ("sionna", "closed-form")}
        for title, recipe in (("CSI", InHRecipe()), ("feedback channels", InHRecipe(uplink=True)))
    }
    error = max(agreement(recipe) for recipe in (InHRecipe(), InHRecipe(uplink=True)))
    results = {
        "links": given.links,
        "machine": machine(),
        "calibration": calibration,
        "speed": speed,
        "engines_differ_by": error,
    }
    publish(__file__, given, results, markdown(results))


if __name__ == "__main__":
    main()
