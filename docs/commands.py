"""Write the reference of the commands, `docs/reference/commands.md`, from the program: `python -m docs.commands`."""

import re
from itertools import groupby
from pathlib import Path

from typer.core import TyperArgument, TyperOption

from wholeday.commands.cli import COMMANDS, Entry, make_program

PAGE = Path(__file__).parent / "reference" / "commands.md"
INTRODUCTION = """# Commands

`wholeday --help` and `wholeday COMMAND --help` print the same. In a clone of the repository, `./run.sh COMMAND` stands
for `wholeday COMMAND`. [Exit codes](exit-codes.md) has the meaning of each code.

- Every key of `luigi.cfg` is a flag too, before or behind the command: `--users-url` is the key `url` of the section
  `[users]`. [Configuration](configuration.md) has all keys.
- A command that takes `--dataset NAME` works on every dataset in `pipeline/` without it. A file there that cannot be
  imported fails these commands with one line.
- A misspelt command or flag is an error, with the nearest name.
- `wholeday --install-completion` adds completion to your shell.
"""


def main() -> None:
    PAGE.write_text(build_page())


def build_page() -> str:
    """Return the page: a section for each group of commands."""
    program = make_program()
    texts = [INTRODUCTION]
    for group, entries in groupby(COMMANDS, lambda entry: entry.group):
        texts.append(f"\n## {group}\n")
        texts += [build_section(entry, program.commands[entry.name].load().params) for entry in entries]
    return "".join(texts)


def build_section(entry: Entry, params: list[TyperArgument | TyperOption]) -> str:
    """Return the summary of a command, an example, and a table of its arguments and options."""
    rows = [f"| {spell(param)} | {explain(param)} |\n" for param in params if "--help" not in param.opts]
    table = ["\n| argument, option | meaning |\n|---|---|\n", *rows] if rows else []
    return f"\n### {entry.name}\n\n{entry.summary}\n\n```text\nwholeday {entry.example}\n```\n{''.join(table)}"


def spell(param: TyperArgument | TyperOption) -> str:
    """Return the spelling of a parameter, as inline code."""
    if isinstance(param, TyperArgument):
        return f"`{param.metavar or param.name.upper()}`"
    value = "" if param.is_flag else f" {param.metavar or param.name.upper()}"
    return f"`{', '.join(param.opts)}{value}`"


def explain(param: TyperArgument | TyperOption) -> str:
    """Return the help of a parameter, with its default."""
    text = re.sub(r"\s+", " ", param.help or "").replace("|", r"\|")
    default = param.default
    shown = f" Default: {default}." if param.show_default and default and not callable(default) else ""
    return f"{text}{shown}"


if __name__ == "__main__":
    main()
