"""Parse a command line on which the key of every section of luigi.cfg is a flag.

Responsibilities: separate flags, their values and arguments, and suggest the nearest name for a misspelt one.
Non-goals: the values of the flags. The sections of luigi.cfg check them when they are read.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from wholeday.commands.session import Given, import_workflow, list_names, suggest

if TYPE_CHECKING:
    from typer._click import Context, Parameter
    from typer._click.shell_completion import CompletionItem

NUMBER = re.compile(r"-\d+|-\d*\.\d+")

OF_ONE_SOURCE = ("new", "doctor")
"""Commands about a source that luigi.cfg need not know: each key of a section is a flag under its own name."""

REPLACED = {"--module": "give --dataset NAME"}
"""Flags of Luigi that a command cannot take: it would import the module, and work on every dataset."""

Takes = Literal["nothing", "a value", "perhaps a value"]
"""What follows a flag. A value that may be left out stands behind `=` only."""


class UsageError(typer.TyperException):
    """A command line that cannot be parsed; its text is one line."""

    exit_code = 2

    def __init__(self, ctx: "Context", message: str) -> None:
        hint = "" if message.endswith("?") else f": see {ctx.command_path} --help"
        super().__init__(f"{ctx.command_path}: {message}{hint}")


class Command(TyperCommand):
    """A command that accepts the flags of luigi.cfg, and collects them in `Given`. Its result is its exit code."""

    def parse_args(self, ctx: "Context", args: list[str]) -> list[str]:
        words = Words(ctx, args, whole=True)
        ctx.obj.flags += words.settings
        ctx.obj.keys |= words.keys
        takes_dataset = any("--dataset" in each.opts for each in self.params)
        if ctx.obj.dataset is not None and not takes_dataset and not ctx.resilient_parsing:
            raise UsageError(ctx, "unknown flag --dataset")
        arguments = [each for each in self.params if isinstance(each, TyperArgument)]
        if len(words.arguments) > len(arguments) and all(each.nargs == 1 for each in arguments):
            raise UsageError(ctx, f"unexpected argument {words.arguments[len(arguments)]!r}")
        return _parse(super().parse_args, ctx, [*words.options, "--", *words.arguments])

    def invoke(self, ctx: "Context") -> int:
        """Run the command; returns 0 if all is well, else 1."""
        return 0 if super().invoke(ctx) else 1

    def shell_complete(self, ctx: "Context", incomplete: str) -> "list[CompletionItem]":
        return [*super().shell_complete(ctx, incomplete), *_complete_settings(incomplete)]


class LazyCommand(TyperCommand):
    """The name and the description of a command whose module is imported when the command runs."""

    def __init__(self, name: str, load: Callable[[], TyperCommand], **texts: Any) -> None:
        super().__init__(name, **texts)
        self.load = load


class Group(TyperGroup):
    """The program: accepts flags of luigi.cfg before the command too."""

    def parse_args(self, ctx: "Context", args: list[str]) -> list[str]:
        ctx.obj = Given()
        words = Words(ctx, args, whole=False)
        ctx.obj.flags += words.settings
        rest = _parse(super().parse_args, ctx, [*words.options, *words.arguments])
        if not words.arguments and not ctx.resilient_parsing:
            raise UsageError(ctx, "a command is missing")
        return rest

    def resolve_command(self, ctx: "Context", args: list[str]) -> "tuple[str | None, Any, list[str]]":
        name, *rest = args
        if name not in self.commands:
            if ctx.resilient_parsing:
                return None, None, rest
            raise UsageError(ctx, f"unknown command {name}: {list_names(name, self.commands)}")
        command = self.commands[name]
        return name, command.load() if isinstance(command, LazyCommand) else command, rest

    def shell_complete(self, ctx: "Context", incomplete: str) -> "list[CompletionItem]":
        return [*super().shell_complete(ctx, incomplete), *_complete_settings(incomplete)]


class Words:
    """The words of a command line by their kind. An option is joined with its value: `--users-url=…`.

    The workflow is imported for its flags only where a word may be one of them.
    """

    def __init__(self, ctx: "Context", words: Sequence[str], whole: bool) -> None:
        """Sort the words; without `whole` only those before the first argument.

        Raises UsageError if a word is an unknown flag, if a flag lacks its value, or if a flag stands where nothing can
        read it. A shell that completes a line gets no error.
        """
        self.options: list[str] = []
        """The options of the command itself."""
        self.settings: list[str] = []
        """The flags of luigi.cfg, in the order of the command line."""
        self.keys: dict[str, str] = {}
        """The keys of a section that are flags under their own names, each with its text."""
        self.arguments: list[str] = []
        self._ctx, self._whole = ctx, whole
        self._own = {name: _classify(each) for each in ctx.command.get_params(ctx) for name in each.opts}
        try:
            self._sort(list(words))
        except UsageError:
            if not ctx.resilient_parsing:
                raise
            self.options, self.settings, self.keys, self.arguments = [], [], {}, []

    @cached_property
    def _flags(self) -> dict[str, Takes]:
        """All known flags."""
        return {flag: takes for flag, takes, _ in list_settings()} | self._keys | self._own

    @cached_property
    def _keys(self) -> dict[str, Takes]:
        """The keys of a section that are flags under their own names."""
        return {f"--{name.replace('_', '-')}": takes for name, takes in list_keys()} if self._takes_keys else {}

    @property
    def _takes_keys(self) -> bool:
        return self._whole and self._ctx.command.name in OF_ONE_SOURCE

    def _sort(self, rest: list[str]) -> None:
        while rest:
            word = rest.pop(0)
            if word == "--" and self._whole:
                self._check_arguments(rest)
                self.arguments += rest
                break
            if not _is_flag(word):
                self.arguments.append(word)
                if not self._whole:
                    self.arguments += rest
                    break
                continue
            flag, equals, _ = word.partition("=")
            takes = self._find(flag)
            if takes == "a value" and not equals:
                word = f"{flag}={self._pop_value(flag, rest)}"
            elif takes == "nothing" and equals:
                raise UsageError(self._ctx, f"{flag} takes no value")
            if flag in self._own:
                self.options.append(word)
            elif flag in self._keys:
                self.keys[flag.removeprefix("--").replace("-", "_")] = word.partition("=")[2] if "=" in word else "true"
            else:
                self.settings.append(word)

    def _find(self, flag: str) -> Takes:
        if takes := self._own.get(flag) or self._keys.get(flag) or self._flags.get(flag):
            return takes
        hint = REPLACED.get(flag) or suggest(flag, self._flags)
        if not hint and not self._whole:
            hint = "give a flag of one command behind the command"
        raise UsageError(self._ctx, ": ".join(filter(None, (f"unknown flag {flag}", hint))))

    def _pop_value(self, flag: str, rest: list[str]) -> str:
        """Take the value of a flag, which may begin with a dash, but is no known flag."""
        if not rest or rest[0] == "--" or self._is_known(rest[0]):
            raise UsageError(self._ctx, f"{flag} needs a value")
        return rest.pop(0)

    def _check_arguments(self, words: Sequence[str]) -> None:
        """Refuse known flags behind `--`: the command would take them for arguments, and change another warehouse."""
        for word in filter(self._is_known, words):
            flag = word.partition("=")[0]
            raise UsageError(self._ctx, f"behind -- no word is a flag: give the flag {flag} before --")

    def _is_known(self, word: str) -> bool:
        return _is_flag(word) and (word.partition("=")[0] in self._own or word.partition("=")[0] in self._flags)


def _is_flag(word: str) -> bool:
    return word.startswith("-") and word != "-" and not NUMBER.fullmatch(word)


def _classify(parameter: "Parameter") -> Takes:
    return "nothing" if isinstance(parameter, TyperOption) and parameter.is_flag else "a value"


def list_settings() -> Iterator[tuple[str, Takes, str]]:
    """Yield each flag of luigi.cfg, what follows it, and its description. Luigi's own parser has these flags too."""
    import_workflow()
    from luigi.task_register import Register

    for section, bare, name, parameter in Register.get_all_params():
        flag = f"--{name if bare else f'{section}_{name}'}".replace("_", "-")
        if flag not in REPLACED:
            yield flag, _classify_parameter(parameter, name, section), parameter.description or ""


def list_keys() -> Iterator[tuple[str, Takes]]:
    """Yield each key of a dataset's section, and what follows its flag."""
    from wholeday.config.source import Source

    for name, parameter in Source.get_params():
        if name not in ("url", "accept"):  # the url is an argument
            yield name, _classify_parameter(parameter, name, "")


def _classify_parameter(parameter: Any, name: str, section: str) -> Takes:
    kwargs = parameter._parser_kwargs(name, section)
    takes: Mapping[tuple[str, Any], Takes] = {("store_true", None): "nothing", ("store", "?"): "perhaps a value"}
    return takes.get((kwargs["action"], kwargs.get("nargs")), "a value")


def _complete_settings(incomplete: str) -> "list[CompletionItem]":
    """List the flags of luigi.cfg that begin with a word."""
    from typer._click.shell_completion import CompletionItem

    if not incomplete.startswith("-"):
        return []
    return [CompletionItem(flag, help=text) for flag, _, text in list_settings() if flag.startswith(incomplete)]


def _parse(parse: "Callable[[Context, list[str]], list[str]]", ctx: "Context", words: list[str]) -> list[str]:
    """Let Typer parse what is left, and turn its errors into ours."""
    try:
        return parse(ctx, [*words])  # which empties the list
    except typer.BadParameter as error:
        if isinstance(error.param, TyperArgument):
            word = error.param.metavar
        else:
            flag = error.param.opts[-1] if error.param else ""
            word = next((each for each in words if each.startswith(f"{flag}=")), flag)
        raise UsageError(ctx, f"{word}: {error.message}" if error.message else f"{word} is missing") from error
