"""The ``zoo`` command. Nothing heavy is imported before a command runs; results go to stdout, the talk to stderr."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn

import click

from zoo.errors import CheckError, Interrupted, ZooError

if TYPE_CHECKING:
    from zoo.config import Recipe
    from zoo.data import Source
    from zoo.metrics import Complex
    from zoo.models.base import Codec


class _InOrder(click.Group):
    """Lists its commands as they stand in this file."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="csi-feedback-zoo", prog_name="zoo")
def cli() -> None:
    """Codecs for CSI feedback: real payload bytes, trained, measured and loaded by name.

    \b
    zoo list                                            the models that come with the package
    zoo compress csinet-cdl-132b x.npy x.payloads       what the phone sends
    zoo decompress x.payloads z.npy --side-information y.npy
    zoo train gd-csi --rate 128 --data store.zarr       on a store of datagen, or --simulate
    zoo eval runs/gd-csi-cdl-128b/models/gd-csi-cdl-128b --data store.zarr
    zoo eval rd-jscc-lite-cdl-k32 --data store.zarr --snr -10:10:5 --k 8,16,32 --steps 0,1,2
    zoo pull gd-csi-cost2100-128b                       from the Hugging Face Hub, for later; zoo list --remote

    MODEL is a name (zoo list --remote), the directory of a model, or hf:org/repo[/folder][@revision].
    """


class _Snr(click.ParamType[Any, Any]):
    """An SNR in dB, or the word none, for Y as simulated, where that is allowed."""

    name = "snr"

    def __init__(self, none: bool = True) -> None:
        self.none = none

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        import math

        try:
            snr = None if self.none and value == "none" else float(value)
        except ValueError:
            snr = math.nan
        if snr is not None and not math.isfinite(snr):
            self.fail(f"{value!r} is no SNR in dB" + (", nor 'none'" if self.none else ""), param, ctx)
        return snr


class _Numbers(click.ParamType[Any, Any]):
    """Numbers as 8,16,32 or START:STOP:STEP with both ends, or a word where one is allowed.

    :param kind: int or float
    :param words: and what they stand for
    """

    name = "numbers"
    NONE: ClassVar[dict[str, Any]] = {"none": None}
    AUTO: ClassVar[dict[str, Any]] = {"auto": "auto"}

    def __init__(self, kind: type[int] | type[float], words: Mapping[str, Any] | None = None) -> None:
        self.kind, self.words = kind, words or {}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        parts = str(value).split(",")
        return [number for part in parts for number in self._of(part, param, ctx)]

    def _of(self, part: str, param: click.Parameter | None, ctx: click.Context | None) -> list[Any]:
        import math

        if part in self.words:
            return [self.words[part]]
        try:
            start, *rest = map(self.kind, part.split(":"))
            stop, step = rest or (start, 1)
            steps = (stop - start) / step
        except (ValueError, ZeroDivisionError):
            start, stop, step, steps = 0, 0, 0, math.nan
        if not 0 <= steps <= 1000 or max(abs(start), abs(stop)) > 1000:
            word = "".join(f", nor {word!r}" for word in self.words)
            self.fail(f"{part!r} is neither a number nor START:STOP:STEP, such as -10:10:5{word}", param, ctx)
        return [start + number * step for number in range(math.floor(steps + 1e-9) + 1)]


class _Link(click.ParamType[Any, Any]):
    """k=N."""

    name = "link"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        key, _, number = str(value).partition("=")
        if key != "k" or not number.isdecimal() or int(number) < 1:
            self.fail(f"{value!r} is no number of symbols; give k=16, say", param, ctx)
        return int(number)


class _StorePath(click.ParamType[Any, Any]):
    """A path, or a URL as it stands."""

    name = "PATH|URL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if "://" in str(value) else Path(value)


_PATH = click.Path(path_type=Path)
_MODEL = click.argument("model")
_JSON = click.option("--json", "as_json", is_flag=True, help="print the result as JSON")
_QUIET = click.option("--quiet", is_flag=True, help="no progress bar, no closing words")
_DEVICE = click.option("--device", default="cpu", show_default=True, metavar="cpu|cuda", help="device that computes")
_SPLIT = click.option("--split", default="test", show_default=True, help="of a store")
_SAMPLES = click.option("--samples", type=click.IntRange(1), help="the first so many  [default: all]")


# making models ---------------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("recipe")
@click.option("--rate", type=int, help="bits of a payload, in place of the recipe's")
@click.option("--lite", is_flag=True, help="the recipe's small size, for two CPU cores")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="any value of the recipe, e.g. training.steps=1000"
)
@click.option("--data", type=_StorePath(), metavar="STORE", help="store of datagen to train on")
@click.option("--simulate", is_flag=True, help="train on triples simulated on the way, each used once")
@click.option(
    "--simulate-recipe", type=_PATH, metavar="FILE", help="what to simulate (TOML)  [default: datagen's CDL set]"
)
@click.option("--max-minutes", type=click.FloatRange(0, min_open=True), help="fit the run to this time")
@click.option("--resume", is_flag=True, help="go on with the run at --out")
@click.option("--out", type=_PATH, help="directory of the run  [default: runs/FAMILY-DATASET-RATEb]")
@_DEVICE
@_JSON
@_QUIET
def train(
    recipe: str, rate: int | None, lite: bool, settings: Sequence[str], data: str | Path | None, simulate: bool,
    simulate_recipe: Path | None, max_minutes: float | None, resume: bool, out: Path | None, device: str, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Train or fit the codec of a RECIPE.

    RECIPE is a name (an unknown one lists the nearest) or the path of a TOML file. Under torchrun, several processes share the work.
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
    source = _source(chosen, data, simulate_recipe, device)
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


def _source(recipe: Recipe, data: str | Path | None, simulate_recipe: Path | None, device: str) -> Source:
    from zoo.data import Cached, Simulated, Store
    from zoo.devices import local_device

    device = local_device(device)
    if data is None:
        return Simulated(simulate_recipe, device)
    return Cached(Store(data), device, recipe.training.samples, recipe.training.seed)


@cli.command("eval")
@_MODEL
@click.option("--data", required=True, type=_StorePath(), metavar="STORE", help="store of datagen to measure on")
@_SPLIT
@_SAMPLES
@click.option(
    "--snr", "snr_db", type=_Numbers(float, _Numbers.NONE), metavar="DB", multiple=True,
    help="of the side information (none: as simulated)  [default: none,30]; of the link, where symbols are sent  [default: -10:10:5]",
)  # fmt: skip
@click.option(
    "--k", "symbols", type=_Numbers(int), metavar="K,...", help="symbols sent  [default: all that are served]"
)
@click.option(
    "--steps",
    type=_Numbers(int, _Numbers.AUTO),
    metavar="N,...|auto",
    help="of refinement; auto: as each sample is worth  [default: the fewest, the model's own, auto]",
)
@click.option(
    "--bits", type=_Numbers(int, _Numbers.NONE), metavar="B,...", help="of quantised symbols, a real dimension  [default: none]"
)  # fmt: skip
@click.option(
    "--cnr",
    "cnr_db",
    type=_Numbers(float, _Numbers.NONE),
    metavar="DB,...",
    help="of the phone's own CSI  [default: none]",
)
@click.option(
    "--channel", metavar="awgn|rayleigh|rician|STORE",
    help="of the link; a STORE as datagen inh --uplink makes them  [default: rayleigh]",
)  # fmt: skip
@click.option("--bler", is_flag=True, help="block error rate of a downlink precoded by what is decoded, too")
@click.option("--downlink-snr", "downlink_snr_db", type=_Snr(none=False), metavar="DB", help="of --bler  [default: 5]")
@click.option("--out", type=_PATH, help="file for the results  [default: results.json in the directory MODEL]")
@_DEVICE
@_JSON
@_QUIET
def evaluate(
    model: str, data: str | Path, split: str, samples: int | None, snr_db: tuple[list[float | None], ...],
    symbols: list[int] | None, steps: list[int | Literal["auto"]] | None, bits: list[int | None] | None, cnr_db: list[float | None] | None,
    channel: str | None, bler: bool, downlink_snr_db: float | None, out: Path | None, device: str, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Measure what a MODEL is worth.

    Of a codec: bits are counted from payload bytes, and the payloads are all that the decoder gets, besides Y. Reports NMSE,
    correlation and time. Of a model that sends symbols: NMSE, and with --bler the error rate of blocks of one QPSK symbol on each
    subcarrier, at each combination of --snr, --k, --steps, --bits and --cnr; numbers are written 8,16,32 or START:STOP:STEP.
    """
    if downlink_snr_db is not None and not bler:
        raise ZooError("--downlink-snr goes with --bler")
    from zoo import registry, results
    from zoo.checkpoint import read_config
    from zoo.data import Store
    from zoo.evaluate import SNRS
    from zoo.evaluate import evaluate as run_evaluation
    from zoo.evaluate_jscc import DOWNLINK_SNR_DB, SNRS_DB, evaluate_jscc
    from zoo.files import require_place
    from zoo.models.jscc import JSCC

    place = out or results.home(model)
    if place is not None:
        require_place(place)
    config = read_config(registry.locate(model)[0])
    levels = tuple(dict.fromkeys(level for group in snr_db for level in group))
    sweep = {"symbols": symbols, "steps": steps, "bits": bits, "cnr_db": cnr_db}
    given: dict[str, Any] = {name: tuple(dict.fromkeys(values)) for name, values in sweep.items() if values is not None}
    given |= {} if channel is None else {"channel": channel}
    if bler:
        given["downlink_snr_db"] = DOWNLINK_SNR_DB if downlink_snr_db is None else downlink_snr_db
    common: dict[str, Any] = {"device": device, "progress": not quiet, "command": shlex.join(["zoo", *sys.argv[1:]])}
    if issubclass(registry.architecture(config["architecture"]), JSCC):
        decibels = [level for level in levels if level is not None]
        if len(decibels) < len(levels):
            raise ZooError("--snr none is for the side information of a codec; a link has an SNR")
        found = evaluate_jscc(model, Store(data), split, samples, snr_db=decibels or SNRS_DB, **given, **common)
    else:
        if given:
            first = next(iter(given))
            option = {"symbols": "k", "cnr_db": "cnr", "downlink_snr_db": "bler"}.get(first, first)
            raise ZooError(f"--{option} is for models that send symbols; {config['name']} sends payloads")
        found = run_evaluation(model, Store(data), split, samples, snr_db=levels or SNRS, **common)
    if place is not None:
        results.write(place, found)
    elif not quiet:
        click.echo(f"{model} is released, or not yours to write; --out FILE keeps these results", err=True)
    if as_json:
        click.echo(json.dumps(found, allow_nan=False))
        return
    where = f"{found['data']['samples']} {split} samples of {found['data']['name']}"
    if "points" not in found:
        click.echo(f"{found['model']}: {_size(found)}, NMSE {results.summary(found)}; {where}")
        return
    click.echo(f"{found['model']}: NMSE {results.summary(found)}; {where}")
    click.echo("   k     SNR  steps  bits     CNR      NMSE" + "      BLER" * bler)
    for point in found["points"]:
        decibels_of = {
            name: "none" if point[name] is None else f"{point[name]:g}" for name in ("snr_db", "bits", "cnr_db")
        }
        click.echo(
            f"{point['k']:>4}  {decibels_of['snr_db']:>6}  {point['steps']:>5}  {decibels_of['bits']:>4}  {decibels_of['cnr_db']:>6}  {point['nmse_db']:>8.2f}"
            + (f"  {point['bler']:>8.2g}" if bler else "")
        )


@cli.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--data", required=True, type=_StorePath(), metavar="STORE", help="store of datagen to measure on")
@click.option("--into", required=True, type=_PATH, metavar="DIR", help="collection that they join")
@_SAMPLES
@_DEVICE
@_JSON
@_QUIET
def release(
    models: Sequence[str], data: str | Path, into: Path, samples: int | None, device: str, as_json: bool, quiet: bool
) -> None:
    """Put MODELs into a collection, small and measured.

    Weights are stored in half precision where that costs next to nothing; results.json is of the very files that are shipped, and
    the collection's index.json of all of them.
    """
    from zoo import release as releasing
    from zoo import results
    from zoo.data import Store

    found = releasing.release(models, Store(data), into, samples, device=device, progress=not quiet)
    if as_json:
        click.echo(json.dumps(found, allow_nan=False))
        return
    for result in found:
        size = f"{_size(result)}, " if "bits" in result else ""
        click.echo(f"{into / result['model']}: {size}NMSE {results.summary(result)}")


@cli.command()
@click.argument("directory", type=_PATH)
def index(directory: Path) -> None:
    """Write the index.json of a DIRECTORY of models.

    It holds the SHA-256 of every file; a model that was edited afterwards is refused.
    """
    from zoo import registry

    if not directory.is_dir():
        raise ZooError(f"there is no directory {directory}")
    click.echo(f"{directory / registry.INDEX}: {len(registry.write_index(directory))} models")


@cli.command()
@click.argument("family")
@click.option("--repo", required=True, metavar="ORG/NAME", help="repository on the Hub; made if there is none")
@click.option(
    "--from", "collection", type=_PATH, metavar="COLLECTION", help="directory of models  [default: the package's]"
)
@click.option("--tag", metavar="TAG", help="of the commit, e.g. v1")
@click.option("--private", is_flag=True, help="make the repository as a private one")
@click.option("--manifests", type=_PATH, metavar="DIR", help="where the record goes  [default: manifests/models]")
@click.option("--dry-run", is_flag=True, help="say what would go, and change nothing anywhere")
@_JSON
def publish(
    family: str, repo: str, collection: Path | None, tag: str | None, private: bool, manifests: Path | None, dry_run: bool, as_json: bool
) -> None:  # fmt: skip
    """Publish a FAMILY of models on the Hugging Face Hub.

    \b
    zoo publish gd-csi-lite-cdl --repo ORG/gd-csi-lite-cdl --dry-run      files, bytes and the model card
    zoo publish gd-csi-lite-cdl --repo ORG/gd-csi-lite-cdl --tag v1
    zoo publish rd-jscc-cdl --from runs/rd-jscc-cdl-k32/models --repo ORG/rd-jscc-cdl --private

    FAMILY is <family>-<dataset>: all models of one name but for the rate, a folder each. Each must replay its golden vectors (zoo check)
    and have results of its very weights (zoo eval). All goes up in one commit, is downloaded anew and compared; repository, commit and
    digests are then put on record, so that zoo.load finds the models by name. The same again changes nothing. The token is the one of
    hf auth login, or HF_TOKEN.
    """
    from zoo import publication, registry
    from zoo import publish as publishing

    drafted = publishing.draft(family, repo, collection or registry.WEIGHTS)
    sizes = {path: record.bytes for path, record in drafted.records.items()}
    if dry_run:
        if as_json:
            click.echo(json.dumps({"family": family, "repo": repo, "files": sizes, "card": drafted.card}))
            return
        for path, size in sizes.items():
            click.echo(f"{_spaced(size):>13}  {path}")
        click.echo(
            f"{_spaced(sum(sizes.values())):>13}  bytes would go to {repo}, with this card:\n\n{drafted.card}", nl=False
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
        f"{count} model{'s' * (count != 1)}, {_spaced(sum(sizes.values()))} bytes"
        if done.changed
        else "nothing new to publish"
    )
    click.echo(f"{where}: {told}; downloaded anew and verified; on record in {done.manifest}")


# looking at models -----------------------------------------------------------------------------------------------------------


@cli.command("list")
@click.argument("pattern", default="*")
@click.option("--remote", is_flag=True, help="and those of the Hub, with where each is; asks nobody")
@_JSON
def list_(pattern: str, remote: bool, as_json: bool) -> None:
    """List the models that come with the package.

    \b
    zoo list 'gd-csi-*'
    zoo list --remote        with the models of the Hub: embedded, cached, repository@commit

    PATTERN is a shell pattern.
    """
    from zoo import registry, results

    rows: list[dict[str, Any]] = []
    for name in registry.list_models(pattern):
        found = results.read(registry.WEIGHTS / name) or {}
        measured = "side_information" if name.endswith("b") else "points"
        facts = {key: found.get(key) for key in ("parameters", measured)}
        rows.append({"model": name, **_rate(name), **facts})
    if remote:
        rows = _with_remote(rows, pattern)
    if as_json:
        click.echo(json.dumps(rows))
        return
    lines = [("model", "rate", "parameters", *(("where",) if remote else ()), "NMSE")]
    for row in rows:
        rate = f"{row['bits']} bits" if "bits" in row else f"{row['symbols']} symbols"
        size = "" if row["parameters"] is None else _spaced(row["parameters"])
        nmse = row.get("nmse") or (results.summary(row) if size else "")
        lines.append((row["model"], rate, size, *((_where(row),) if remote else ()), nmse))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = zip(line, "<>><<", widths, strict=False)
        click.echo("  ".join(f"{cell:{side}{width}}" for cell, side, width in cells).rstrip())


@cli.command()
@click.argument("models", nargs=-1, required=True, metavar="NAME...")
@click.option("--revision", help="branch, tag or commit, in place of the one on record")
@click.option("--cache-dir", type=_PATH, help="in place of the client's own cache")
@_JSON
def pull(models: Sequence[str], revision: str | None, cache_dir: Path | None, as_json: bool) -> None:
    """Fetch models from the Hub, for later and offline.

    \b
    zoo pull gd-csi-cost2100-128b
    zoo pull hf:ORG/gd-csi-cdl/128b@v1 --cache-dir /shared/hub

    NAME is one of zoo list --remote, or hf:org/repo[/folder][@revision]. Every file is checked against the SHA-256 on record; a damaged one
    in the cache is fetched again.
    """
    from zoo import hub, registry
    from zoo.publication import published

    source, known = registry.Source(revision, cache_dir), published()
    rows = []
    for model in models:
        if not model.startswith("hf:") and model not in known:
            if model in registry.list_models():
                raise ZooError(f"{model} comes with the package: there is nothing to pull")
            raise ZooError(registry.unknown_model(model, known))
        path, digests = (
            hub.fetch(model, source) if model.startswith("hf:") else hub.fetch_published(model, known[model], source)
        )
        size = sum((path / file).stat().st_size for file in registry.FILES)
        rows.append({"model": model, "path": str(path), "bytes": size, "files": digests})
        if not as_json:
            click.echo(
                f"{model}: {_spaced(size)} bytes, {'verified' if digests else 'no manifest to verify them by'}; {path}"
            )
    if as_json:
        click.echo(json.dumps(rows))


@cli.command()
@_MODEL
@_JSON
def info(model: str, as_json: bool) -> None:
    """Show a MODEL's codec, origin and results."""
    from zoo import registry, results
    from zoo.checkpoint import read_config

    path, _ = registry.locate(model)
    facts = {"path": str(path), **read_config(path), "results": results.read(path)}
    if as_json:
        click.echo(json.dumps(facts))
        return
    for key, value in facts.items():
        click.echo(f"{key:<16}  {value if isinstance(value, str) else json.dumps(value)}")


@cli.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@_DEVICE
@_JSON
def check(models: Sequence[str], device: str, as_json: bool) -> None:
    """Check each MODEL, or all of the package.

    Every file against its SHA-256, every weight against the config, the golden vectors by replaying them.
    """
    from zoo import registry
    from zoo.checkpoint import check as replay
    from zoo.checkpoint import load_model

    rows: list[dict[str, Any]] = []
    for model, (path, digests) in [(model, registry.locate(model)) for model in models or registry.list_models()]:
        row: dict[str, Any] = {"model": model, "ok": True, "relative_error": None, "problem": None}
        try:
            row["relative_error"] = replay(path, load_model(path, digests, device=device))
        except ZooError as error:
            row |= {"ok": False, "problem": str(error)}
        rows.append(row)
        if not as_json:
            told = (
                f"golden vectors replayed, relative error {row['relative_error']:.1e}" if row["ok"] else row["problem"]
            )
            click.echo(f"{'ok ' if row['ok'] else 'bad'}  {model}: {told}")
    if as_json:
        click.echo(json.dumps(rows))
    bad = sum(not row["ok"] for row in rows)
    if bad:
        raise CheckError(f"{bad} of {len(rows)} models are not what their records say")


@cli.command()
@_MODEL
@click.option("--batch", type=click.IntRange(1), default=256, show_default=True, help="samples a call")
@_DEVICE
@_JSON
def bench(model: str, batch: int, device: str, as_json: bool) -> None:
    """Measure what a MODEL costs.

    Parameters, multiply-accumulates and bytes of weights, samples a second; of a decoder that refines, at 0, 2, 20 and its own choice of
    steps.
    """
    from zoo.bench import bench as run_bench
    from zoo.checkpoint import load_model
    from zoo.registry import locate

    facts = {"model": model, **run_bench(load_model(*locate(model), device=device), batch)}
    if as_json:
        click.echo(json.dumps(facts))
        return
    size = _size(facts) if "bits" in facts else f"{max(facts['symbols'])} symbols"
    click.echo(f"{model}: {size}, {_spaced(facts['parameters'])} parameters, {facts['weights_bytes'] / 1e6:.2f} MB")
    parts = _parts(facts)
    width = max(len(name) for name, _ in parts)
    for name, part in parts:
        share = f"  {_spaced(part['parameters']):>12} parameters" if "parameters" in part else ""
        click.echo(
            f"{name:<{width}}  {part['macs'] / 1e6:10.2f} M MACs a sample  {part['samples_per_second']:10.0f} samples/s{share}"
        )
    click.echo(f"{facts['device']}, {facts['threads']} threads, batches of {batch}, torch {facts['torch']}", err=True)


def _parts(facts: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What :func:`zoo.bench.bench` found, by the part of the model."""
    if "bits" in facts:
        return [
            (side, {name: facts[f"{side}_{name}"] for name in ("macs", "samples_per_second")})
            for side in ("compress", "decompress")
        ]
    decoders = [(f"decode, {part['steps']} steps" if part["steps"] else "decode", part) for part in facts["decoders"]]
    return [("encode", facts["encoder"]), *decoders]


def _rate(name: str) -> dict[str, int]:
    from zoo import registry

    return {"bits" if name.endswith("b") else "symbols": registry.rate_of(name)}


def _with_remote(rows: list[dict[str, Any]], pattern: str) -> list[dict[str, Any]]:
    """Models of the package and of the Hub, by name, with where each is."""
    import fnmatch

    from zoo import hub, registry
    from zoo.publication import published

    nowhere = {"cached": False, "repo": None, "commit": None}
    found = {row["model"]: {**row, "embedded": True, **nowhere} for row in rows}
    for name, publication in published().items():
        if fnmatch.fnmatch(name, pattern):
            record = publication.family.models[name]
            facts = {"parameters": record.parameters, "nmse": record.nmse, "embedded": False}
            place = {"cached": hub.is_cached(publication, name), "repo": publication.repo, "commit": publication.commit}
            found[name] = {"model": name, **_rate(name), **facts, **found.get(name, {}), **place}
    return sorted(found.values(), key=lambda row: (row["model"].rpartition("-")[0], registry.rate_of(row["model"])))


def _where(row: dict[str, Any]) -> str:
    remote = f"{row['repo']}@{row['commit'][:8]}" if row["repo"] else ""
    return ", ".join(filter(None, ["embedded" * row["embedded"], "cached" * row["cached"], remote]))


def _spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _size(facts: dict[str, Any]) -> str:
    return f"{facts['bits']} bits ({facts['payload_bytes']} bytes)"


# using models ----------------------------------------------------------------------------------------------------------------


@cli.command()
@_MODEL
@click.argument("source", metavar="IN", type=_StorePath())
@click.argument("out", type=_PATH)
@_SPLIT
@_SAMPLES
@_DEVICE
@_JSON
@_QUIET
def compress(
    model: str, source: str | Path, out: Path, split: str, samples: int | None, device: str, as_json: bool, quiet: bool
) -> None:
    """Write the payloads that a phone would send.

    X is taken from IN, a store or a .npy file with complex [n, angle, delay]; the payloads go to the file OUT.
    """
    from zoo import payloads, registry
    from zoo.checkpoint import load_codec, read_config
    from zoo.files import require_place

    require_place(out)
    path, digests = registry.locate(model)
    config = read_config(path)
    codec = load_codec(path, digests, device=device)
    sent: list[bytes] = []
    for x in _progress(_pieces(source, "x", split, samples), quiet):
        sent.extend(codec.compress(x))
    header = payloads.Header(
        model=config["name"], weights_sha256=config["weights_sha256"], bits=codec.bits, payload_bytes=codec.payload_bytes, count=len(sent)
    )  # fmt: skip
    payloads.write(out, header, sent)
    if as_json:
        click.echo(json.dumps({"path": str(out), **header.model_dump()}))
    elif not quiet:
        click.echo(f"{out}: {len(sent)} payloads of {_size(header.model_dump())}, {header.model}")


@cli.command()
@click.argument("files", nargs=-1, type=_PATH, metavar="[MODEL] PAYLOADS OUT.npy")
@click.option(
    "--side-information", type=_StorePath(), metavar="Y.npy|STORE", help="uplink CSI Y, a sample for each payload"
)
@_SPLIT
@_DEVICE
@_JSON
@_QUIET
def decompress(
    files: Sequence[Path], side_information: str | Path | None, split: str, device: str, as_json: bool, quiet: bool
) -> None:
    """Reconstruct CSI from payloads.

    OUT.npy gets complex64 [n, angle, delay] from a file of PAYLOADS that zoo compress wrote. MODEL may be left out
    where the payloads' own model comes with the package, or is on the Hub.
    """
    if len(files) not in (2, 3):
        raise ZooError("zoo decompress takes [MODEL] PAYLOADS OUT.npy")
    import numpy as np

    from zoo import payloads, registry
    from zoo.checkpoint import load_codec, read_config
    from zoo.files import require_place, whole
    from zoo.publication import published

    *given, source, out = files
    require_place(out)
    header, received = payloads.read(source)
    model = str(given[0]) if given else header.model
    if not given and model not in registry.list_models() and model not in published():
        raise ZooError(
            f"{source} is of {model}, which does not come with this package, nor is it published: zoo decompress MODEL {source} {out}"
        )
    path, digests = registry.locate(model)
    config = read_config(path)
    payloads.require_model(source, header, config)
    codec = load_codec(path, digests, device=device)
    if codec.config.side_information and side_information is None:
        raise ZooError(f"{header.model} decodes with side information: give --side-information Y.npy, or a store")
    shape = (header.count, codec.config.angles, codec.config.delays)
    with whole(out) as draft, draft.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<c8", "fortran_order": False, "shape": shape})
        for z in _progress(_decoded(codec, received, side_information, split), quiet):
            file.write(z.astype("<c8").tobytes())
    if as_json:
        click.echo(json.dumps({"path": str(out), "model": header.model, "shape": shape}))
    elif not quiet:
        click.echo(f"{out}: complex64 [{shape[0]}, {shape[1]} angles, {shape[2]} delays] by {header.model}")


def _is_store(source: str | Path) -> bool:
    return isinstance(source, str) or source.is_dir()


def _pieces(source: str | Path, array: str, split: str, samples: int | None) -> Iterator[Complex]:
    """X or Y of a store or a .npy file, some thousand samples at a time."""
    from zoo.data import READ, Store, read_samples

    if _is_store(source):
        for batch in Store(source).batches(split, samples):
            piece = getattr(batch, array)
            if piece is None:
                raise ZooError(f"{source} has no side information Y")
            yield piece.numpy()
        return
    held = read_samples(source, array.upper())
    count = len(held) if samples is None else samples
    if count > len(held):
        raise ZooError(f"{source} holds {len(held)} samples; {count} are asked for")
    for start in range(0, count, READ):
        yield held[start : min(start + READ, count)]


def _decoded(
    codec: Codec[Any], received: list[bytes], side_information: str | Path | None, split: str
) -> Iterator[Complex]:
    from zoo.data import READ

    if side_information is None:
        for start in range(0, len(received), READ):
            yield codec.decompress(received[start : start + READ])
        return
    start = 0
    for y in _pieces(side_information, "y", split, len(received) if _is_store(side_information) else None):
        yield codec.decompress(received[start : start + len(y)], y)  # refuses more samples than payloads
        start += len(y)
    if start < len(received):
        raise ZooError(f"{side_information} holds {start} samples for {len(received)} payloads; give one for each")


def _progress(pieces: Iterable[Complex], quiet: bool) -> Iterator[Complex]:
    """Count samples on stderr, if it takes longer than a few seconds."""
    from tqdm import tqdm

    with tqdm(unit="sample", disable=quiet, delay=3) as bar:
        for piece in pieces:
            yield piece
            bar.update(len(piece))


# limits and pictures ---------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("store", type=_StorePath())
@click.option(
    "--bits", type=click.IntRange(1), multiple=True, default=(32, 64, 128, 192, 256, 320), show_default=True,
    help="rate; as often as you like",
)  # fmt: skip
@click.option(
    "--components", type=click.IntRange(1), default=48, show_default=True, help="principal components of X and of Y that count"
)  # fmt: skip
@click.option(
    "--side-information-snr", "snr_db", type=_Snr(), metavar="DB|none", default="30", show_default=True, help="of Y"
)  # fmt: skip
@click.option("--simulate", is_flag=True, help="and the limit with known velocity, by the law of the store's recipe")
@click.option(
    "--link", "symbols", type=_Link(), metavar="k=N", help="over a feedback link instead: N symbols a sample, at --snr"
)
@click.option(
    "--snr", "link_snr", type=_Numbers(float), metavar="DB|START:STOP:STEP", default="-10:10:5", show_default=True,
    help="of one antenna of the link",
)  # fmt: skip
@click.option(
    "--channel", metavar="awgn|rayleigh|rician|STORE", default="rayleigh", show_default=True,
    help="of the link; a STORE as datagen inh --uplink makes them",
)  # fmt: skip
@click.option("--out", type=_PATH, help="write them to this file too, for zoo plot --limits")
@_JSON
@_QUIET
@click.pass_context
def limits(
    ctx: click.Context, store: str | Path, bits: tuple[int, ...], components: int, snr_db: float | None, simulate: bool,
    symbols: int | None, link_snr: list[float], channel: str, out: Path | None, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Compute what no code can beat.

    Gaussian rate-distortion limits from the covariances of a STORE of datagen. With --link, those of separate source and channel coding:
    the Gaussian bound, and KLT codes, at the capacity of the link.
    """
    from zoo import limits as gaussian
    from zoo.data import Simulated, Store
    from zoo.files import put, require_place

    of_links, of_bits = ("link_snr", "channel"), ("bits", "components", "snr_db", "simulate")
    for parameter in ctx.command.params:
        if parameter.name in (of_links if symbols is None else of_bits) and _given(ctx, parameter):
            raise ZooError(f"{parameter.opts[0]} goes {'with' if symbols is None else 'without'} --link")
    if out is not None:
        require_place(out)
    opened = Store(store)
    if symbols is None:
        law = Simulated(opened.recipe, "cpu").statistics() if simulate else None
        found = gaussian.from_store(
            opened, sorted(set(bits)), components=components, snr_db=snr_db, progress=not quiet,
            statistics=law,
        )  # fmt: skip
    else:
        from zoo import uplink

        found = gaussian.over_link(opened, uplink.named(channel), symbols, link_snr, progress=not quiet)
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


def _given(ctx: click.Context, parameter: click.Parameter) -> bool:
    """Whether a parameter stands on the command line."""
    return ctx.get_parameter_source(parameter.name or "") is click.core.ParameterSource.COMMANDLINE


@cli.group(cls=_InOrder)
def plot() -> None:
    """Draw pictures of results."""


@plot.command()
@click.argument("models", nargs=-1, metavar="[MODEL|RESULTS.json]...")
@click.option("--limits", "limits_file", type=_PATH, metavar="FILE", help="Gaussian limits, as zoo limits writes them")
@click.option(
    "--snr", "snr_db", type=_Snr(), metavar="DB|none", default="30", show_default=True, help="of the side information"
)
@click.option("--out", required=True, type=_PATH, help="picture: .png, .svg or .pdf")
def rd(models: Sequence[str], limits_file: Path | None, snr_db: float | None, out: Path) -> None:
    """Draw NMSE over bits.

    One line a family, of each MODEL or of all that come with the package, with the limits and the papers' points.
    """
    from zoo import plot as draw

    found = _results(models, symbols=False)
    draw.rd(found, out, None if limits_file is None else draw.read_limits(limits_file), snr_db)
    click.echo(f"wrote {out}", err=True)


@plot.command()
@click.argument("models", nargs=-1, metavar="[MODEL|RESULTS.json]...")
@click.option("--over", type=click.Choice(["snr", "k"]), default="snr", show_default=True, help="what the axis is of")
@click.option("--snr", "snr_db", type=_Numbers(float), metavar="NUMBERS", help="of the link")
@click.option("--k", type=_Numbers(int), metavar="NUMBERS", help="symbols a sample")
@click.option("--steps", type=_Numbers(int, _Numbers.AUTO), metavar="NUMBERS|auto", help="of refinement")
@click.option("--bits", type=_Numbers(int, _Numbers.NONE), metavar="NUMBERS|none", help="of quantised symbols")
@click.option("--cnr", "cnr_db", type=_Numbers(float, _Numbers.NONE), metavar="NUMBERS|none", help="of the UE's CSI")
@click.option(
    "--limits", "limits_files", type=_PATH, multiple=True, metavar="FILE",
    help="separate coding, as zoo limits --link writes it; as often as you like",
)  # fmt: skip
@click.option("--published", is_flag=True, help="and the papers' points for the same data")
@click.option("--bler", is_flag=True, help="block error rates instead of NMSE")
@click.option("--out", required=True, type=_PATH, help="picture: .png, .svg or .pdf")
def snr(
    models: Sequence[str], over: str, limits_files: Sequence[Path], published: bool, bler: bool, out: Path, **chosen: list[Any] | None
) -> None:  # fmt: skip
    """Draw NMSE, or --bler, over the SNR of the link.

    For each MODEL that sends symbols, or all of the package: a curve for each combination of --k, --steps, --bits and --cnr that was
    measured, or is chosen here; numbers are written 8,16,32 or START:STOP:STEP. With --over k, over the symbols at each --snr.
    """
    from zoo import plot as draw

    found = _results(models, symbols=True)
    wanted = {column: values for column, values in chosen.items() if values is not None}
    bounds = [draw.read_limits(path, "snr_db") for path in limits_files]
    measure = "bler" if bler else "nmse_db"
    draw.snr(found, out, bounds, {"snr": "snr_db"}.get(over, over), wanted, published, measure)
    click.echo(f"wrote {out}", err=True)


def _results(models: Sequence[str], symbols: bool) -> list[dict[str, Any]]:
    """Of models that send symbols, or of those that send bits: these, or all that come with the package."""
    from zoo import registry, results

    found = []
    for model in models or registry.list_models():
        read = results.read(Path(model) if Path(model).is_file() else registry.locate(model)[0])
        if read is None:
            raise ZooError(f"{model} has no results; zoo eval makes them")
        fits = ("points" in read) == symbols
        if models and not fits:
            sort = "bits, not symbols" if symbols else "symbols, not bits"
            raise ZooError(f"{model} sends {sort}: there is no place for it in this picture")
        if fits:
            found.append(read)
    return found


def _stop(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command line; errors are one line on stderr: exit 2 for bad input, 1 for a bad model, 130 when interrupted."""
    signal.signal(signal.SIGTERM, _stop)  # batch systems ask this way; end as with Ctrl-C
    try:
        code = cli.main(args=argv, prog_name="zoo", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        _fail(error.format_message(), 2)
    except ZooError as error:
        _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _fail("stopped", Interrupted.exit_code)
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> NoReturn:
    click.echo("zoo: " + " ".join(message.split()), err=True)
    sys.exit(code)
