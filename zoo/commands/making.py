"""``zoo train``, ``eval``, ``release``, ``index``, ``publish``: from a recipe to a model that others load."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from zoo.commands.options import (
    DEVICE,
    EFFORT,
    JSON,
    MODEL,
    PATH,
    QUIET,
    SAMPLES,
    SPLIT,
    Numbers,
    Snr,
    StorePath,
    size_of,
    spaced,
)
from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.config import Recipe
    from zoo.data import Source


@click.command()
@click.argument("recipe")
@click.option("--rate", type=int, help="bits of a payload, in place of the recipe's")
@click.option("--lite", is_flag=True, help="the recipe's small size, for two CPU cores, where it has one")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="any value of the recipe, e.g. training.steps=1000"
)
@click.option("--data", type=StorePath(), metavar="STORE", help="store of datagen to train on")
@click.option(
    "--simulate",
    is_flag=True,
    help="train on samples simulated on the way, each used once, or on training.samples of them, kept",
)
@click.option(
    "--simulate-recipe", type=PATH, metavar="FILE", help="what to simulate (TOML)  [default: datagen's CDL set]"
)
@click.option(
    "--max-minutes",
    type=click.FloatRange(0, min_open=True),
    help="fit the training steps to this time; simulating and coding samples comes before",
)
@click.option("--resume", is_flag=True, help="go on with the run at --out")
@click.option("--out", type=PATH, help="directory of the run  [default: runs/FAMILY-DATASET-RATEb]")
@DEVICE
@JSON
@QUIET
def train(
    recipe: str, rate: int | None, lite: bool, settings: Sequence[str], data: str | Path | None, simulate: bool,
    simulate_recipe: Path | None, max_minutes: float | None, resume: bool, out: Path | None, device: str, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Train or fit the codec of a RECIPE.

    RECIPE is a name, whatever its hyphens and capitals (an unknown one lists the nearest), or the path of a TOML file. Under torchrun, several processes share the work.
    """
    if (data is None) == (not simulate):
        raise ZooError("give one of --data STORE and --simulate")
    if simulate_recipe is not None and not simulate:
        raise ZooError("--simulate-recipe goes with --simulate")
    if lite and recipe.endswith(".toml"):
        raise ZooError(f"--lite goes with a recipe's name, not with the file {recipe}")
    from zoo import config, registry
    from zoo.train import train as run_training

    changes = {} if rate is None else {"codec.rate": rate}
    chosen = config.load(f"{recipe}-lite" if lite else recipe, changes | dict(map(_setting, settings)))
    source = _source(chosen, data, simulate_recipe, device, not quiet)
    if out is None:
        label = registry.architecture(chosen.architecture).label(chosen.codec)
        name = registry.model_name(chosen.family, source.dataset.scenario, label)
        out = Path("runs") / name
    paths = run_training(chosen, source, out, device=device, resume=resume, max_minutes=max_minutes, progress=not quiet)
    if as_json and paths:
        click.echo(json.dumps({"run": str(out), "models": [str(path) for path in paths]}))
    elif not quiet:
        for path in paths:
            click.echo(f"{path}: {path.name}; measure it: zoo eval {path} --data STORE")


def _setting(text: str) -> tuple[str, Any]:
    """KEY=VALUE, the value as TOML writes it; what is no TOML is a string."""
    import tomllib

    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ZooError(f"--set {text!r} is not KEY=VALUE, e.g. training.steps=1000")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def _source(
    recipe: Recipe, data: str | Path | None, simulate_recipe: Path | None, device: str, progress: bool
) -> Source:
    from zoo.data import Cached, Kept, Simulated, Store
    from zoo.devices import local_device
    from zoo.models.base import Network
    from zoo.registry import architecture

    device, samples = local_device(device), recipe.training.samples
    if data is None:
        if samples is not None and issubclass(architecture(recipe.architecture), Network):
            return Kept(simulate_recipe, device, samples, recipe.training.seed, progress)
        return Simulated(simulate_recipe, device)
    return Cached(Store(data), device, recipe.training.samples, recipe.training.seed)


@click.command("eval")
@MODEL
@click.option("--data", required=True, type=StorePath(), metavar="STORE", help="store of datagen to measure on")
@SPLIT
@SAMPLES
@click.option(
    "--snr", "snr_db", type=Numbers(float, Numbers.NONE), metavar="DB", multiple=True,
    help="of the side information (none: as simulated)  [default: none,30]; of the link, where symbols are sent  [default: -10:10:5]",
)  # fmt: skip
@click.option("--k", "symbols", type=Numbers(int), metavar="K,...", help="symbols sent  [default: all that are served]")
@click.option(
    "--steps",
    type=Numbers(int, Numbers.AUTO),
    metavar="N,...|auto",
    help="of refinement; auto: as each sample is worth  [default: the fewest, the model's own, auto]",
)
@click.option(
    "--bits", type=Numbers(int, Numbers.NONE), metavar="B,...", help="of quantised symbols, a real dimension  [default: none]"
)  # fmt: skip
@click.option(
    "--cnr",
    "cnr_db",
    type=Numbers(float, Numbers.NONE),
    metavar="DB,...",
    help="of the phone's own CSI  [default: none]",
)
@click.option(
    "--channel", metavar="awgn|rayleigh|rician|STORE",
    help="of the link; a STORE as datagen inh --uplink makes them  [default: rayleigh]",
)  # fmt: skip
@click.option(
    "--domain", type=click.Choice(["angular-delay", "spatial-frequency"]), default="angular-delay", show_default=True,
    help="of the NMSE: over the crop alone, or over the whole band, for which the store must keep H",
)  # fmt: skip
@EFFORT
@click.option("--bler", is_flag=True, help="block error rate of a downlink precoded by what is decoded, too")
@click.option("--downlink-snr", "downlink_snr_db", type=Snr(none=False), metavar="DB", help="of --bler  [default: 5]")
@click.option("--out", type=PATH, help="file for the results  [default: results.json in the directory MODEL]")
@DEVICE
@JSON
@QUIET
def evaluate(
    model: str, data: str | Path, split: str, samples: int | None, snr_db: tuple[list[float | None], ...],
    symbols: list[int] | None, steps: list[int | Literal["auto"]] | None, bits: list[int | None] | None, cnr_db: list[float | None] | None,
    channel: str | None, domain: str, effort: int | None, bler: bool, downlink_snr_db: float | None, out: Path | None, device: str,
    as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Measure what a MODEL is worth.

    Of a codec: bits are counted from payload bytes, and the payloads are all that the decoder gets, besides Y. Reports NMSE,
    correlation and time. Of a model that sends symbols: NMSE, and with --bler the error rate of blocks of one QPSK symbol on each
    subcarrier, at each combination of --snr, --k, --steps, --bits and --cnr; numbers are written 8,16,32 or START:STOP:STEP.
    """
    if downlink_snr_db is not None and not bler:
        raise ZooError("--downlink-snr goes with --bler")
    from zoo import registry, results
    from zoo.data import Store
    from zoo.evaluate import SNRS
    from zoo.evaluate import evaluate as run_evaluation
    from zoo.evaluate_jscc import DOWNLINK_SNR_DB, SNRS_DB, evaluate_jscc
    from zoo.files import require_place
    from zoo.locate import locate
    from zoo.models.jscc import JSCC
    from zoo.registry import read_config

    place = out or results.home(model)
    if place is not None:
        require_place(place)
    config = read_config(locate(model)[0])
    levels = tuple(dict.fromkeys(level for group in snr_db for level in group))
    sweep = {"symbols": symbols, "steps": steps, "bits": bits, "cnr_db": cnr_db}
    given: dict[str, Any] = {name: tuple(dict.fromkeys(values)) for name, values in sweep.items() if values is not None}
    given |= {} if channel is None else {"channel": channel}
    if bler:
        given["downlink_snr_db"] = DOWNLINK_SNR_DB if downlink_snr_db is None else downlink_snr_db
    common: dict[str, Any] = {
        "domain": domain, "device": device, "progress": not quiet, "command": shlex.join(["zoo", *sys.argv[1:]])
    }  # fmt: skip
    if issubclass(registry.architecture(config["architecture"]), JSCC):
        decibels = [level for level in levels if level is not None]
        if len(decibels) < len(levels):
            raise ZooError("--snr none is for the side information of a codec; a link has an SNR")
        found = evaluate_jscc(
            model, Store(data), split, samples, snr_db=decibels or SNRS_DB, effort=effort, **given, **common
        )
    else:
        if given:
            first = next(iter(given))
            option = {"symbols": "k", "cnr_db": "cnr", "downlink_snr_db": "bler"}.get(first, first)
            raise ZooError(f"--{option} is for models that send symbols; {config['name']} sends payloads")
        found = run_evaluation(model, Store(data), split, samples, snr_db=levels or SNRS, effort=effort, **common)
    if place is not None:
        results.write(place, found)
    elif not quiet:
        click.echo(f"{model} is released, or not yours to write; --out FILE keeps these results", err=True)
    if as_json:
        click.echo(json.dumps(found, allow_nan=False))
        return
    where = f"{found['data']['samples']} {split} samples of {found['data']['name']}"
    if "points" not in found:
        click.echo(f"{found['model']}: {size_of(found)}, NMSE {results.summary(found)}; {where}")
        return
    click.echo(f"{found['model']}: NMSE {results.summary(found)}; {where}")
    blocks = "lost_share" in found["points"][0]
    click.echo("   k     SNR  steps  bits     CNR      NMSE" + "      BLER" * bler + "      lost" * blocks)
    for point in found["points"]:
        decibels_of = {
            name: "none" if point[name] is None else f"{point[name]:g}" for name in ("snr_db", "bits", "cnr_db")
        }
        click.echo(
            f"{point['k']:>4}  {decibels_of['snr_db']:>6}  {point['steps']:>5}  {decibels_of['bits']:>4}  {decibels_of['cnr_db']:>6}  {point['nmse_db']:>8.2f}"
            + (f"  {point['bler']:>8.2g}" if bler else "")
            + (f"  {point['lost_share']:>8.2g}" if blocks else "")
        )


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--data", required=True, type=StorePath(), metavar="STORE", help="store of datagen to measure on")
@click.option("--into", required=True, type=PATH, metavar="DIR", help="collection that they join")
@SAMPLES
@DEVICE
@JSON
@QUIET
def release(
    models: Sequence[str], data: str | Path, into: Path, samples: int | None, device: str, as_json: bool, quiet: bool
) -> None:
    """Put MODELs into a collection, small and measured.

    Weights are stored in half precision, or their large matrices in eight bits, where that costs less than 0.05 dB at every condition;
    results.json is of the very files that are shipped and has these losses, and the collection's index.json is of all files.
    """
    from zoo import release as releasing
    from zoo import results
    from zoo.data import Store

    found = releasing.release(models, Store(data), into, samples, device=device, progress=not quiet)
    if as_json:
        click.echo(json.dumps(found, allow_nan=False))
        return
    for result in found:
        size = f"{size_of(result)}, " if "bits" in result else ""
        click.echo(f"{into / result['model']}: {size}NMSE {results.summary(result)}")


@click.command()
@click.argument("directory", type=PATH)
@click.option(
    "--share", is_flag=True, help="first store once what models of a family hold alike, as releases do; drop what is unused"
)  # fmt: skip
def index(directory: Path, share: bool) -> None:
    """Write the index.json of a DIRECTORY of models.

    It holds the SHA-256 of every file; a model that was edited afterwards is refused.
    """
    from zoo import registry

    if not directory.is_dir():
        raise ZooError(f"there is no directory {directory}")
    if share:
        from zoo import parts

        parts.share(registry.models(directory))
    click.echo(f"{directory / registry.INDEX}: {len(registry.write_index(directory))} models")


@click.command()
@click.argument("family")
@click.option("--repo", required=True, metavar="ORG/NAME", help="repository on the Hub; made if there is none")
@click.option(
    "--from", "collection", type=PATH, metavar="COLLECTION", help="directory of models  [default: the package's]"
)
@click.option("--tag", metavar="TAG", help="of the commit, e.g. v1")
@click.option("--private", is_flag=True, help="make the repository as a private one")
@click.option("--manifests", type=PATH, metavar="DIR", help="where the record goes  [default: manifests/models]")
@click.option("--dry-run", is_flag=True, help="say what would go, and change nothing anywhere")
@JSON
def publish(
    family: str, repo: str, collection: Path | None, tag: str | None, private: bool, manifests: Path | None, dry_run: bool, as_json: bool
) -> None:  # fmt: skip
    """Publish a FAMILY of models on the Hugging Face Hub.

    \b
    zoo publish gd-csi-cdl --repo ORG/gd-csi-cdl --dry-run                 files, bytes and the model card
    zoo publish gd-csi-cdl --repo ORG/gd-csi-cdl --tag v1
    zoo publish rd-jscc-cdl --from runs/rd-jscc-cdl-k32/models --repo ORG/rd-jscc-cdl --private

    FAMILY is <family>-<dataset>: all models of one name but for the rate, a folder each. Each must replay its golden vectors (zoo check)
    and have results of its very weights (zoo eval). All goes up in one commit, is downloaded anew and compared; repository, commit and
    digests are then put on record, so that zoo.load finds the models by name. The same again changes nothing. The token is the one of
    hf auth login, or HF_TOKEN.
    """
    from zoo import publication, registry
    from zoo import publish as publishing

    drafted = publishing.draft(family, repo, collection or registry.WEIGHTS)
    family = drafted.family.family
    sizes = {path: record.bytes for path, record in drafted.records.items()}
    if dry_run:
        if as_json:
            click.echo(json.dumps({"family": family, "repo": repo, "files": sizes, "card": drafted.card}))
            return
        for path, size in sizes.items():
            click.echo(f"{spaced(size):>13}  {path}")
        click.echo(
            f"{spaced(sum(sizes.values())):>13}  bytes would go to {repo}, with this card:\n\n{drafted.card}", nl=False
        )
        return
    done = publishing.publish(drafted, repo, tag=tag, private=private, manifests=manifests or publication.PUBLISHED)
    made = done.publication
    if as_json:
        facts = {
            "repo": made.repo,
            "commit": made.commit,
            "tag": made.tag,
            "manifest": str(done.manifest),
            "changed": done.changed,
        }
        click.echo(json.dumps({"family": family, **facts}))
        return
    where = f"{made.repo}@{made.commit}" + (f", tag {made.tag}" if made.tag else "")
    count = len(made.family.models)
    told = (
        f"{count} model{'s' * (count != 1)}, {spaced(sum(sizes.values()))} bytes"
        if done.changed
        else "nothing new to publish"
    )
    click.echo(f"{where}: {told}; downloaded anew and verified; on record in {done.manifest}")
