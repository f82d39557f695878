"""Extract a day: from the source to raw files."""
