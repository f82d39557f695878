"""TLS: permanent problems fail at once, with the next step."""

import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.support.project import need
from tests.support.reading import read, read_error
from tests.support.server import Answer, Dripper, Server
from wholeday.errors import SourceError
from wholeday.extract.http.session import find_tls_problem
from wholeday.tasks.alerts import post

Serve = Callable[..., Server]
KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


class Authority:
    """A CA with its certificate in the file `path`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._key, self.path = folder / f"{name}.key", folder / f"{name}.pem"
        usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]  # Python 3.13 refuses a CA without it
        self._run(
            "req", "-x509", *KEY, "-keyout", self._key, "-out", self.path, *usage, "-days", 1, "-subj", f"/CN={name}"
        )

    def make_context(self, host: str = "localhost", days: int = 1) -> ssl.SSLContext:
        """The side of a server whose certificate is for `host` and ends after so many days."""
        key, request, signed = (self.path.with_name(f"{host}.{days}.{kind}") for kind in ("key", "csr", "pem"))
        names = f"subjectAltName=DNS:{host}"
        self._run("req", "-new", *KEY, "-keyout", key, "-out", request, "-subj", f"/CN={host}", "-addext", names)
        signing = ["-CA", self.path, "-CAkey", self._key, "-CAcreateserial", "-copy_extensions", "copy"]
        self._run("x509", "-req", "-in", request, *signing, "-days", days, "-out", signed)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(signed, key)
        return context

    @staticmethod
    def _run(*arguments: object) -> None:
        subprocess.run([need("openssl"), *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Authority]:
    """Create the CA of a company, and another one."""
    folder = tmp_path_factory.mktemp("authorities")
    return Authority(folder, "company"), Authority(folder, "other")


@pytest.fixture
def serve() -> Iterator[Callable[[ssl.SSLContext], Server]]:
    """Start a server that speaks TLS and has one user at /users."""
    servers: list[Server] = []

    def start(context: ssl.SSLContext) -> Server:
        servers.append(Server(context).__enter__())
        servers[-1].on("/users", Answer([{"id": 1}]))
        return servers[-1]

    yield start
    for each in servers:
        each.__exit__(None, None, None)


@pytest.fixture(autouse=True)
def no_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore the settings of this machine."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


def test_company_ca_is_trusted_by_its_file(authorities, serve, monkeypatch):
    """REQUESTS_CA_BUNDLE names it."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authorities[0].path))
    assert read(serve(authorities[0].make_context()).url + "/users") == [{"id": 1}]


@pytest.mark.parametrize("bundle", ["", "other", "no certificate"])
def test_unknown_ca_fails_at_once(authorities, serve, monkeypatch, tmp_path, caplog, bundle):
    """The line names the variable, even if it is set to another CA or to a file without a certificate."""
    (tmp_path / "none.pem").write_text("no certificate")
    path = {"": "", "other": str(authorities[1].path), "no certificate": str(tmp_path / "none.pem")}[bundle]
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", path)
    server = serve(authorities[0].make_context())
    line = read_error(server.url + "/users", retries=5)
    assert "REQUESTS_CA_BUNDLE" in line
    assert (
        "the CA certificates cannot be read" if bundle == "no certificate" else "is not trusted: unable to get"
    ) in line
    assert "PEM file" in line
    assert "retry" not in caplog.text
    assert not server.requests


@pytest.mark.parametrize(
    ("host", "days", "words"),
    [
        ("api.example.com", 1, r"Hostname mismatch.*use the host name in the certificate"),
        ("localhost", -1, r"certificate has expired: check the clock.*renew the certificate.*REQUESTS_CA_BUNDLE"),
    ],
)
def test_invalid_certificate_fails_at_once(authorities, serve, monkeypatch, caplog, host, days, words):
    """Each problem has its own next step."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authorities[0].path))
    server = serve(authorities[0].make_context(host, days))
    line = read_error(server.url + "/users", retries=5)
    assert re.search(words, line)
    assert "retry" not in caplog.text


def test_https_on_an_http_port_fails_at_once(server, caplog):
    """The line says what to check."""
    line = read_error(server.on("/users", Answer([])).replace("http://", "https://"), retries=5)
    assert "the TLS handshake with the server failed" in line
    assert "check that the server speaks https on this port" in line
    assert "retry" not in caplog.text


def test_certificate_of_proxy_is_named(authorities, serve, monkeypatch):
    """The hint is the same; the line names the proxy."""
    monkeypatch.setenv("https_proxy", serve(authorities[0].make_context()).url)
    line = read_error("https://api.example.com/users", retries=5)
    assert "the proxy's certificate is not trusted" in line
    assert "REQUESTS_CA_BUNDLE" in line


def test_interrupted_tls_connection_is_retried():
    """In the middle of the handshake too."""
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=lambda: [listener.accept()[0].close() for _ in range(2)])
    thread.start()
    line = read_error(f"https://localhost:{listener.getsockname()[1]}/users", retries=1)
    thread.join()
    listener.close()
    assert "failed after 2 attempts" in line


@pytest.mark.slow
def test_deadline_holds_over_tls(authorities, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authorities[0].path))
    monkeypatch.setattr("wholeday.extract.http.deadline.MAX_SECONDS", 0.5)
    start = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    with Dripper(start, b" ", tls=authorities[0].make_context()) as dripper:
        started = time.monotonic()
        line = read_error(f"https://localhost:{dripper.port}/users")
    assert "the request took longer than 0.5 seconds" in line
    assert time.monotonic() - started < 30  # without the deadline, the answer never ends


@pytest.mark.parametrize(
    ("away", "how", "hint", "no_hint"),
    [
        ("http://localhost", "link", "next_link = path", "set url to it"),
        ("http://localhost", "redirect", "that needs no redirect", "set url to it|next_link"),
        ("ftp://localhost", "link", "check paginator", "set url to it|next_link"),
        ("https://127.0.0.1", "link", "next_link = path; if that host is the one to read, set url to it", "^$"),
        ("https://127.0.0.1", "redirect", "if that host is the one to read, set url to it", "next_link"),
    ],
)
def test_no_hint_sends_the_token_unencrypted(authorities, serve, monkeypatch, away, how, hint, no_hint):
    """For a source that links from https to http, the line suggests next_link = path."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authorities[0].path))
    monkeypatch.setenv("PEOPLE_TOKEN", "token-of-nobody")
    server = serve(authorities[0].make_context())
    target = f"{away}:{server.url.rpartition(':')[2]}/two"
    link = Answer([{"id": 1}], headers={"Link": f"<{target}>; rel=next"})
    server.on("/users", link if how == "link" else Answer(status=302, headers={"Location": target}))
    line = read_error(server.url + "/users", auth="bearer:PEOPLE_TOKEN")
    assert re.search(hint, line)
    assert not re.search(no_hint, line)
    assert len(server.requests) == 1
    if "next_link" in hint:
        server.on("/two", Answer([{"id": 2}]))
        keys = {"auth": "bearer:PEOPLE_TOKEN", "next_link": "path"}
        assert read(server.url + "/users", **keys) == [{"id": 1}, {"id": 2}]


@pytest.mark.parametrize(
    ("reason", "fatal"),
    [
        ("TLSV1_ALERT_INTERNAL_ERROR", False),
        ("SSLV3_ALERT_BAD_RECORD_MAC", False),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", True),
        ("TLSV1_ALERT_PROTOCOL_VERSION", True),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", True),
    ],
)
def test_tls_alert_of_a_failing_server_is_retried(reason, fatal):
    """Other alerts fail at once."""
    error = ssl.SSLError(1, f"[SSL: {reason}] an alert")
    error.reason = reason
    assert (find_tls_problem(requests.exceptions.SSLError(error)) is not None) == fatal


def test_token_endpoint_and_webhook_name_the_variable(authorities, serve, monkeypatch):
    url = serve(authorities[0].make_context()).url
    for name, value in {"PEOPLE_ID": "id", "PEOPLE_SECRET": "secret-of-nobody", "HOOK": f"{url}/s3cr3t"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SourceError) as caught:
        read(f"{url}/users", auth=f"oauth2:{url}/token:PEOPLE_ID:PEOPLE_SECRET")
    line = str(caught.value)
    assert line.startswith(f"[people] auth: POST {url}/token: the certificate is not trusted")
    told = post("HOOK", {"text": "a day failed"}) or ""
    assert "REQUESTS_CA_BUNDLE" in line
    assert "REQUESTS_CA_BUNDLE" in told
    assert "s3cr3t" not in told
