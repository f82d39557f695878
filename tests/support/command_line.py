"""Parse the command line of `wholeday` without running it."""

from collections.abc import Sequence
from typing import Any

import pytest

from wholeday.commands import cli
from wholeday.commands.parser import Command


def parse(words: Sequence[str]) -> Any:
    """Parse words; return the context of the command. `params` has its values, `obj` the global options.

    Raises typer.TyperException if the words are wrong.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Command, "invoke", lambda _, context: context)
        return cli.make_program().main(list(words), "wholeday", standalone_mode=False)
