"""Run the stages with Luigi: tasks of a day, ranges, backfills, alerts, luigid.

Importing this package sets up the process, as `luigi --module pipeline` runs no entry point of ours.
"""

from wholeday.config.luigi_defaults import set_luigi_defaults
from wholeday.tasks.console import set_up_console

set_luigi_defaults()
set_up_console()
