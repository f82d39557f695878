"""Whoever is to know that a day failed is told: a POST to the URL that `webhook` names, once for a day and a cause.

Owns what is told, and the memory of it beside the failures. Refuses to fail a run, or to hold it up for long: a webhook
that does not answer is a warning, and is left alone for a while.
"""

import contextlib
import datetime as dt
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from wholeday import clock
from wholeday.config.settings import Pipeline
from wholeday.errors import ConfigError, PipelineError
from wholeday.log import logger
from wholeday.redaction import Mask
from wholeday.storage.backends import open_storage
from wholeday.tasks.dataset import Dataset, spell_command
from wholeday.tasks.failures import Failure, add_line, find_path, read_lines
from wholeday.text import clean_chat

LATE = "late"  # the stage of a day that is told of because it is not there in time
LOADED = "loaded"  # that of one which was told of and is well, in what is remembered
PATIENCE = 4.0  # seconds for an answer, whatever takes them: a name that is not found, a body that does not end
PAUSE = dt.timedelta(minutes=1)  # for which a webhook that did not answer is not asked again

DIFFERENT = re.compile(r"\w*\d\w*")
URL = re.compile(r"\s*https?://[^/?#\s]", re.IGNORECASE)


class Told(msgspec.Struct, frozen=True):
    """That the webhook was told of a failure, and whether it took it."""

    failure: Failure
    taken: bool


def tell(dataset: Dataset, failure: Failure) -> None:
    """Tell the webhook of a failure, unless it knows. What it does not take it is told when the day fails again."""
    with contextlib.suppress(ConfigError):  # where the section cannot be read nobody knows whom to tell
        if not Pipeline().webhook:
            return
        with _open_memory(dataset) as (told, remember):
            if _is_known(failure, told):
                return
            if problem := post(make_message(dataset.name, failure)):
                logger.warning("%s %s: that it failed is not told: %s", dataset.name, failure.date, problem)
            with contextlib.suppress(PipelineError):  # better told twice than not at all
                remember(Told(failure, not problem))


def note_loaded(dataset: Dataset, date: dt.date) -> None:
    """Remember that a day of which the webhook was told is loaded: how it fails anew, it is told again."""
    with contextlib.suppress(ConfigError):
        if not Pipeline().webhook:
            return
        with _open_memory(dataset) as (told, remember), contextlib.suppress(PipelineError):
            stages = [each.failure.stage for each in told if each.failure.date == date]
            if stages and stages[-1] != LOADED:
                remember(Told(Failure(clock.utc_now(), date, LOADED, ""), taken=True))


def make_message(dataset: str, failure: Failure) -> dict[str, Any]:
    """Build the alert for a failure. `text` is for a chat: its cause cannot mention a person or form a link."""
    host = socket.gethostname()
    return {
        "text": f"{dataset} {failure.date} {failure.stage}: {clean_chat(failure.line)}",
        "dataset": dataset,
        **msgspec.to_builtins(failure),
        "host": host,
        "more": f"on {host} in {Path.cwd()}: {spell_command(dataset, 'status')}",
    }


def post(message: dict[str, Any]) -> str | None:
    """Send a message to the webhook; in words what stood in the way, without its URL, which is a secret."""
    variable = Pipeline().webhook
    url = os.environ.get(variable)
    if not url:
        return f"[pipeline] webhook: the environment variable {variable} is not set: export it"
    answers: list[str | None] = []
    # In a thread that is not waited for longer: no timeout of requests holds for the looking up of a name.
    thread = threading.Thread(target=lambda: answers.append(_send(url, message)), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    answer = answers[0] if answers else f"no answer in {PATIENCE:.0f} s"
    return answer and f"the webhook of {variable}: {answer}"


def _send(url: str, message: dict[str, Any]) -> str | None:
    from wholeday.extract.http.session import Session, find_tls_problem

    mask = Mask([url.partition("//")[2].partition("/")[2]])  # whoever knows it may write there
    try:
        with (
            mask.cover(),
            Session() as session,
            session.post(url, json=message, timeout=2 * PATIENCE, stream=True) as response,
        ):
            return None if response.status_code // 100 == 2 else mask(f"{response.status_code} {response.reason}")
    except (OSError, ValueError) as error:  # of requests, with the URL in their words
        if problem := find_tls_problem(error):
            return f"{problem.what}: {problem.hint}"
        if URL.match(url):
            return "it cannot be reached: check its host and port, the network, and the proxy and CA settings"
        return "what it holds is no URL: export one with https:// and a host"


@contextlib.contextmanager
def _open_memory(dataset: Dataset) -> Iterator[tuple[list[Told], Callable[[Told], None]]]:
    """What the webhook was told, and how more is kept, for one process at a time; nothing where there is no place."""
    with contextlib.ExitStack() as stack:
        try:
            storage = open_storage(Pipeline().data_dir)
            path = find_path(storage, dataset.name).with_suffix(".told.jsonl")
            storage.make_folder(path.parent)
            stack.enter_context(storage.hold(path.with_name(".telling")))
            told = read_lines(storage, path, Told)
        except PipelineError:  # better told twice than not at all
            yield [], lambda _: None
        else:
            yield told, lambda more: add_line(storage, path, msgspec.json.encode(more))


def _is_known(failure: Failure, told: list[Told]) -> bool:
    """Whether the webhook knows the cause since the day was last loaded, or is to be left alone just now."""
    if told and not told[-1].taken and dt.timedelta(0) <= failure.at - told[-1].failure.at < PAUSE:
        return True
    same = False
    for each in told:
        if each.failure.date == failure.date:
            same |= each.taken and _name_cause(each.failure) == _name_cause(failure)
            same &= each.failure.stage != LOADED or failure.stage == LATE
    return same


def _name_cause(failure: Failure) -> str:
    """A cause without what differs from one time to the next: counts, the number of a request, how late it is."""
    return LATE if failure.stage == LATE else f"{failure.stage} {DIFFERENT.sub('#', failure.line)}"
