"""A command-line parser that knows the flag of every key of luigi.cfg.

*Responsibilities*: which words are flags, which words are their values, and what a usage error says.
*Non-goals*: the values of the flags. The sections of luigi.cfg check them when they are read.
"""

import argparse
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from luigi.task_register import Register

NUMBER = re.compile(r"-\d+|-\d*\.\d+")


class Parser(argparse.ArgumentParser):
    """Accepts its own options and the flags of all keys of luigi.cfg. Any other flag is an error.

    `given` collects the flags of luigi.cfg in the order of the command line, each as Luigi takes it: `--users-url=…`.
    The parser of the program and the parsers of its commands share the list. `commands` holds the names of the
    commands; it is empty in the parser of a command.
    """

    commands: "Mapping[str, Parser]" = {}  # noqa: RUF012 - replaced in the parser of the program

    def __init__(self, given: list[str], **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)
        self.given = given

    def list_own_flags(self) -> set[str]:
        """List the flags of the command itself."""
        return set(self._option_string_actions)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the words `args`. An unknown flag or an argument too many is a usage error."""
        for flag, kwargs in list_flags():
            if flag not in self._option_string_actions:
                self.add_argument(flag, action=_Flag, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **kwargs)
        options, rest = super().parse_known_args(self._join(args), namespace)
        if rest:
            self.error(f"unexpected argument {rest[0]!r}")
        return options, []

    def _join(self, words: Sequence[str]) -> list[str]:
        """Join each flag with its value, which may begin with a dash or hold spaces.

        The words behind a command are left to the parser of the command.
        """
        joined: list[str] = []
        value_follows = False
        for number, word in enumerate(words):
            action = self._option_string_actions.get(word.partition("=")[0])
            if word == "--":
                return [*joined, *words[number:]]
            if action is None and value_follows:
                joined[-1] += f"={word}"
                value_follows = False
                continue
            if action is None:
                self._check_argument(word)
                if self.commands:
                    return [*joined, *words[number:]]
            joined.append(word)
            value_follows = action is not None and action.nargs is None and "=" not in word
        return joined

    def _check_argument(self, word: str) -> None:
        """Refuse a word that is an unknown flag or an unknown command."""
        if word.startswith("-") and word != "-" and not NUMBER.fullmatch(word):
            flag = word.partition("=")[0]
            behind = "a flag of one command stands behind the command" if self.commands else "see --help"
            self.error(f"there is no flag {flag}: {suggest(flag, self._option_string_actions) or behind}")
        if self.commands and word not in self.commands:
            self.error(f"there is no command {word}: {suggest(word, self.commands) or ', '.join(self.commands)}")


class _Flag(argparse.Action):
    """Adds the flag of a key of luigi.cfg, with its value, to the list of the parser."""

    def __call__(self, parser: Any, _: argparse.Namespace, values: Any, option_string: str | None = None) -> None:
        bare = self.nargs == 0 or values is self.const
        parser.given.append(str(option_string) if bare else f"{option_string}={values}")


def list_flags() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the flag of every key of every section, and how many values it takes, as Luigi's own parser does."""
    for section, bare, name, parameter in Register.get_all_params():
        kwargs = parameter._parser_kwargs(name, section)
        if kwargs.pop("action") == "store_true":
            kwargs["nargs"] = 0
        yield f"--{name if bare else f'{section}_{name}'}".replace("_", "-"), kwargs


def suggest(word: str, known: Iterable[str]) -> str:
    """Return "did you mean X?" for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word.lower(), known, n=1)
    return f"did you mean {near[0]}?" if near else ""
