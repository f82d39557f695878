"""Start luigid, Luigi's scheduler, and its pages."""

from typing import Annotated

import typer

ADDRESS = "The address to listen on. There is no password: keep to this machine."
LOGDIR = "Where to write the log in the background."
STATE_PATH = "Where to keep the state (default: [scheduler] state_path)."


def command(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port of the pages and of the workers.")] = 8082,
    address: Annotated[str, typer.Option(help=ADDRESS)] = "127.0.0.1",
    background: Annotated[bool, typer.Option("--background", help="Detach from the terminal.")] = False,
    pidfile: Annotated[str | None, typer.Option(metavar="FILE", help="Where to write the process id.")] = None,
    logdir: Annotated[str | None, typer.Option(metavar="FOLDER", help=LOGDIR)] = None,
    state_path: Annotated[str | None, typer.Option(metavar="FILE", help=STATE_PATH)] = None,
    unix_socket: Annotated[str | None, typer.Option(metavar="FILE", help="A socket to listen on instead.")] = None,
) -> bool:
    """Run luigid until it is stopped."""
    from luigi.cmdline_parser import CmdlineParser

    from wholeday.tasks import scheduler  # imports the server of the pages

    given = {"pidfile": pidfile, "logdir": logdir, "state-path": state_path, "unix-socket": unix_socket}
    arguments = [f"--port={port}", f"--address={address}", *(["--background"] if background else [])]
    arguments += [f"--{name}={value}" for name, value in given.items() if value]
    with CmdlineParser.global_instance(["Task", *context.obj.flags]):
        scheduler.run(arguments)
    return True
