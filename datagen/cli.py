"""The ``datagen`` command. Nothing heavy is imported before a command runs; results go to stdout, the talk to stderr."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from datagen.errors import DatagenError, Interrupted

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from datagen.place import Place
    from datagen.plan import Plan
    from datagen.store import Store

COMMANDS = {
    "cdl": "Simulate CDL triples (TR 38.901) into a Zarr store.",
    "cost2100": "Simulate COST 2100 channels, as in the CsiNet data set.",
    "inh": "Simulate an indoor office (TR 38.901 InH): CSI, or unit-power feedback channels with --uplink.",
    "import": "Take MATLAB files in the form of the CsiNet data sets into a Zarr store.",
    "inspect": "Show what a store holds.",
    "verify": "Read every shard of a store and check every digest.",
    "regenerate": "Make a manifest's data set again and prove it is the same.",
    "manifest": "Print a store's manifest, or its Croissant description.",
    "publish": "Put a finished store on the Hugging Face Hub, as a data set.",
    "pull": "Bring a data set from the Hugging Face Hub, verified.",
    "cluster-check": "Check that the workers of a Dask cluster can do the job.",
}


SCENARIOS = {"cdl", "cost2100", "inh"}  # commands made from a recipe's fields


class _Lazy(click.Group):
    """Lists its commands from a table, so that --help builds none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _scenario_command(cmd_name) if cmd_name in SCENARIOS else super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="csi-feedback-zoo", prog_name="datagen")
def cli() -> None:
    """FDD massive MIMO CSI: X downlink now, Y uplink later, Z downlink later; in parallel, verified, reproducible.

    \b
    datagen cdl --out store.zarr             the GD-CSI paper's set: 100 000/10 000/20 000 triples
    datagen cost2100 --out outdoor.zarr      the CsiNet set without MATLAB: 100 000/30 000/20 000 samples
    datagen inh --uplink --out h.zarr        unit-power feedback channels of an indoor office
    datagen inspect store.zarr --plot p.png  what is in it
    datagen verify store.zarr                is it whole
    datagen pull ORG/NAME --out store.zarr   somebody else's, from the Hugging Face Hub
    """


class _Place(click.ParamType[Any, Any]):
    """A path, or the URL of a place in a bucket."""

    name = "PATH|URL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from datagen.place import place

        return place(value)


_OUT = click.option("--out", required=True, type=_Place(), help="directory of the store to make, or s3://BUCKET/NAME")
_JSON = click.option("--json", "as_json", is_flag=True, help="print the result as JSON")
_QUIET = click.option("--quiet", is_flag=True, help="no progress bar, no closing words")
_WORKERS = click.option(
    "--workers",
    type=click.IntRange(0),
    help="local Dask workers, one process each; 0 works in this process  [default: one a core]",
)
_SCHEDULER = click.option(
    "--scheduler", metavar="ADDRESS", help="run on this Dask cluster instead, e.g. tcp://host:8786"
)
_DEVICE = click.option("--device", default="cpu", show_default=True, metavar="cpu|cuda", help="device that computes")
_SHARD_SAMPLES = click.option(
    "--shard-samples", type=int, help="samples of a shard, a multiple of 256  [default: 4096]"
)
_FORCE = click.option("--force", is_flag=True, help="replace what is at --out, once the new store is complete")


def _default_workers(scheduler: str | None, shards: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if scheduler else min(cores, shards)


# datagen cdl -----------------------------------------------------------------------------------------------------------------


class _Range(click.ParamType[Any, Any]):
    """One number, or a range MIN:MAX."""

    name = "NUMBER|MIN:MAX"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            low, _, high = str(value).partition(":")
            return [float(low), float(high or low)]
        except ValueError:
            self.fail(f"{value!r} is neither a number nor a range MIN:MAX", param, ctx)


def _recipe_options(scenario: str) -> list[click.Option]:
    """One option for each field of a recipe; a unit at the end of the field's name may be left out: --delay-spread[-ns]."""
    from typing import Literal, get_args, get_origin

    from datagen.recipe import RECIPES

    options = []
    for name, field in RECIPES[scenario].model_fields.items():
        if name == "scenario":
            continue
        flag = "--" + name.replace("_", "-")
        units = ("-ns", "-us", "-mps", "-mhz", "-ghz", "-khz", "-taps", "-m", "-db", "-deg")
        flags = [flag, *(flag.removesuffix(unit) for unit in units if flag.endswith(unit))]
        if name == "environment":
            flags = ["--scenario", flag]
        kind: Any = field.annotation
        if get_origin(kind) is tuple:
            kind = _Range()
        elif get_origin(kind) is Literal:
            kind = click.Choice(get_args(kind))
        elif kind is bool:
            flags = [f"{flag}/--no-{flag[2:]}"]
        options.append(
            click.Option(
                [*flags, name], type=kind, default=None, help=f"{field.description}  [default: {_shown(field)}]"
            )
        )
    return options


def _shown(field: FieldInfo) -> str:
    """The default of a recipe's field in words, that of each variant where they differ."""

    def one(value: Any) -> str:
        if isinstance(value, tuple):
            return ":".join(dict.fromkeys(map(one, value)))
        if isinstance(value, bool):
            return "yes" if value else "no"
        return "from the scenario" if value == "" else f"{value:g}" if isinstance(value, float) else str(value)

    extra: Any = field.json_schema_extra
    published, matched = (extra["published"], extra["matched"]) if isinstance(extra, dict) else ({}, {})
    shown = {
        variant: one(value) + (f" (matched {one(matched[variant])})" if matched[variant] != value else "")
        for variant, value in published.items()
    }
    if len(set(shown.values())) > 1:
        return ", ".join(f"{variant} {value}" for variant, value in shown.items())
    return one(field.default)


def _scenario_command(scenario: str) -> click.Command:
    from datagen.scenarios import ENGINES

    engines = list(ENGINES[scenario])

    @click.command(scenario, help=COMMANDS[scenario])
    @_OUT
    @click.option(
        "--recipe",
        "recipe_file",
        type=click.Path(path_type=Path),
        help="TOML file of fields; options given here override it",
    )
    @_WORKERS
    @_SCHEDULER
    @click.option("--engine", metavar="|".join(engines), help=f"fast kernel, or the reference  [default: {engines[0]}]")
    @_DEVICE
    @_SHARD_SAMPLES
    @_FORCE
    @click.option("--dry-run", is_flag=True, help="say how large it gets and how long it takes; write nothing")
    @_JSON
    @_QUIET
    def command(
        out: Place, recipe_file: Path | None, workers: int | None, scheduler: str | None, engine: str | None, device: str,
        shard_samples: int | None, force: bool, dry_run: bool, as_json: bool, quiet: bool, **fields: Any,
    ) -> None:  # fmt: skip
        from datagen.plan import SHARD, Plan
        from datagen.recipe import load, parse

        given = {name: value for name, value in fields.items() if value is not None}
        table = load(recipe_file) if recipe_file else {}
        if table.get("scenario", scenario) != scenario:
            raise DatagenError(
                f"{recipe_file} is a recipe of scenario {table['scenario']!r}; datagen {scenario} takes {scenario!r}"
            )
        recipe = parse({**table, **given, "scenario": scenario}, str(recipe_file) if recipe_file else "options")
        plan = Plan(recipe, SHARD if shard_samples is None else shard_samples)
        workers = _default_workers(scheduler, plan.shard_count) if workers is None else workers
        if dry_run:
            _print_dry_run(plan, workers, scheduler, engine, device, out, as_json)
            return
        from datagen.execute import generate, resolve
        from datagen.place import exists

        start, existed = time.perf_counter(), exists(resolve(out)) and not force
        store = generate(
            recipe, out, workers=workers, scheduler=scheduler, engine=engine, device=device,
            shard_samples=plan.shard_samples, force=force, progress=not quiet,
        )  # fmt: skip
        _print_made(store, existed, time.perf_counter() - start, as_json, quiet)

    command.params = [*command.params[:2], *_recipe_options(scenario), *command.params[2:]]
    return command


def _print_made(store: Store, existed: bool, seconds: float, as_json: bool, quiet: bool, **more: Any) -> None:
    manifest = store.manifest
    samples = manifest.plan.samples
    if as_json:
        facts = {
            "path": str(store.path), "name": manifest.name, "samples": store.recipe.splits, "shards": len(manifest.shards),
            "recipe_digest": manifest.recipe_digest, "digest": manifest.digest, "existed": existed, "seconds": seconds,
        }  # fmt: skip
        click.echo(json.dumps({**facts, **more}))
    elif not quiet:
        how = "already there, nothing done (datagen verify reads it)" if existed else "complete and read back"
        click.echo(
            f"{store.path}: {manifest.name}, {samples} samples in {len(manifest.shards)} shards, {how}; {manifest.digest}"
        )


def _print_dry_run(
    plan: Plan, workers: int, scheduler: str | None, engine: str | None, device: str, out: Place, as_json: bool
) -> None:
    import shutil

    from datagen.execute import check_memory, check_objects, estimate_rate, resolve
    from datagen.recipe import describe_arrays

    path = resolve(out)
    check_objects(plan, path)
    if scheduler is None:
        check_memory(plan, workers)
    rate = estimate_rate(plan, engine, device)
    facts: dict[str, Any] = {
        "name": plan.recipe.label, "recipe_digest": plan.recipe.digest, "samples": plan.recipe.splits,
        "arrays": {name: list(shape) for name, shape in plan.recipe.arrays.items()},
        "shards": plan.shard_count, "shard_samples": plan.shard_samples, "store_bytes": plan.store_bytes,
        "free_bytes": shutil.disk_usage(path.parent).free if isinstance(path, Path) else None,
        "workers": None if scheduler else workers, "worker_bytes": plan.worker_bytes,
        "samples_per_second_per_worker": rate, "seconds": None if scheduler else plan.samples / rate / max(workers, 1),
    }  # fmt: skip
    if as_json:
        click.echo(json.dumps(facts, allow_nan=False))
        return
    free = "" if facts["free_bytes"] is None else f", {facts['free_bytes'] / 1e9:.1f} GB free"
    click.echo(f"{plan.recipe.label} ({plan.recipe.digest})")
    click.echo(f"samples  {', '.join(f'{n} {split}' for split, n in plan.recipe.splits.items())}")
    click.echo(f"arrays   {describe_arrays(plan.recipe)}, complex64")
    click.echo(
        f"disk     {plan.store_bytes / 1e9:.2f} GB in {plan.shard_count} shards of {plan.shard_samples} samples{free}"
    )
    click.echo(f"memory   about {plan.worker_bytes / 1e9:.2f} GB a worker")
    where = f"{workers or 1} worker{'s' if workers > 1 else ''}"
    total = (
        f"; about {facts['seconds']:.0f} s with {where}, start-up not counted" if facts["seconds"] is not None else ""
    )
    click.echo(f"time     {rate:.0f} samples/s a worker, measured here just now{total}")
    click.echo("nothing written (--dry-run)")


# datagen import --------------------------------------------------------------------------------------------------------------

_FILE = click.Path(path_type=Path)


@cli.command("import", help=COMMANDS["import"])
@click.argument("files", metavar="[FILE]...", nargs=-1, type=_FILE)
@click.option("--train", type=_FILE, help="file of the train split, where its name and size do not say so")
@click.option("--val", type=_FILE, help="file of the val split, likewise")
@click.option("--test", type=_FILE, help="file of the test split, likewise")
@click.option(
    "--full", type=_FILE, help="full band of the test split: HF_all of DATA_HtestFin_all.mat or ...out_all.mat"
)
@click.option(
    "--scenario",
    "--environment",
    "environment",
    type=click.Choice(["indoor", "outdoor"]),
    help="where no file's name says it",
)
@click.option("--name", default="", help="of the data set  [default: csinet-indoor or csinet-outdoor, else imported]")
@click.option("--dataset-version", type=int, default=1, show_default=True, help="version of the data set")
@_OUT
@_WORKERS
@_SCHEDULER
@_SHARD_SAMPLES
@_FORCE
@click.option("--dry-run", is_flag=True, help="check the files and say what they are; write nothing")
@_JSON
@_QUIET
def import_(
    files: tuple[Path, ...], train: Path | None, val: Path | None, test: Path | None, full: Path | None,
    environment: str | None, name: str, dataset_version: int, out: Place, workers: int | None, scheduler: str | None,
    shard_samples: int | None, force: bool, dry_run: bool, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    from datagen.execute import resolve
    from datagen.importing import survey
    from datagen.place import exists
    from datagen.plan import SHARD, Plan

    resolve(out)
    start, existed = time.perf_counter(), exists(out) and not force
    said = {part: path for part, path in {"train": train, "val": val, "test": test, "full": full}.items() if path}
    found = survey(
        files, parts=said, environment=environment, name=name, dataset_version=dataset_version, progress=not quiet
    )
    if not quiet:
        click.echo("\n".join(found.findings), err=True)
    for line in found.warnings:
        click.echo(f"warning: {line}", err=True)
    plan = Plan(found.recipe, SHARD if shard_samples is None else shard_samples)
    if dry_run:
        if as_json:
            facts = {"name": plan.recipe.label, "samples": plan.recipe.splits, "store_bytes": plan.store_bytes}
            click.echo(json.dumps({**facts, **found.facts}))
        elif not quiet:
            click.echo(f"{plan.recipe.label}: {plan.store_bytes / 1e9:.2f} GB; nothing written (--dry-run)")
        return
    from datagen.execute import generate

    workers = _default_workers(scheduler, plan.shard_count) if workers is None else workers
    store = generate(
        plan.recipe, out, workers=workers, scheduler=scheduler, shard_samples=plan.shard_samples, force=force,
        progress=not quiet, sources=found.sources,
    )  # fmt: skip
    _print_made(store, existed, time.perf_counter() - start, as_json, quiet, **found.facts)


# the other commands ----------------------------------------------------------------------------------------------------------


@cli.command(help=COMMANDS["inspect"])
@click.argument("store_path", metavar="STORE", type=_Place())
@_JSON
@click.option(
    "--plot",
    "picture",
    type=click.Path(path_type=Path),
    help="draw magnitudes, power-delay profile, angular spectrum, correlation",
)
@click.option("--fidelity", "compare", is_flag=True, help="a COST 2100 set against what is known of the official one")
@click.option("--paths", "index", type=int, metavar="SAMPLE", help="list the paths behind a sample of a COST 2100 set")
@click.option("--split", default="train", show_default=True, help="split of that sample")
def inspect(
    store_path: Place, as_json: bool, picture: Path | None, compare: bool, index: int | None, split: str
) -> None:
    from datagen import report
    from datagen.store import open_store

    store = open_store(store_path)
    if index is not None:
        paths = report.paths(store, index, split)
        click.echo(json.dumps(paths) if as_json else report.paths_table(paths))
        return
    samples = report.first_samples(store)
    if compare:
        from datagen import fidelity

        found = fidelity.compare(store.recipe, samples["X"])
        click.echo(json.dumps(found) if as_json else fidelity.table(found))
        return
    if picture is not None:
        try:
            report.plot(store, samples, picture)
        except (OSError, ValueError) as error:
            raise DatagenError(f"cannot draw {picture}: {error}") from None
    facts = report.summary(store, samples)
    click.echo(json.dumps(facts, allow_nan=False) if as_json else report.table(facts), nl=as_json)


@cli.command(help=COMMANDS["verify"])
@click.argument("store_path", metavar="STORE", type=_Place())
@click.option(
    "--manifest",
    "manifest_file",
    type=click.Path(path_type=Path),
    help="released manifest to hold it to  [default: its own]",
)
@_JSON
@_QUIET
def verify(store_path: Place, manifest_file: Path | None, as_json: bool, quiet: bool) -> None:
    from datagen import verification
    from datagen.manifest import Manifest
    from datagen.store import open_store

    store = open_store(store_path)
    manifest = None if manifest_file is None else Manifest.load(manifest_file)
    name, digest = (manifest or store.manifest).name, (manifest or store.manifest).digest
    found = verification.verify(store, manifest, progress=not quiet)
    if as_json:
        facts = {
            "path": str(store_path),
            "name": name,
            "digest": digest,
            "shards": found.shards,
            "ok": not found.bad,
            "bad": found.bad,
        }
        click.echo(json.dumps({**facts, "identical_shards": found.identical, "relative_error": found.error}))
    elif found.bad:
        click.echo("\n".join(f"bad: {line}" for line in found.bad))
    elif not quiet:
        how = (
            "bit for bit"
            if found.identical == found.shards
            else f"{found.identical} bit for bit, the others to {found.error:.1e} relative"
        )
        click.echo(f"{store_path}: all {found.shards} shards hold the samples of {name}, {how}; {digest}")
    if found.bad:
        sys.exit(1)


@cli.command(help=COMMANDS["regenerate"])
@click.argument("manifest_file", metavar="MANIFEST", type=click.Path(path_type=Path))
@_OUT
@_WORKERS
@_SCHEDULER
@click.option("--engine", help="[default: the manifest's]")
@click.option(
    "--source",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="where the files of an imported data set lie; found by name, held to their digests",
)
@_DEVICE
@_FORCE
@_JSON
@_QUIET
def regenerate(
    manifest_file: Path, out: Place, workers: int | None, scheduler: str | None, engine: str | None, source: Path | None,
    device: str, force: bool, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    from datagen import verification
    from datagen.execute import resolve
    from datagen.manifest import TOLERANCE, Manifest
    from datagen.place import exists

    manifest = Manifest.load(manifest_file)
    start, existed = time.perf_counter(), exists(resolve(out)) and not force
    workers = _default_workers(scheduler, len(manifest.shards)) if workers is None else workers
    options = {"engine": engine} if engine else {}
    store, same = verification.regenerate(
        manifest,
        out,
        source=source,
        workers=workers,
        scheduler=scheduler,
        device=device,
        force=force,
        progress=not quiet,
        **options,
    )
    _print_made(
        store,
        existed,
        time.perf_counter() - start,
        as_json,
        quiet,
        same=True,
        relative_error=same.error,
        identical_shards=same.identical,
    )
    if not as_json and not quiet:
        click.echo(
            f"the same samples as {manifest.name}: {same.identical} of {same.shards} shards bit for bit, "
            f"relative error {same.error:.1e} at most (allowed {TOLERANCE:g})"
        )


@cli.command(help=COMMANDS["manifest"])
@click.argument("source", metavar="STORE|MANIFEST", type=_Place())
@click.option("--croissant", "as_croissant", is_flag=True, help="as MLCommons Croissant JSON-LD")
@click.option("--out", type=click.Path(path_type=Path), help="write it to a file instead")
def manifest(source: Place, as_croissant: bool, out: Path | None) -> None:
    from datagen.croissant import croissant
    from datagen.manifest import Manifest
    from datagen.place import put_atomically
    from datagen.store import open_store

    found = Manifest.load(source) if isinstance(source, Path) and source.is_file() else open_store(source).manifest
    text = json.dumps(croissant(found), indent=1) + "\n" if as_croissant else found.to_json()
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        put_atomically(out, text)
    except (OSError, ValueError) as error:
        raise DatagenError(f"cannot write {out}: {error}; give --out a file") from None
    click.echo(f"wrote {out}", err=True)


@cli.command(
    short_help=COMMANDS["publish"],
    help=COMMANDS["publish"]
    + """

    It is verified, then sent in one commit, which is compared with what was meant; published again, it changes nothing. The
    token is the Hub client's: HF_TOKEN, or hf auth login.

    \b
    datagen publish store.zarr --repo ORG/cdl-c-fdd --dry-run
    datagen publish store.zarr --repo ORG/cdl-c-fdd --private --tag v1
    """,
)
@click.argument("store_path", metavar="STORE", type=_Place())
@click.option("--repo", required=True, metavar="ORG/NAME", help="data set on the Hub; made if it is not there")
@click.option("--private", is_flag=True, help="make it for its owners' eyes alone")
@click.option("--tag", help="name for the commit, such as v1")
@click.option("--force", is_flag=True, help="replace another data set that is there; it stays in the history")
@click.option(
    "--record",
    "record_file",
    type=click.Path(path_type=Path),
    help="note repository, commit and digest under the data set's name in this JSON file, such as manifests/hub.json",
)
@click.option("--dry-run", is_flag=True, help="say what would be sent; ask nobody, write nothing")
@_JSON
@_QUIET
def publish(
    store_path: Place, repo: str, private: bool, tag: str | None, force: bool, record_file: Path | None, dry_run: bool,
    as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    from datagen import publishing
    from datagen.store import open_store

    store = open_store(store_path)
    if record_file is not None:
        publishing.read_records(record_file)  # while nothing is done yet
    done = publishing.publish(
        store, repo, private=private, tag=tag, force=force, dry_run=dry_run, progress=not quiet
    )  # fmt: skip
    manifest, total = store.manifest, sum(done.files.values())
    if record_file is not None and not dry_run:
        publishing.record(record_file, manifest.name, done, manifest.digest)
    if as_json:
        facts = {"repo": done.repo, "commit": done.commit, "tag": tag, "changed": done.changed, "name": manifest.name}
        click.echo(json.dumps({**facts, "digest": manifest.digest, "files": done.files, "bytes": total}))
    elif dry_run:
        for name, size in done.files.items():
            click.echo(f"{size:>12}  {name}")
        click.echo(f"{total:>12}  bytes in {len(done.files)} files for {repo}; nothing sent (--dry-run)")
    elif not quiet:
        how = f"{len(done.files)} files, {total / 1e6:.1f} MB" if done.changed else "already there, nothing changed"
        click.echo(f"{done.repo}@{done.commit}: {manifest.name}, {how}; {manifest.digest}")


@cli.command(
    short_help=COMMANDS["pull"],
    help=COMMANDS["pull"]
    + """

    Every file is held to its digest on the Hub and every sample to the manifest before the store appears at --out. Stopped, the
    same command goes on.

    \b
    datagen pull ORG/cdl-c-fdd --out store.zarr
    datagen pull ORG/cdl-c-fdd@v1 --out store.zarr --manifest manifests/datasets/cdl-c-fdd-v1.json
    """,
)
@click.argument("address", metavar="ORG/NAME[@REVISION]")
@click.option("--out", required=True, type=_Place(), metavar="PATH", help="directory of the store to make")
@click.option(
    "--manifest",
    "manifest_file",
    type=click.Path(path_type=Path),
    help="released manifest to hold it to  [default: its own]",
)
@_FORCE
@_JSON
@_QUIET
def pull(address: str, out: Place, manifest_file: Path | None, force: bool, as_json: bool, quiet: bool) -> None:
    from datagen import publishing
    from datagen.manifest import Manifest

    manifest, start = None if manifest_file is None else Manifest.load(manifest_file), time.perf_counter()
    done = publishing.pull(address, out, manifest=manifest, force=force, progress=not quiet)
    seconds = time.perf_counter() - start
    _print_made(done.store, done.existed, seconds, as_json, quiet, repo=done.repo, commit=done.commit)
    if not as_json and not quiet:
        click.echo(f"from {done.repo}@{done.commit}")


@cli.command("cluster-check", help=COMMANDS["cluster-check"])
@click.argument("address", metavar="ADDRESS")
@click.option(
    "--directory",
    default=".",
    type=_Place(),
    help="where the store will be, or s3://BUCKET/NAME; every worker must see it  [default: here]",
)
@_JSON
def cluster_check(address: str, directory: Place, as_json: bool) -> None:
    from datagen.cluster import check_workers, connect

    directory = directory.absolute() if isinstance(directory, Path) else directory
    with connect(0, address) as client:
        rows = check_workers(client, directory)
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        click.echo(
            f"{row['address']}  {row['host']}  datagen {row['datagen']}, torch {row['torch']}, zarr {row['zarr']}"
        )
    click.echo(f"{len(rows)} workers can write {directory}: use --scheduler {address}")


def _stop(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command line; errors are one line on stderr: exit 2 for bad input, 1 for bad data, 130 when interrupted."""
    signal.signal(signal.SIGTERM, _stop)  # batch systems ask this way; end as with Ctrl-C
    try:
        code = cli.main(args=argv, prog_name="datagen", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        _fail(error.format_message(), 2)
    except DatagenError as error:
        _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _fail("stopped", Interrupted.exit_code)
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> NoReturn:
    click.echo("datagen: " + " ".join(message.split()), err=True)
    sys.exit(code)
