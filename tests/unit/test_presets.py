"""Presets: their keys, and the keys that override them."""

import datetime as dt
from collections.abc import Callable

import pytest
from luigi.cmdline_parser import CmdlineParser

import pipeline.users  # noqa: F401 - Luigi must know LoadUsers
from tests.support.reading import People
from wholeday.config.placeholders import find_placeholders
from wholeday.config.presets import PRESETS
from wholeday.config.source import Source
from wholeday.errors import ConfigError

OF_THE_USER = {"url", "auth", "preset", "accept", "timezone"}


def use(**keys: str) -> People:
    return People(url="http://127.0.0.1/users", **keys)


@pytest.mark.parametrize("name", PRESETS)
def test_preset_has_valid_keys(name: str) -> None:
    """None of them is url, auth or another key of the user."""
    params, source = dict(Source.get_params()), use(preset=name)
    for key, text in PRESETS[name].items():
        assert key in params.keys() - OF_THE_USER
        assert getattr(source, key) == params[key].normalize(params[key].parse(text))
        assert getattr(source, key) != getattr(use(), key), f"{key} is as it is without the preset"
    find_placeholders(source)


@pytest.mark.parametrize("name", PRESETS)
def test_preset_needs_no_detection(name: str) -> None:
    """It names the paginator, and the list unless the body is the list."""
    source = use(preset=name)
    assert source.paginator != "auto"
    assert (source.data_selector == "auto") == (name in {"jsonplaceholder", "github", "gitlab", "keycloak"})


def test_mode_of_preset() -> None:
    """Incremental only if the API finds all changes; otherwise a snapshot, which shows deletions too."""
    assert {name for name in PRESETS if use(preset=name).mode == "incremental"} == {"scim", "zendesk", "hubspot"}


def test_presets_keep_rate_limits() -> None:
    paces = {name: pace for name in PRESETS if (pace := use(preset=name).requests_per_second)}
    assert paces == {"zendesk": 0.16, "stripe": 25, "hubspot": 4}
    assert use(preset="github").max_wait > dt.timedelta(hours=1)


def test_luigi_cfg_and_flags_override_preset(configure: Callable[..., None]) -> None:
    configure("people", preset="stripe", page_size=7)
    source = use()
    assert (source.preset, source.page_size, source.paginator) == ("stripe", 7, "last_id")
    with CmdlineParser.global_instance(["LoadUsers", "--people-page-size", "9", "--people-mode", "incremental"]):
        source = use()
    assert (source.page_size, source.mode, source.paginator) == (9, "incremental", "last_id")


def test_defaults_without_preset() -> None:
    assert (use().paginator, use().mode, use().headers) == ("auto", "incremental", {})


def test_unknown_preset_is_refused(configure: Callable[..., None]) -> None:
    """The line lists the known ones."""
    configure("people", preset="strype")
    with pytest.raises(ConfigError, match="strype") as caught:
        use()
    assert "stripe" in str(caught.value)
