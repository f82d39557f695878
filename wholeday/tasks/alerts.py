"""Send alerts for failed and late days: one POST to the webhook for each day and cause.

Responsibilities: the message, and the record of sent alerts, which prevents repeated alerts.
Non-goals: failing a run or delaying it for long. A webhook that does not answer is a warning, and is not called
again for a minute.
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
from wholeday.config.pipeline import Pipeline
from wholeday.errors import ConfigError, PipelineError
from wholeday.guides import FAILED_DAY, OF_STAGES
from wholeday.log import logger
from wholeday.redaction import Mask
from wholeday.schema.dataset import Dataset
from wholeday.storage.backends import open_storage
from wholeday.tasks.failures import Failure, append_line, build_alerts_path, read_lines
from wholeday.tasks.workflow import spell_command
from wholeday.text import clean_chat

LATE = "late"  # stage of an alert for a day that is not loaded in time
LOADED = "loaded"  # stage of a record that ends the alerts of a day
PATIENCE = 4.0  # seconds for a whole request, with the look-up of the name and the body
PAUSE = dt.timedelta(minutes=1)  # without calls, after the webhook did not answer

WITH_DIGIT = re.compile(r"\w*\d\w*")
URL = re.compile(r"\s*https?://[^/?#\s]", re.IGNORECASE)


class Alert(msgspec.Struct, frozen=True):
    """An alert for a failure, and whether the webhook accepted it."""

    failure: Failure
    delivered: bool


def send_alert(dataset: Dataset, failure: Failure) -> None:
    """Send an alert, unless the webhook accepted one for this day and cause. Log a warning if it cannot be sent.

    An alert that was not delivered is sent at the next failure of the day.
    """
    with contextlib.suppress(ConfigError):  # the section [pipeline] names no usable webhook
        settings = Pipeline()
        if not settings.webhook:
            return
        with _open_record(settings, dataset.name) as (sent, append):
            if _is_repeated(failure, sent):
                return
            if problem := post(settings.webhook, build_message(dataset.name, failure)):
                logger.warning("%s %s: cannot send the failure alert: %s", dataset.name, failure.date, problem)
            with contextlib.suppress(PipelineError):  # an alert that is sent twice is better than none
                append(Alert(failure, not problem))


def record_recovery(dataset: Dataset, date: dt.date) -> None:
    """Record that a day with an alert is loaded: the next failure of the day is a new one."""
    with contextlib.suppress(ConfigError):
        settings = Pipeline()
        if not settings.webhook:
            return
        with _open_record(settings, dataset.name) as (sent, append), contextlib.suppress(PipelineError):
            stages = [alert.failure.stage for alert in sent if alert.failure.date == date]
            if stages and stages[-1] != LOADED:
                append(Alert(Failure(clock.utc_now(), date, LOADED, ""), delivered=True))


def build_message(dataset: str, failure: Failure) -> dict[str, Any]:
    """Build the alert for a failure. `text` is for a chat: its cause cannot mention a person or form a link."""
    host = socket.gethostname()
    command, guide = spell_command(dataset, "status"), OF_STAGES.get(failure.stage, FAILED_DAY)
    cause = f"{dataset} {failure.date} {failure.stage}: {clean_chat(failure.line)}"
    return {
        "text": f"{cause}\nnext: `{command}`, {guide}",
        "dataset": dataset,
        **msgspec.to_builtins(failure),
        "host": host,
        "more": f"on {host} in {Path.cwd()}: {command}",
        "guide": guide,
    }


def post(variable: str, message: dict[str, Any]) -> str | None:
    """Post a message to the webhook whose URL is in an environment variable. Return the problem, None if there is none.

    The problem never holds the URL, which is a secret.
    """
    url = os.environ.get(variable)
    if not url:
        return f"[pipeline] webhook: the environment variable {variable} is not set: export it"
    answers: list[str | None] = []
    # In a thread with a deadline: no timeout of requests covers the look-up of a name.
    thread = threading.Thread(target=lambda: answers.append(_send(url, message)), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    answer = answers[0] if answers else f"no answer in {PATIENCE:.0f} s"
    return answer and f"the webhook of {variable}: {answer}"


def _send(url: str, message: dict[str, Any]) -> str | None:
    from wholeday.extract.http.session import Session, find_tls_problem

    mask = Mask([url.partition("//")[2].partition("/")[2]])  # the path is the secret: it gives access to the chat
    try:
        with (
            mask.cover(),
            Session() as session,
            session.post(url, json=message, timeout=2 * PATIENCE, stream=True) as response,
        ):
            return None if response.status_code // 100 == 2 else mask(f"{response.status_code} {response.reason}")
    except (OSError, ValueError) as error:  # the texts of these errors hold the URL
        if problem := find_tls_problem(error):
            return f"{problem.what}: {problem.hint}"
        if URL.match(url):
            return "no connection: check its host and port, the network, and the proxy and CA settings"
        return "its value is not a URL: export one with https:// and a host"


@contextlib.contextmanager
def _open_record(settings: Pipeline, dataset: str) -> Iterator[tuple[list[Alert], Callable[[Alert], None]]]:
    """Lock the record of sent alerts. Yield the alerts and a function that appends one."""
    with contextlib.ExitStack() as stack:
        try:
            storage = open_storage(settings.data_dir, settings.is_private)
            path = build_alerts_path(storage, dataset)
            storage.make_folder(path.parent)
            stack.enter_context(storage.hold(path.with_name(".alerts.lock")))
            sent = read_lines(storage, path, Alert)
        except PipelineError:  # without a record an alert may be sent twice, which is better than none
            yield [], lambda _: None
        else:
            yield sent, lambda alert: append_line(storage, path, msgspec.json.encode(alert))


def _is_repeated(failure: Failure, sent: list[Alert]) -> bool:
    """Tell whether this cause was delivered since the day was last loaded, or the webhook just failed to answer."""
    if sent and not sent[-1].delivered and dt.timedelta(0) <= failure.at - sent[-1].failure.at < PAUSE:
        return True
    same = False
    for alert in sent:
        if alert.failure.date == failure.date:
            same |= alert.delivered and _normalize_cause(alert.failure) == _normalize_cause(failure)
            same &= alert.failure.stage != LOADED or failure.stage == LATE
    return same


def _normalize_cause(failure: Failure) -> str:
    """Return stage and cause without the words that differ between retries: counts, request ids, ages."""
    return LATE if failure.stage == LATE else f"{failure.stage} {WITH_DIGIT.sub('#', failure.line)}"
