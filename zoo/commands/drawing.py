"""``zoo limits``, ``plot``: what no code beats, and pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from zoo.commands.options import JSON, PATH, QUIET, InOrder, Link, Numbers, Snr, StorePath
from zoo.errors import ZooError, unknown


@click.command()
@click.argument("store", type=StorePath())
@click.option(
    "--bits", type=click.IntRange(1), multiple=True, default=(32, 64, 128, 192, 256, 320), show_default=True,
    help="rate; as often as you like",
)  # fmt: skip
@click.option(
    "--components", type=click.IntRange(1), default=48, show_default=True, help="principal components of X and of Y that count"
)  # fmt: skip
@click.option(
    "--side-information-snr", "snr_db", type=Snr(), metavar="DB|none", default="30", show_default=True, help="of Y"
)  # fmt: skip
@click.option(
    "--simulate", is_flag=True, help="and the limit with known velocity (cdl) or known clusters and known paths (cost2100), by the store's recipe"
)  # fmt: skip
@click.option(
    "--cluster-samples", type=click.IntRange(2), default=60, show_default=True,
    help="test samples that the row with known clusters averages, a second each",
)  # fmt: skip
@click.option(
    "--redraws", type=click.IntRange(1), default=4000, show_default=True, help="drawings of the paths of each of them"
)
@click.option(
    "--link", "symbols", type=Link(), metavar="k=N", help="over a feedback link instead: N symbols a sample, at --snr"
)
@click.option(
    "--snr", "link_snr", type=Numbers(float), metavar="DB|START:STOP:STEP", default="-10:10:5", show_default=True,
    help="of one antenna of the link",
)  # fmt: skip
@click.option(
    "--channel", metavar="awgn|rayleigh|rician|STORE", default="rayleigh", show_default=True,
    help="of the link; a STORE as datagen inh --uplink makes them",
)  # fmt: skip
@click.option(
    "--code", "codes", metavar="MODEL", multiple=True, help="and a codec that was measured, beside the KLT codes; as often as you like"
)  # fmt: skip
@click.option("--out", type=PATH, help="write them to this file too, for zoo plot --limits")
@JSON
@QUIET
@click.pass_context
def limits(
    ctx: click.Context, store: str | Path, bits: tuple[int, ...], components: int, snr_db: float | None, simulate: bool,
    cluster_samples: int, redraws: int, symbols: int | None, link_snr: list[float], channel: str, codes: tuple[str, ...],
    out: Path | None, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Compute what no code can beat.

    Gaussian rate-distortion limits from the covariances of a STORE of datagen. Clusters known (cost2100, --simulate) is a genie's
    reference: a Gaussian code that is told each sample's clusters for nothing. With --link, those of separate source and channel coding:
    the Gaussian bound, KLT codes and each --code, at the capacity of the link.
    """
    from zoo import limits as gaussian
    from zoo.data import Simulated, Store
    from zoo.files import put, require_place

    of_clusters = ("cluster_samples", "redraws")
    of_links, of_bits = ("link_snr", "channel", "codes"), ("bits", "components", "snr_db", "simulate", *of_clusters)
    for parameter in ctx.command.params:
        if parameter.name in (of_links if symbols is None else of_bits) and _given(ctx, parameter):
            raise ZooError(f"{parameter.opts[0]} goes {'with' if symbols is None else 'without'} --link")
    redrawing = [
        parameter.opts[0]
        for parameter in ctx.command.params
        if parameter.name in of_clusters and _given(ctx, parameter)
    ]
    if redrawing and not simulate:
        raise ZooError(f"{redrawing[0]} goes with --simulate")
    if out is not None:
        require_place(out)
    opened = Store(store)
    if symbols is None:
        law = Simulated(opened.recipe, "cpu") if simulate else None
        maps = None if law is None else law.path_maps(gaussian.PATH_SAMPLES)
        redrawn = None
        if law is not None and (redrawing or maps is not None):
            redrawn = law.redrawn(cluster_samples, redraws, progress=not quiet)
        found = gaussian.from_store(
            opened, sorted(set(bits)), components=components, snr_db=snr_db, progress=not quiet,
            statistics=law.statistics() if law is not None and maps is None else None, maps=maps, redrawn=redrawn,
        )  # fmt: skip
        if redrawn is not None:
            found["genie"]["redraws"] = redraws
    else:
        from zoo import uplink

        measured = _results(codes, None, symbols=False) if codes else []
        found = gaussian.over_link(opened, uplink.named(channel), symbols, link_snr, codes=measured, progress=not quiet)
        found["link"]["channel"] = channel
    text = json.dumps(found, indent=1, allow_nan=False)
    if out is not None:
        put(out, text + "\n")
    if as_json:
        click.echo(text)
        return
    title, columns = ("NMSE in dB at bits", "bits") if symbols is None else ("NMSE in dB at SNR in dB", "snr_db")
    lines = [(title, [f"{value:g}" for value in found["rows"][0][columns]])]
    lines += [(row["name"], [f"{nmse:.2f}" for nmse in row["nmse_db"]]) for row in found["rows"]]
    lines += [
        (f"capacity, {row['name']}", [f"{bits:.1f}" for bits in row["bits"]]) for row in found.get("capacity", ())
    ]
    width = max(len(name) for name, _ in lines)
    for name, cells in lines:
        click.echo(f"{name:<{width}}" + "".join(f"{cell:>8}" for cell in cells))
    if "genie" in found and not quiet:
        click.echo(_genie(found["genie"]), err=True)


def _genie(of: dict[str, Any]) -> str:
    """What the row of a genie is, in words."""
    return (
        f"{of['name']}: a genie's reference, no bound on all codes; of {of['samples']} test samples, {of['redraws']} redraws each, standard "
        f"error up to {max(of['standard_error_db']):.2f} dB. No Gaussian code that is told a sample's clusters for nothing has a lower error; "
        "one that makes use of where the paths are may."
    )


def _given(ctx: click.Context, parameter: click.Parameter) -> bool:
    """Whether a parameter stands on the command line."""
    return ctx.get_parameter_source(parameter.name or "") is click.core.ParameterSource.COMMANDLINE


@click.group(cls=InOrder)
def plot() -> None:
    """Draw pictures of results."""


SCENARIO = click.option(
    "--scenario", help="draw the models of the package that are of this data set, e.g. cdl, where no MODEL is given"
)


@plot.command()
@click.argument("models", nargs=-1, metavar="[MODEL|RESULTS.json]...")
@SCENARIO
@click.option("--limits", "limits_file", type=PATH, metavar="FILE", help="Gaussian limits, as zoo limits writes them")
@click.option(
    "--snr", "snr_db", type=Snr(), metavar="DB|none", default="30", show_default=True, help="of the side information"
)
@click.option("--out", required=True, type=PATH, help="picture: .png, .svg or .pdf")
def rd(
    models: Sequence[str], scenario: str | None, limits_file: Path | None, snr_db: float | None, out: Path
) -> None:  # fmt: skip
    """Draw NMSE over bits.

    One line a family, of each MODEL or of all of a --scenario that come with the package, with the limits and the papers' points.
    """
    from zoo import plot as draw

    found = _results(models, scenario, symbols=False)
    draw.rd(found, out, None if limits_file is None else draw.read_limits(limits_file), snr_db)
    click.echo(f"wrote {out}", err=True)


@plot.command()
@click.argument("models", nargs=-1, metavar="[MODEL|RESULTS.json]...")
@SCENARIO
@click.option("--over", type=click.Choice(["snr", "k"]), default="snr", show_default=True, help="what the axis is of")
@click.option("--snr", "snr_db", type=Numbers(float), metavar="NUMBERS", help="of the link")
@click.option("--k", type=Numbers(int), metavar="NUMBERS", help="symbols a sample")
@click.option("--steps", type=Numbers(int, Numbers.AUTO), metavar="NUMBERS|auto", help="of refinement")
@click.option("--bits", type=Numbers(int, Numbers.NONE), metavar="NUMBERS|none", help="of quantised symbols")
@click.option("--cnr", "cnr_db", type=Numbers(float, Numbers.NONE), metavar="NUMBERS|none", help="of the UE's CSI")
@click.option(
    "--limits", "limits_files", type=PATH, multiple=True, metavar="FILE",
    help="separate coding, as zoo limits --link writes it; as often as you like",
)  # fmt: skip
@click.option("--published", is_flag=True, help="and the papers' points for the same data")
@click.option("--bler", is_flag=True, help="block error rates instead of NMSE")
@click.option("--out", required=True, type=PATH, help="picture: .png, .svg or .pdf")
def snr(
    models: Sequence[str], scenario: str | None, over: str, limits_files: Sequence[Path], published: bool, bler: bool, out: Path,
    **chosen: list[Any] | None,
) -> None:  # fmt: skip
    """Draw NMSE, or --bler, over the SNR of the link.

    For each MODEL that sends symbols, or all of a --scenario that come with the package: a curve for each combination of --k, --steps, --bits and --cnr that was
    measured, or is chosen here; numbers are written 8,16,32 or START:STOP:STEP. With --over k, over the symbols at each --snr.
    """
    from zoo import plot as draw

    found = _results(models, scenario, symbols=True)
    wanted = {column: values for column, values in chosen.items() if values is not None}
    bounds = [draw.read_limits(path, "snr_db") for path in limits_files]
    measure = "bler" if bler else "nmse_db"
    draw.snr(found, out, bounds, {"snr": "snr_db"}.get(over, over), wanted, published, measure)
    click.echo(f"wrote {out}", err=True)


def _results(models: Sequence[str], scenario: str | None, symbols: bool) -> list[dict[str, Any]]:
    """Of models that send symbols, or of those that send bits: these, or those of one data set that come with the package."""
    from zoo import results
    from zoo.locate import locate

    if models and scenario is not None:
        raise ZooError("--scenario goes without a MODEL")
    found = []
    for model in models or _shipped(scenario, symbols):
        read = results.read(Path(model) if Path(model).is_file() else locate(model)[0])
        if read is None:
            raise ZooError(f"{model} has no results; zoo eval makes them")
        if ("points" in read) != symbols:
            sort = "bits, not symbols" if symbols else "symbols, not bits"
            raise ZooError(f"{model} sends {sort}: there is no place for it here")
        found.append(read)
    return found


def _shipped(scenario: str | None, symbols: bool) -> list[str]:
    """Models of one data set that come with the package.

    :raises ZooError: there are several data sets and none is chosen, or none of this name
    """
    from zoo import registry

    by_scenario: dict[str, list[str]] = {}
    for name in registry.list_models():
        if name.endswith("b") != symbols:
            by_scenario.setdefault(registry.scenario_of(name), []).append(name)
    if scenario is None and len(by_scenario) > 1:
        raise ZooError(f"the package has models of different data; choose one: --scenario {'|'.join(by_scenario)}")
    if scenario is not None and scenario not in by_scenario:
        raise ZooError(unknown("scenario", scenario, by_scenario))
    return [name for one, names in by_scenario.items() if scenario in (None, one) for name in names]
