"""Load a day: from clean files to tables, in one transaction."""
