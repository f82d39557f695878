"""Start luigid, Luigi's scheduler, and its pages."""

from typing import Annotated

import typer

ADDRESS = "The address to listen on. luigid asks for no password: do not open it to a network."


def command(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port of the pages and of the workers.")] = 8082,
    address: Annotated[str, typer.Option(help=ADDRESS)] = "127.0.0.1",
) -> bool:
    """Run luigid until it is stopped."""
    from wholeday.config.section import use_flags
    from wholeday.tasks import scheduler  # imports the server of the pages

    with use_flags("Task", *context.obj.flags):
        scheduler.run([f"--port={port}", f"--address={address}"])
    return True
