"""Run the stages with Luigi: tasks of a day, ranges, backfills, alerts, luigid."""
