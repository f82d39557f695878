"""The presets: what they may hold, and what goes before them."""

import datetime as dt
from collections.abc import Callable

import pytest
from luigi.cmdline_parser import CmdlineParser

import pipeline.users  # noqa: F401 - Luigi must know LoadUsers
from tests.support.reading import People
from wholeday.config import presets
from wholeday.config.placeholders import find_placeholders
from wholeday.config.source import Source
from wholeday.errors import ConfigError

NAMES = [
    *("jsonplaceholder", "dummyjson", "reqres", "randomuser", "github", "gitlab"),
    *("scim", "keycloak", "zendesk", "stripe", "hubspot", "graph"),
]
OF_THE_USER = {"url", "auth", "preset", "accept", "timezone"}


def use(**keys: str) -> People:
    return People(url="http://127.0.0.1/users", **keys)


def test_the_presets_are_known_by_name() -> None:
    """The APIs that many people read, and no other."""
    assert presets.names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_keys_of_a_section(name: str) -> None:
    """Every key is one of a source and can be understood, and none is the user's own."""
    params, source = dict(Source.get_params()), use(preset=name)
    for key, text in presets.get_keys(name).items():
        assert key in params.keys() - OF_THE_USER
        assert getattr(source, key) == params[key].normalize(params[key].parse(text))
        assert getattr(source, key) != getattr(use(), key), f"{key} is as it is without the preset"
    find_placeholders(source)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_leaves_nothing_to_be_found_out(name: str) -> None:
    """How pages follow each other is said, and where the list is, unless it is the body itself."""
    source = use(preset=name)
    assert source.paginator != "auto"
    assert (source.data_selector == "auto") == (name in {"jsonplaceholder", "github", "gitlab", "keycloak"})


def test_what_a_vendor_cannot_say_decides_the_mode() -> None:
    """Only an API that finds who changed is read by days; the others show everybody, and so who is gone."""
    assert {name for name in NAMES if use(preset=name).mode == "incremental"} == {"scim", "zendesk", "hubspot"}


def test_the_limits_of_the_vendors_are_kept() -> None:
    """A pace is set where the vendor names one, and GitHub's hour is waited for."""
    paces = {name: pace for name in NAMES if (pace := use(preset=name).requests_per_second)}
    assert paces == {"zendesk": 0.16, "stripe": 25, "hubspot": 4}
    assert use(preset="github").max_wait > dt.timedelta(hours=1)


def test_a_key_of_luigi_cfg_goes_before_a_preset(configure: Callable[..., None]) -> None:
    """What a preset says is in the place of a default, whoever names the preset."""
    configure("people", preset="stripe", page_size=7)
    source = use()
    assert (source.preset, source.page_size, source.paginator) == ("stripe", 7, "last_id")


def test_a_flag_goes_before_a_preset(configure: Callable[..., None]) -> None:
    """The command line goes before luigi.cfg and the preset."""
    configure("people", preset="stripe", page_size=7)
    with CmdlineParser.global_instance(["LoadUsers", "--people-page-size", "9", "--people-mode", "incremental"]):
        source = use()
    assert (source.page_size, source.mode, source.paginator) == (9, "incremental", "last_id")


def test_without_a_preset_nothing_is_set() -> None:
    """The defaults are those of the keys."""
    assert (use().paginator, use().mode, use().headers) == ("auto", "incremental", {})


def test_an_unknown_preset_is_refused(configure: Callable[..., None]) -> None:
    """The line says which there are."""
    configure("people", preset="strype")
    with pytest.raises(ConfigError, match="strype") as caught:
        use()
    assert "stripe" in str(caught.value)
