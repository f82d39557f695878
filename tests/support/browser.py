"""Open pages in the local Chromium and read their text, requests, errors and screenshots.

Responsibilities: a browser process with its own profile, controlled over a pipe in its own protocol (CDP). Only
Chromium must be installed. The browser resolves no host name except localhost, so no request leaves the machine.

    with Browser(tmp_path) as browser:
        page = browser.open(Path("report.html"), width=390, height=844, dark=True)
        page.wait_for("document.querySelector('table')")
        assert "up to date" in page.text()
        assert (page.errors(), page.requests()) == ([], [])
        page.screenshot(Path("report.png"))
"""

import base64
import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any, Self

from tests.support.project import need

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)
PATIENCE = 30  # seconds for a response, or until a condition holds


class Browser:
    """Chromium while the `with` block runs, with its profile below `folder`. Skip the test if it is missing."""

    def __init__(self, folder: Path) -> None:
        command = [need("chromium"), *FLAGS, f"--user-data-dir={folder / 'chromium'}", "--remote-debugging-pipe"]
        # The browser expects commands on descriptor 3 and writes to 4, so bash renumbers the pipes.
        read, self._write = os.pipe()
        self._read, write = os.pipe()
        pipes = f'exec "$@" 3<&{read} 4>&{write}'
        self._process = subprocess.Popen(
            ["bash", "-c", pipes, "bash", *command, "about:blank"],
            pass_fds=(read, write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read)
        os.close(write)
        self._buffer, self._number = b"", 0
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.call("Browser.close")
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._write)
            os.close(self._read)

    def open(self, where: str | Path, width: int = 1280, height: int = 900, dark: bool = False) -> "Page":
        """Load a URL or file in a new tab with this size and colour scheme."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        url = where.resolve().as_uri() if isinstance(where, Path) else where
        if problem := page.call("Page.navigate", url=url).get("errorText"):
            raise ConnectionError(f"{url}: {problem}")
        page.wait_for("document.readyState == 'complete' && location.href != 'about:blank'")
        return page

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command of the protocol and return its result. Keep events that arrive before it in `events`."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0, deadline - time.monotonic()))
            data = os.read(self._read, 1 << 20) if ready else b""
            if not data:
                raise TimeoutError(f"Chromium says nothing (exit code {self._process.poll()})")
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer


class Page:
    """An open tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the protocol to this tab."""
        return self._browser.call(method, self._session, **params)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, or of its promise."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if details := answer.get("exceptionDetails"):
            raise RuntimeError(f"{expression}: {details.get('exception', {}).get('description', details['text'])}")
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + PATIENCE
        while not self.evaluate(f"!!({expression})"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"in {PATIENCE} s it did not come true: {expression}")
            time.sleep(0.05)

    def text(self) -> str:
        """Return the visible text of the page."""
        text: str = self.evaluate("document.body.innerText")
        return text

    def errors(self) -> list[str]:
        """Return the warnings and errors of the console, and uncaught exceptions."""
        found = []
        for method, params in self._events():
            if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                found.append(" ".join(str(arg.get("value", arg.get("description"))) for arg in params["args"]))
            elif method == "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                found.append(details.get("exception", {}).get("description", details["text"]))
            elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(f"{params['entry']['text']} {params['entry'].get('url', '')}".strip())
        return found

    def requests(self) -> list[str]:
        """Return the requested URLs, without the page's own and embedded ones (data:, blob:)."""
        own = self.evaluate("location.href.split('#')[0]")
        urls = [params["request"]["url"] for method, params in self._events() if method == "Network.requestWillBeSent"]
        return [url for url in urls if url != own and not url.startswith(("data:", "blob:"))]

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """Save a PNG of the whole page, or of the visible part."""
        self.call("Page.bringToFront")  # a background tab is not painted
        size = self.call("Page.getLayoutMetrics")["cssContentSize"] if whole else None
        clip = {"clip": size | {"scale": 1}} if size else {}
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **clip)["data"]
        path.write_bytes(base64.b64decode(data))

    def _events(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the events of this tab so far."""
        self.evaluate("1")
        events = self._browser.events
        return [(event["method"], event["params"]) for event in events if event.get("sessionId") == self._session]
