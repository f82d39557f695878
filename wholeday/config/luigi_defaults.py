"""Set defaults of Luigi's own sections, so that no failure is silent."""

import re
import warnings
from collections.abc import Iterable

from luigi.configuration import get_config
from luigi.parameter import UnconsumedParameterWarning

LUIGI_DEFAULTS = {
    # Luigi exits with 0 after a failure.
    "retcode": {
        "already_running": "10",
        "missing_data": "20",
        "not_run": "25",
        "task_failed": "30",
        "scheduling_error": "35",
        "unhandled_exception": "40",
    },
    # With Luigi's lock, a second identical command exits without a result. Each day has a lock of its own instead.
    "core": {"no_lock": "true"},
    "worker": {"check_complete_on_run": "true"},
    # Luigi's summary, from which one line is shown, leaves out all but five classes of tasks.
    "execution_summary": {"summary_length": "0"},
}


def set_luigi_defaults() -> None:
    """Set the keys that luigi.cfg does not set. They apply without a luigi.cfg too."""
    config = get_config()
    for section, keys in LUIGI_DEFAULTS.items():
        for key, value in keys.items():
            if not config.has_option(section, key):
                config.set(section, key, value)
    _ignore_shared_keys(config.defaults())


def _ignore_shared_keys(keys: Iterable[str]) -> None:
    """Let sections leave out keys of [DEFAULT]: Luigi warns of each, and shows its value, which may be a secret."""
    if names := "|".join(re.escape(key.replace("-", "_")) for key in keys):
        warnings.filterwarnings(
            "ignore", rf"The configuration contains the parameter '({names})' ", UnconsumedParameterWarning
        )
