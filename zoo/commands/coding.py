"""``zoo compress``, ``decompress``: what the phone sends, and what the base station makes of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.commands.options import DEVICE, EFFORT, JSON, MODEL, PATH, QUIET, SAMPLES, SPLIT, StorePath, size_of
from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.metrics import Complex
    from zoo.models.base import Codec


@click.command()
@MODEL
@click.argument("source", metavar="IN", type=StorePath())
@click.argument("out", type=PATH)
@SPLIT
@SAMPLES
@EFFORT
@DEVICE
@JSON
@QUIET
def compress(
    model: str, source: str | Path, out: Path, split: str, samples: int | None, effort: int | None, device: str, as_json: bool, quiet: bool
) -> None:  # fmt: skip
    """Write the payloads that a phone would send.

    X is taken from IN, a store or a .npy file with complex [n, angle, delay]; the payloads go to the file OUT. With --effort 1 or more
    (zoo info says which a MODEL has) the phone looks for better payloads of the same length, which decode as any others.
    """
    from zoo import payloads
    from zoo.checkpoint import load_codec
    from zoo.files import require_place
    from zoo.locate import locate
    from zoo.registry import read_config

    require_place(out)
    path, digests = locate(model)
    config = read_config(path)
    codec = load_codec(path, digests, device=device)
    level, sent = codec.effort_of(effort), list[bytes]()
    for x in _progress(_pieces(source, "x", split, samples), quiet):
        sent.extend(codec.compress(x, level))
    header = payloads.Header(
        model=config["name"], weights_sha256=config["weights_sha256"], bits=codec.bits, payload_bytes=codec.payload_bytes, count=len(sent)
    )  # fmt: skip
    payloads.write(out, header, sent)
    if as_json:
        click.echo(json.dumps({"path": str(out), **header.model_dump()}))
    elif not quiet:
        click.echo(f"{out}: {len(sent)} payloads of {size_of(header.model_dump())}, {header.model}")


@click.command()
@click.argument("files", nargs=-1, type=PATH, metavar="[MODEL] PAYLOADS OUT.npy")
@click.option(
    "--side-information", type=StorePath(), metavar="Y.npy|STORE", help="uplink CSI Y, a sample for each payload"
)
@SPLIT
@DEVICE
@JSON
@QUIET
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
    from zoo.checkpoint import load_codec
    from zoo.files import require_place, whole
    from zoo.locate import locate
    from zoo.publication import published
    from zoo.registry import read_config

    *given, source, out = files
    require_place(out)
    header, received = payloads.read(source)
    model = str(given[0]) if given else header.model
    if not given and model not in registry.list_models() and model not in published():
        raise ZooError(
            f"{source} is of {model}, which does not come with this package, nor is it published: zoo decompress MODEL {source} {out}"
        )
    path, digests = locate(model)
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
