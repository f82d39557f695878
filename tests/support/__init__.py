"""Share helpers between tests: servers, sources, warehouses, the model, and the project's commands."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
