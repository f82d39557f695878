"""Read the sections of luigi.cfg, presets and placeholders."""
