"""Test the browser helper: it reports the text, requests and errors of a page."""

from pathlib import Path

import pytest

from tests.support.browser import Browser
from tests.support.server import Answer, Server

pytestmark = pytest.mark.slow

PAGE = """<!doctype html><title>t</title><link rel="icon" href="data:,">
<style>body { width: 3000px; height: 2000px } @media (prefers-color-scheme: dark) { b { display: none } }</style>
<p>seen <b>by day</b> <span hidden>unseen</span></p>
"""


def measure(picture: Path) -> tuple[int, int]:
    """Return the width and height of a PNG."""
    return int.from_bytes(picture.read_bytes()[16:20]), int.from_bytes(picture.read_bytes()[20:24])


def test_browser_reports_text_requests_and_errors(tmp_path, server: Server):
    """Hidden text is left out. Errors include console messages, exceptions and failed requests."""
    url = server.on(
        "/page",
        Answer(
            PAGE
            + """
        <script>fetch("/more").then(() => { document.title = "came"; console.error("wrong", 1) })</script>
        <script>nobody()</script><img src="http://example.com/pixel.png">""",
            headers={"Content-Type": "text/html"},
        ),
    )
    more = server.on("/more", Answer([]))
    with Browser(tmp_path) as browser:
        page = browser.open(url)
        page.wait_for("document.title == 'came'")
        assert page.text().split() == ["seen", "by", "day"]
        assert set(page.requests()) == {"http://example.com/pixel.png", more}
        told = " | ".join(page.errors())
        assert "wrong 1" in told
        assert "nobody is not defined" in told
        assert "ERR_NAME_NOT_RESOLVED http://example.com/pixel.png" in told


def test_browser_sets_size_and_color_scheme(tmp_path):
    """Pages are isolated. A screenshot shows the window or the whole page."""
    file = Path("page.html")
    file.write_text(PAGE)
    with Browser(tmp_path) as browser:
        wide, dark = browser.open(file), browser.open(file, width=390, height=844, dark=True)
        assert wide.text().split() == ["seen", "by", "day"]
        assert dark.text().split() == ["seen"]
        assert (wide.evaluate("innerWidth"), dark.evaluate("screen.width")) == (1280, 390)
        assert (dark.errors(), dark.requests()) == ([], [])
        for name, whole in {"window.png": False, "whole.png": True}.items():
            wide.screenshot(Path(name), whole=whole)
        (width, height), (whole_width, whole_height) = (measure(Path(name)) for name in ("window.png", "whole.png"))
        assert (width, height) == (1280, 900)
        assert whole_width >= 3000
        assert whole_height >= 2000
