"""Transform a day: from raw files to clean files."""
