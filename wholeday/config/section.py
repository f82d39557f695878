"""Read a section of luigi.cfg. Each key is also a flag: `url` in `[users]` is `--users-url`.

Responsibilities: values, and errors for unknown keys and unusable values, where Luigi only warns.
Non-goals: the keys, which the subclasses declare.
"""

import contextlib
import difflib
import functools
import re
from collections.abc import Iterable, Iterator
from configparser import InterpolationError
from typing import Any, ClassVar

import luigi
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import get_config

from wholeday.errors import ConfigError

MAY_BE_SECRET = ("url", "params", "body", "headers", "auth", "webhook")  # errors do not show their values

PERCENT = re.compile(r"%%|%\(|%")

Params = list[tuple[str, luigi.Parameter[Any]]]


class Section(luigi.Config):
    """A section of luigi.cfg, under the name `section`."""

    section: ClassVar[str]
    _visible_in_registry = False
    _cached: ClassVar[tuple[Any, list[tuple[str, Any]]]]
    """The origin of the values, and the values."""
    _defaults: ClassVar[dict[str, Any]]
    """The values of the keys that have been read while nothing set them."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._visible_in_registry = "section" in vars(cls)
        cls._cached, cls._defaults = ((), []), {}

    @classmethod
    def get_task_family(cls) -> str:
        return getattr(cls, "section", cls.__name__)

    @classmethod
    @functools.cache
    def get_params(cls) -> Params:
        """List the keys. Luigi searches all attributes for them, each time that a section is read."""
        return super().get_params()

    @classmethod
    def get_param_values(cls, params: Params, args: Any, kwargs: dict[str, Any]) -> list[tuple[str, Any]]:
        """Return the values of all keys. Raises ConfigError for an unknown key or an unusable value.

        A day reads its sections about fifty times, so the values are cached until their origin changes. Luigi makes
        three look-ups for each key, so they are left out for the keys that nothing sets.
        """
        if args or kwargs:
            return cls._read_values(params, args, kwargs)
        origin, (cached_origin, values) = cls._read_origin(), cls._cached
        if origin != cached_origin:
            values = cls._read_values(params, args, kwargs)
            cls._cached = origin, values
        return values

    @classmethod
    def _read_origin(cls) -> Any:
        """Return the flags and the text of the sections; None if luigi.cfg refers to an unknown variable."""
        conf = get_config()
        try:
            texts = [conf.items(name) if conf.has_section(name) else None for name in cls._list_sections()]
        except InterpolationError:
            return None
        return CmdlineParser.get_instance(), conf.sections(), texts

    @classmethod
    def _list_sections(cls) -> list[str]:
        """List the sections of luigi.cfg that the values come from."""
        return [cls.section]

    @classmethod
    def _read_values(cls, params: Params, args: Any, kwargs: dict[str, Any]) -> list[tuple[str, Any]]:
        double_percents(cls.section)
        cls._check_names([name for name, _ in params])
        given = {name for name, _ in params if cls._is_set(name)}
        cls._check_values([(name, param) for name, param in params if name in given])
        given |= {*kwargs} | ({*dict(params)} if args else set())
        known = {name: value for name, value in cls._defaults.items() if name not in given}
        values = super().get_param_values(params, args, known | kwargs)
        cls._defaults.update((name, value) for name, value in values if name not in given)
        return values

    @classmethod
    def _is_set(cls, name: str) -> bool:
        """Return whether a flag or luigi.cfg sets a key."""
        spellings = (name, name.replace("_", "-"))
        return read_flags().get(f"{cls.section}_{name}") is not None or any(
            get_config().has_option(cls.section, key) for key in spellings
        )

    @classmethod
    def _check_names(cls, known: list[str]) -> None:
        conf = get_config()
        if cls.section in conf.sections():
            for key in conf[cls.section]:
                if key.replace("-", "_") not in known and key not in conf.defaults():
                    raise ConfigError(f"luigi.cfg: [{cls.section}] has no key '{key}'{suggest_key(key, known)}")
            return
        for name in set(conf.sections()) - set(luigi.task_register.Register.task_names()):
            if difflib.get_close_matches(name.lower(), [cls.section], cutoff=0.8):
                raise ConfigError(f"luigi.cfg: unknown section [{name}]: did you mean [{cls.section}]?")

    @classmethod
    def _check_values(cls, params: Params) -> None:
        flags = read_flags()
        for name, value in flags.items():
            if value == "":  # from an unset variable in a script; Luigi would use the default
                raise ConfigError(f"the flag --{name.replace('_', '-')} is empty: give it a value, or leave it out")
        for name, param in params:
            value = flags.get(f"{cls.section}_{name}") or get_config().get(cls.section, name, None, raw=True)
            with explain_value(cls.section, name, value):
                param.has_task_value(cls.section, name)


class _Flags(CmdlineParser):
    """A command line of Luigi without --module and --help. Luigi's own class builds its parser three times."""

    def __init__(self, words: list[str]) -> None:
        self.known_args = self._build_parser(root_task=words[0]).parse_args(words)


@contextlib.contextmanager
def use_flags(task: Any, *flags: str) -> Iterator[None]:
    """Let Luigi read the flags of the command line of a task."""
    before = CmdlineParser.get_instance()
    CmdlineParser._instance = _Flags([task, *flags])
    try:
        yield
    finally:
        CmdlineParser._instance = before


@contextlib.contextmanager
def explain_value(section: str, name: str, value: Any) -> Iterator[None]:
    """Turn any error of the block into a ConfigError that names the key and its value, unless that may be secret."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # parameters raise errors of any class for a bad value
        shown = "" if name in MAY_BE_SECRET else f" = {value!r}"
        raise ConfigError(f"[{section}] {name}{shown} cannot be used: {error}") from error


def double_percents(section: str) -> None:
    """Escape each single % of a section for ConfigParser, as in a time format, unless it begins %(name)s."""
    conf = get_config()
    for key, text in conf.items(section, raw=True) if conf.has_section(section) else ():
        doubled = PERCENT.sub(lambda match: match[0] if match[0] != "%" else "%%", text or "")
        if doubled != (text or ""):
            conf.set(section, key, doubled)


def list_keys(section: str) -> list[str]:
    """List the keys of a section itself, without the keys of `[DEFAULT]`."""
    return list(get_config()._sections.get(section, ()))


def read_flags() -> dict[str, Any]:
    """Return the flags of Luigi's command line by the names of their keys: `users_url`."""
    parser = CmdlineParser.get_instance()
    return vars(parser.known_args) if parser else {}


def suggest_key(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f": did you mean '{near[0]}'?" if near else f"; it has: {', '.join(sorted(known))}"
