"""Draw the pictures of the README: `python -m docs.pictures`, in the environment of `./run.sh test`.

The terminal and the report show what the commands print for the embedded demo source. The report needs Chromium.
"""

import base64
import datetime as dt
import io
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.support.browser import Browser

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
SHOWN = ("load 2026-11-20", "load 2026-11-20", "backfill 2026-11-18 2026-11-22")
REPORTED_DAYS = 50
CUT = {"x": 0, "y": 0, "width": 1000, "height": 930, "scale": 1}  # of the report, in pixels


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "luigi.cfg", folder)
        shutil.copytree(ROOT / "pipeline", Path(folder, "pipeline"))
        (IMAGES / "terminal.svg").write_text(draw_terminal(Path(folder)))
        shutil.rmtree(Path(folder, "data"))
        today = dt.datetime.now(dt.UTC).date()
        run(Path(folder), f"backfill {today - dt.timedelta(days=REPORTED_DAYS)} {today}")
        run(Path(folder), "report")
        with Browser(Path(folder, "browser")) as browser:
            page = browser.open(Path(folder, "data", "report.html"), width=1000, height=CUT["height"])
            picture = page.call("Page.captureScreenshot", clip=CUT)["data"]
            (IMAGES / "report.png").write_bytes(base64.b64decode(picture))


def draw_terminal(folder: Path) -> str:
    """Run the commands in a folder with luigi.cfg and pipeline/. Return the terminal as SVG, without remote fonts."""
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
    for command in SHOWN:
        console.print(Text(f"$ wholeday {command}", style="bold"))
        console.print(Text(run(folder, command)), end="")
    svg = console.export_svg(title="wholeday", unique_id="terminal")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def run(folder: Path, command: str) -> str:
    """Run a command of wholeday. Return what it prints."""
    words = [sys.executable, "-m", "wholeday", *command.split()]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True).stdout  # noqa: S603


if __name__ == "__main__":
    main()
