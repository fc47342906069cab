"""The ``zoo`` command. Nothing heavy is imported before a command runs; results go to stdout, the talk to stderr."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

import click

from zoo.commands import coding, drawing, looking, making
from zoo.commands.options import InOrder
from zoo.errors import Interrupted, ZooError


@click.group(cls=InOrder, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="csi-feedback-zoo", prog_name="zoo")
def cli() -> None:
    """Codecs for CSI feedback: real payload bytes, trained, measured and loaded by name.

    \b
    zoo list                                            the models that come with the package
    zoo compress csinet-cdl-132b x.npy x.payloads       what the phone sends
    zoo decompress x.payloads z.npy --side-information y.npy
    zoo train gd-csi --rate 128 --data store.zarr       on a store of datagen, or --simulate
    zoo eval runs/gd-csi-cdl-128b/models/gd-csi-cdl-128b --data store.zarr
    zoo eval rd-jscc-cdl-k32 --data store.zarr --snr -10:10:5 --k 8,16,32 --steps 0,1,2
    zoo pull hf:ORG/gd-csi-cdl/128b@v1                  from the Hugging Face Hub, for later; zoo list --remote

    MODEL is a name (zoo list --remote), the directory of a model, or hf:org/repo[/folder][@revision]. Names are found whatever
    their hyphens, underscores and capitals.
    """


for _command in (
    making.train, making.evaluate, making.release, making.index, making.publish,
    looking.list_, looking.pull, looking.info, looking.check, looking.bench,
    coding.compress, coding.decompress, drawing.limits, drawing.plot,
):  # fmt: skip
    cli.add_command(_command)


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
