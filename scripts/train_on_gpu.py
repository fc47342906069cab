"""Carry out a plan on one GPU within some minutes, and bring home what comes of it; see scripts/README.md.

python scripts/train_on_gpu.py run cdl --out session
python scripts/train_on_gpu.py status session
python scripts/train_on_gpu.py pack session --into pieces
python scripts/train_on_gpu.py join pieces --into home
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import NoReturn

import click

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from datagen.errors import DatagenError
from zoo.errors import Interrupted, ZooError

_PATH = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Train models on one GPU within some minutes, and bring them home in pieces."""


@cli.command()
@click.argument("plan")
@click.option("--out", required=True, type=_PATH, metavar="DIR", help="of the session; the same again goes on with it")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="from now on, in place of the plan's")
@click.option("--device", default="cuda", show_default=True, metavar="cuda|cpu", help="device that computes")
@click.option("--rehearse", is_flag=True, help="small networks, few samples and steps; the same code")
def run(plan: str, out: Path, minutes: float | None, device: str, rehearse: bool) -> None:
    """Carry out a PLAN.

    PLAN is a name in scripts/plans or the path of a TOML file. A session that was cut goes on where it was when the same command is given
    again; its minutes are those of the wall clock since its first start.
    """
    from scripts import plan as plans
    from scripts.session import Session

    Session(plans.load(plan), out, device, rehearse, minutes).run()


@cli.command()
@click.argument("out", metavar="DIR", type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="print the result as JSON")
def status(out: Path, as_json: bool) -> None:
    """Tell what of a session is done, and how many minutes are left."""
    from scripts.log import LOG, Log, minutes_left, states

    if not (out / LOG).is_file():
        raise ZooError(f"{out} holds no session")
    log = Log(out / LOG)
    steps, left = dict(states(log)), round(minutes_left(log), 1)
    if as_json:
        click.echo(json.dumps({"minutes_left": left, "steps": steps}))
        return
    for step, state in steps.items():
        click.echo(f"{state:<8}  {step}")
    click.echo(f"{left} minutes left")


@cli.command()
@click.argument("out", metavar="DIR", type=_PATH)
@click.option("--into", required=True, type=_PATH, metavar="PIECES", help="directory, replaced if it is there")
@click.option(
    "--piece-mib", type=click.FloatRange(0, min_open=True), default=15.0, show_default=True, help="of a piece"
)
def pack(out: Path, into: Path, piece_mib: float) -> None:
    """Cut what a session has made so far into pieces."""
    from scripts import pieces
    from scripts.log import keepsakes

    files = keepsakes(out)
    if not files:
        raise ZooError(f"{out} holds no session")
    index = pieces.pack(out, files, into, max(1, int(piece_mib * 2**20)))
    click.echo(f"{into}: {len(index.pieces)} pieces and {pieces.INDEX}, of {len(index.files)} files")


@cli.command()
@click.argument("sources", nargs=-1, required=True, metavar="PIECES...", type=_PATH)
@click.option("--into", required=True, type=_PATH, metavar="DIR", help="directory; must not exist")
def join(sources: tuple[Path, ...], into: Path) -> None:
    """Put pieces together again, every digest verified.

    PIECES are the directories that they lie in, all in one or some in each. DIR/models is then a collection of models.
    """
    from scripts import pieces
    from scripts.log import MODELS
    from zoo.registry import read_index

    index = pieces.join(sources, into)
    models = read_index(into / MODELS)
    click.echo(
        f"{into}: {len(index.files)} files; {into / MODELS}: {len(models)} models; see zoo check {into / MODELS}/*/"
    )


def _stop(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> NoReturn:
    """Run the command line; errors are one line on stderr: exit 2 for bad input, 1 for what is damaged, 130 when interrupted."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        _fail(error.format_message(), 2)
    except (ZooError, DatagenError) as error:
        _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _fail("stopped; the same command goes on", Interrupted.exit_code)
    sys.exit(0)


def _fail(message: str, code: int) -> NoReturn:
    click.echo("train_on_gpu: " + " ".join(message.split()), err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
