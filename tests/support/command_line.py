"""The command line of `wholeday`, parsed but not run."""

from collections.abc import Sequence
from typing import Any

import pytest

from wholeday.commands import cli
from wholeday.commands.parser import Command


def parse(words: Sequence[str]) -> Any:
    """Parse words; returns the context of the command, with its values in `params` and what is for all in `obj`.

    Raises typer.TyperException if the words are wrong.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Command, "invoke", lambda _, context: context)
        return cli.make_program().main(list(words), "wholeday", standalone_mode=False)
