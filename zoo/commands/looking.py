"""``zoo list``, ``pull``, ``info``, ``check``, ``bench``: which models there are, and what they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.commands.options import DEVICE, JSON, MODEL, PATH, size_of, spaced
from zoo.errors import CheckError, ZooError

if TYPE_CHECKING:
    from zoo.publication import Publication


@click.command("list")
@click.argument("pattern", default="*")
@click.option("--remote", is_flag=True, help="and those of the Hub, with where each is; asks nobody")
@JSON
def list_(pattern: str, remote: bool, as_json: bool) -> None:
    """List the models that come with the package.

    \b
    zoo list 'gd-csi-*'
    zoo list --remote        with the models of the Hub: embedded, cached, repository@commit

    PATTERN is a shell pattern; one that matches no name is tried again without hyphens and capitals.
    """
    from zoo import names, registry, results

    shipped, elsewhere = registry.list_models(), _published() if remote else {}
    wanted = names.matching(pattern, dict.fromkeys([*shipped, *elsewhere]))
    rows: list[dict[str, Any]] = []
    for name in (name for name in shipped if name in wanted):
        found = results.read(registry.WEIGHTS / name) or {}
        measured = "side_information" if name.endswith("b") else "points"
        facts = {key: found.get(key) for key in ("parameters", measured)}
        effort = {"effort": results.effort(found)} if found else {}
        rows.append({"model": name, **_rate(name), **facts, **effort})
    if remote:
        rows = _with_remote(rows, {name: found for name, found in elsewhere.items() if name in wanted})
    if as_json:
        click.echo(json.dumps(rows))
        return
    lines = [("model", "rate", "parameters", *(("where",) if remote else ()), "NMSE")]
    for row in rows:
        rate = f"{row['bits']} bits" if "bits" in row else f"{row['symbols']} symbols"
        size = "" if row["parameters"] is None else spaced(row["parameters"])
        nmse = row.get("nmse") or (results.summary(row) if size else "")
        lines.append((row["model"], rate, size, *((_where(row),) if remote else ()), nmse))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = zip(line, "<>><<", widths, strict=False)
        click.echo("  ".join(f"{cell:{side}{width}}" for cell, side, width in cells).rstrip())


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="NAME...")
@click.option("--revision", help="branch, tag or commit, in place of the one on record")
@click.option("--cache-dir", type=PATH, help="in place of the client's own cache")
@JSON
def pull(models: Sequence[str], revision: str | None, cache_dir: Path | None, as_json: bool) -> None:
    """Fetch models from the Hub, for later and offline.

    \b
    zoo pull hf:ORG/gd-csi-cdl/128b@v1 --cache-dir /shared/hub

    NAME is one of zoo list --remote, or hf:org/repo[/folder][@revision]. Every file is checked against the SHA-256 on record; a damaged one
    in the cache is fetched again.
    """
    from zoo import hub, registry
    from zoo.hub import Source
    from zoo.locate import known_as, unknown_model
    from zoo.publication import published

    source, known = Source(revision, cache_dir), published()
    rows = []
    for model in map(known_as, models):
        if not model.startswith("hf:") and model not in known:
            if model in registry.list_models():
                raise ZooError(f"{model} comes with the package: there is nothing to pull")
            raise ZooError(unknown_model(model, known))
        path, digests = (
            hub.fetch(model, source) if model.startswith("hf:") else hub.fetch_published(model, known[model], source)
        )
        files = [*(path / file for file in registry.FILES), *registry.parts(path)]
        size = sum(file.stat().st_size for file in files)
        rows.append({"model": model, "path": str(path), "bytes": size, "files": digests})
        if not as_json:
            click.echo(
                f"{model}: {spaced(size)} bytes, {'verified' if digests else 'no manifest to verify them by'}; {path}"
            )
    if as_json:
        click.echo(json.dumps(rows))


@click.command()
@MODEL
@JSON
def info(model: str, as_json: bool) -> None:
    """Show a MODEL's codec, the efforts that its phone may make, its origin and results."""
    from zoo import results
    from zoo.locate import locate
    from zoo.registry import read_config

    path, _ = locate(model)
    config = read_config(path)
    facts = {"path": str(path), **config, **_efforts(path, config), "results": results.read(path)}
    if as_json:
        click.echo(json.dumps(facts))
        return
    for key, value in facts.items():
        click.echo(f"{key:<16}  {value if isinstance(value, str) else json.dumps(value)}")


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@DEVICE
@JSON
def check(models: Sequence[str], device: str, as_json: bool) -> None:
    """Check each MODEL, or all of the package.

    Every file against its SHA-256, every weight against the config, the golden vectors by replaying them.
    """
    from zoo import registry
    from zoo.checkpoint import check as replay
    from zoo.checkpoint import load_model
    from zoo.locate import known_as, locate

    rows: list[dict[str, Any]] = []
    asked = map(known_as, models or registry.list_models())
    for model, (path, digests) in [(model, locate(model)) for model in asked]:
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


@click.command()
@MODEL
@click.option("--batch", type=click.IntRange(1), default=256, show_default=True, help="samples a call")
@DEVICE
@JSON
def bench(model: str, batch: int, device: str, as_json: bool) -> None:
    """Measure what a MODEL costs.

    Parameters, multiply-accumulates and bytes of weights, samples a second; of a phone that may search its payload, at each effort; of a
    decoder that refines, at 0, 2, 20 and its own choice of steps.
    """
    from zoo.bench import bench as run_bench
    from zoo.checkpoint import load_model
    from zoo.locate import known_as, locate

    model = known_as(model)
    facts = {"model": model, **run_bench(load_model(*locate(model), device=device), batch)}
    if as_json:
        click.echo(json.dumps(facts))
        return
    size = size_of(facts) if "bits" in facts else f"{max(facts['symbols'])} symbols"
    click.echo(f"{model}: {size}, {spaced(facts['parameters'])} parameters, {facts['weights_bytes'] / 1e6:.2f} MB")
    parts = _parts(facts)
    width = max(len(name) for name, _ in parts)
    for name, part in parts:
        share = f"  {spaced(part['parameters']):>12} parameters" if "parameters" in part else ""
        macs = f"{part['macs'] / 1e6:10.2f} M MACs a sample" if "macs" in part else ""
        click.echo(f"{name:<{width}}  {macs:<26}  {part['samples_per_second']:10.0f} samples/s{share}")
    click.echo(f"{facts['device']}, {facts['threads']} threads, batches of {batch}, torch {facts['torch']}", err=True)


def _efforts(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The levels of effort that a sender has."""
    import torch

    from zoo.checkpoint import bare

    with torch.device("meta"):  # sizes, no numbers
        codec = bare(path, config)
    return {"efforts": list(range(codec.efforts))}


def _parts(facts: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What :func:`zoo.bench.bench` found, by the part of the model."""
    if "bits" in facts:
        sides = {
            side: {name: facts[f"{side}_{name}"] for name in ("macs", "samples_per_second")}
            for side in ("compress", "decompress")
        }
        return [("compress", sides["compress"]), *_searched("compress", facts), ("decompress", sides["decompress"])]
    decoders = [
        (f"decode, {part['steps']} step" + "s" * (part["steps"] > 1) if part["steps"] else "decode", part)
        for part in facts["decoders"]
    ]
    return [("encode", facts["encoder"]), *_searched("encode", facts), *decoders]


def _searched(side: str, facts: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"{side}, effort {part['effort']}", part) for part in facts.get("efforts", ())[1:]]


def _rate(name: str) -> dict[str, int]:
    from zoo import registry

    return {"bits" if name.endswith("b") else "symbols": registry.rate_of(name)}


def _published() -> dict[str, Publication]:
    from zoo.publication import published

    return published()


def _with_remote(rows: list[dict[str, Any]], elsewhere: Mapping[str, Publication]) -> list[dict[str, Any]]:
    """Models of the package and of the Hub, by name, with where each is."""
    from zoo import hub, registry

    nowhere = {"cached": False, "repo": None, "commit": None}
    found = {row["model"]: {**row, "embedded": True, **nowhere} for row in rows}
    for name, publication in elsewhere.items():
        record = publication.family.models[name]
        facts = {"parameters": record.parameters, "nmse": record.nmse, "embedded": False}
        place = {"cached": hub.is_cached(publication, name), "repo": publication.repo, "commit": publication.commit}
        found[name] = {"model": name, **_rate(name), **facts, **found.get(name, {}), **place}
    return sorted(found.values(), key=lambda row: (row["model"].rpartition("-")[0], registry.rate_of(row["model"])))


def _where(row: dict[str, Any]) -> str:
    remote = f"{row['repo']}@{row['commit'][:8]}" if row["repo"] else ""
    return ", ".join(filter(None, ["embedded" * row["embedded"], "cached" * row["cached"], remote]))
