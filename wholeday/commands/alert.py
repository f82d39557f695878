"""Send a trial message to the webhook that alerts go to."""

import sys

import typer

from wholeday import clock
from wholeday.commands.screen import open_console
from wholeday.commands.session import open_workspaces
from wholeday.errors import ConfigError
from wholeday.tasks import alerts
from wholeday.tasks.failures import Failure


def command(context: typer.Context) -> bool:
    """Send the message. Returns whether the webhook took it; raises ConfigError if there is no webhook."""
    with open_workspaces(context) as workspaces:
        webhook, now = workspaces[0].pipeline.webhook, clock.utc_now()
        if not webhook:
            raise ConfigError("[pipeline] webhook is not set: name the environment variable that holds its URL")
        trial = Failure(now, now.date(), "trial", "nothing failed: this is a trial")
        problem = alerts.post(webhook, alerts.build_message(workspaces[0].name, trial))
    if problem:
        sys.stderr.write(f"ERROR: {problem}\n")
        return False
    open_console().print(f"the webhook of {webhook} took a trial message")
    return True
