"""Datasets of one API share the keys of a section `[source.NAME]`."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from luigi.configuration import get_config

from wholeday.config.section import use_flags
from wholeday.config.shared import OWN
from wholeday.config.source import Source, make_section
from wholeday.errors import ConfigError
from wholeday.extract import day
from wholeday.extract.http.auth import name_source

Configure = Callable[..., None]

SECTION = make_section("repos")
BASE = "https://api.example.com/v3"


@pytest.fixture(autouse=True)
def clean(configure: Configure) -> None:
    """Describe one source, and a dataset that uses it."""
    for name in get_config().sections():
        if name.startswith(("source", "repos")):
            get_config().remove_section(name)
    configure("source.forge", url=BASE, auth="bearer:FORGE_TOKEN", page_size=50, timeout=7, max_wait="1 hour")
    configure("repos", url="/user/repos?sort=id", source="forge", timeout=9)


def read(*flags: str, **keys: Any) -> Source:
    with use_flags("ExtractUsers", *flags):
        return SECTION(**keys)


def read_error(*flags: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(*flags)
    return str(caught.value)


def test_dataset_takes_keys_of_its_source() -> None:
    settings = read()
    assert (settings.auth, settings.page_size, settings.max_wait) == ("bearer:FORGE_TOKEN", 50, dt.timedelta(hours=1))
    assert settings.retries == 5


def test_flag_before_dataset_before_source_before_preset_before_default(configure: Configure) -> None:
    assert (read().timeout, read("--repos-timeout", "11").timeout) == (9, 11)
    configure("source.forge", preset="github", headers='{"Accept": "text/json"}')
    settings = read()
    assert (settings.preset, settings.size_param, settings.paginator) == ("github", "per_page", "link_header")
    assert (settings.page_size, settings.headers) == (50, {"Accept": "text/json"})
    configure("repos", preset="stripe", page_size=3)
    assert (read().paginator, read().page_size, read().timeout) == ("last_id", 3, 9)
    assert read(timeout=12.0, auth="none").param_kwargs.items() >= {"timeout": 12.0, "auth": "none"}.items()


def test_section_of_defaults_comes_behind_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key of [DEFAULT] holds in the dataset, unless the source has its own. It need not be one that may be shared."""
    for key, text in {"page_size": "7", "retries": "8", "mode": "snapshot"}.items():
        monkeypatch.setitem(get_config().defaults(), key, text)
    settings = read()
    assert (settings.page_size, settings.retries, settings.mode) == (50, 8, "snapshot")


def test_params_and_headers_are_merged(configure: Configure) -> None:
    """The dataset wins, name by name. Names of headers have no case."""
    configure("source.forge", params='{"a": 1, "b": 2}', headers='{"Accept": "x", "X-Version": "1"}')
    assert (read().params, read().headers) == ({"a": 1, "b": 2}, {"Accept": "x", "X-Version": "1"})
    configure("repos", params='{"b": 3, "A": 4}', headers='{"accept": "y"}')
    assert read().params == {"a": 1, "b": 3, "A": 4}
    assert read().headers == {"X-Version": "1", "accept": "y"}
    assert read("--repos-params", '{"b": 5}').params == {"a": 1, "b": 5}
    copied = SECTION(**read().param_kwargs)
    assert copied.param_kwargs == read().param_kwargs


@pytest.mark.parametrize(
    ("base", "url", "joined"),
    [
        (BASE, "/user/repos", f"{BASE}/user/repos"),
        (f"{BASE}/", "/user/repos?since={day_start}", f"{BASE}/user/repos?since={{day_start}}"),
        (BASE, "/search?to=http://a/../b//c", f"{BASE}/search?to=http://a/../b//c"),
        (BASE, "/", f"{BASE}/"),
        (BASE, "/files/a..b/{repos.name}", f"{BASE}/files/a..b/{{repos.name}}"),
        (BASE, "https://other.example.com/all", "https://other.example.com/all"),
        ("http://ann:pw@h:81/x", "/y", "http://ann:pw@h:81/x/y"),
    ],
)
def test_path_follows_the_base_url(configure: Configure, base: str, url: str, joined: str) -> None:
    configure("source.forge", url=base)
    configure("repos", url=url)
    assert read().url == joined
    assert read("--repos-url", "/else").url == f"{base.rstrip('/')}/else"


def test_identity_of_a_dataset_is_its_joined_url() -> None:
    assert name_source(read()) == f"{BASE}/user/repos"


def test_day_resumes_when_its_keys_move_to_a_source(configure: Configure) -> None:
    """The same requests have the same digest."""
    configure("repos", headers='{"A": "1"}', params='{"b": 2}')
    shared = read()
    get_config().remove_section("repos")
    alone = {"headers": '{"A": "1"}', "params": '{"b": 2}', "page_size": 50}
    configure("repos", url=f"{BASE}/user/repos?sort=id", **alone)
    assert (read().source, shared.source) == ("", "forge")
    assert day._digest_request(read(), 9, None) == day._digest_request(shared, 9, None)
    configure("repos", page_size=51)
    assert day._digest_request(read(), 9, None) != day._digest_request(shared, 9, None)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("//evil.example.com/repos", "begins with //"),
        ("/../admin", "has a part . or .."),
        ("/a/%2E%2e/b", "has a part . or .."),
        ("/a/./b?c", "has a part . or .."),
        ("user/repos", "is neither a path that begins with / nor a whole URL"),
        ("user?to=http://a", "is neither a path that begins with / nor a whole URL"),
    ],
)
def test_unusable_path_is_refused(configure: Configure, url: str, problem: str) -> None:
    configure("repos", url=url)
    message = read_error()
    assert message.startswith(f"[repos] url {problem}")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("base", "problem"),
    [
        ("", "is missing"),
        ("api.example.com", "has no scheme"),
        (f"{BASE}?key=hunter2", "has a query"),
        (f"{BASE}#hunter2", "has a query or a fragment"),
    ],
)
def test_unusable_base_url_is_refused(configure: Configure, base: str, problem: str) -> None:
    """The error does not show it: it may hold a secret."""
    configure("source.forge", url=base)
    message = read_error()
    assert message.startswith(f"luigi.cfg: [source.forge] url {problem}")
    assert "hunter2" not in message


def test_source_without_url_is_refused() -> None:
    get_config().remove_option("source.forge", "url")
    assert read_error().startswith("luigi.cfg: [source.forge] url is missing")


@pytest.mark.parametrize("name", ["sources.forge", "source.frge", "Source.forge"])
def test_misspelt_section_of_source_is_named(configure: Configure, name: str) -> None:
    get_config().remove_section("source.forge")
    configure(name, url=BASE)
    assert read_error() == (
        f"[repos] source = forge: luigi.cfg has no section [source.forge]; it has [{name}]: correct one of the names"
    )


def test_unknown_source_is_refused() -> None:
    assert read_error("--repos-source", "shop") == (
        "[repos] source = shop: luigi.cfg has no section [source.shop]: add it, with the url of the API"
    )


def test_path_without_source_is_refused() -> None:
    get_config().remove_option("repos", "source")
    assert read_error().startswith("[repos] url is a path, which needs a source: set source to the NAME of a section")


def test_flag_names_the_source(configure: Configure) -> None:
    get_config().remove_option("repos", "source")
    assert read("--repos-source", "forge").url == f"{BASE}/user/repos?sort=id"
    configure("source.other", url="http://other")
    assert read("--repos-source", "other").url == "http://other/user/repos?sort=id"
    assert read("--repos-source", "forge", "--repos-url", "http://a/b").url == "http://a/b"


def test_unknown_key_of_source_suggests_nearest(configure: Configure) -> None:
    configure("source.forge", requests_per_secnd=3)
    assert read_error() == (
        "luigi.cfg: [source.forge] has no key 'requests_per_secnd': did you mean 'requests_per_second'?"
    )


@pytest.mark.parametrize("key", sorted(OWN))
def test_key_of_one_dataset_cannot_be_shared(configure: Configure, key: str) -> None:
    configure("source.forge", **{key: "1"})
    assert read_error() == (f"luigi.cfg: [source.forge] {key} belongs to one dataset: move it to the dataset's section")


def test_own_keys_exist() -> None:
    assert dict(Source.get_params()).keys() > OWN


@pytest.mark.parametrize(("key", "shown"), [("timeout", " = 'hunter2'"), ("params", ""), ("headers", "")])
def test_unusable_value_names_section_of_source(configure: Configure, key: str, shown: str) -> None:
    """A value that may be secret is not shown."""
    configure("source.forge", **{key: "hunter2"})
    message = read_error()
    assert message.startswith(f"[source.forge] {key}{shown} cannot be used: ")
    assert ("hunter2" in message.partition(":")[0]) == bool(shown)


@pytest.mark.parametrize("key", ["params", "headers"])
def test_shared_list_is_no_object(configure: Configure, key: str) -> None:
    configure("source.forge", **{key: "[1]"})
    assert read_error().startswith(f"[source.forge] {key} must be a JSON object")


def test_unknown_variable_in_source_is_one_line(configure: Configure) -> None:
    configure("source.forge", next_link="${NO_SUCH_VARIABLE}")
    assert read_error().startswith("[source.forge] next_link = '${NO_SUCH_VARIABLE}' cannot be used: ")


def test_change_of_the_source_is_noticed(configure: Configure) -> None:
    """The values are cached while the flags are the same."""
    assert SECTION().page_size == 50
    configure("source.forge", page_size=51, concurrency=9)
    assert (SECTION().page_size, SECTION().concurrency) == (51, 9)
    get_config().remove_option("source.forge", "concurrency")
    assert SECTION().concurrency == 4
    with use_flags("ExtractUsers", "--repos-source", "other"):
        configure("source.other", url=BASE, page_size=1)
        assert SECTION().page_size == 1
        configure("source.other", page_size=2)
        assert SECTION().page_size == 2


def test_single_percent_in_source_is_text(configure: Configure) -> None:
    configure("source.forge", cursor_param="after")
    get_config().read_string('[source.forge]\nparams = {"q": "{day_start:%Y-%m-%d}", "r": "%(cursor_param)s"}')
    assert read().params == {"q": "{day_start:%Y-%m-%d}", "r": "after"}


def test_secrets_of_source_are_found(configure: Configure) -> None:
    configure("source.forge", params='{"api_key": "hunter2hunter2"}')
    assert "hunter2hunter2" in read().secrets
