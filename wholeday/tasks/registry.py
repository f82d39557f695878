"""Know in which module the tasks of each dataset are, and spell the commands that name it."""

from typing import Any

DEFAULT_MODULE = "pipeline"
MODULES: dict[str, str] = {}
"""The module of each dataset's Load task, by the name of the dataset."""


def spell_command(dataset: str, *words: Any) -> str:
    """Return the command that does something to one dataset: `./run.sh backfill START STOP --module orders`.

    The module is left out where the default module holds no other dataset.
    """
    module = MODULES.get(dataset, DEFAULT_MODULE)
    modules = {dataset: module} | MODULES
    in_default = [name for name, where in modules.items() if f"{where}.".startswith(f"{DEFAULT_MODULE}.")]
    flag = [] if in_default == [dataset] else ["--module", module]
    return " ".join(map(str, ["./run.sh", *words, *flag]))
