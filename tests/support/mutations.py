"""Build sources of one day as bytes: sound ones, and ones broken in their values, framing or bytes.

Responsibilities: cases that depend on their seed alone. `sound` marks a case without a broken part.
"""

import gzip
import json
import random
import zlib
from dataclasses import dataclass, field
from typing import Any

from tests.support.wire import Raw

KINDS: dict[str, dict[str, Any]] = {
    "list": {},
    "data": {},
    "selected": {"data_selector": "data"},
    "next_auto": {},
    "next": {"paginator": "next_url", "cursor_path": "next", "data_selector": "data"},
    "link": {},
    "pages": {"paginator": "page", "total_path": "total", "page_start": 1, "data_selector": "data"},
    "lines": {"data_selector": "@"},
}
ODD: list[Any] = [None, True, False, 0, -1, 7, 2**63, 10**40, 1.5, 1e400, float("nan"), [], {}, [{}], {"id": 1}, [[]]]
ODD += ["", "7", " 3 ", "\0", "\ud800", "é\u2028", "next", "x" * 300, "true", "null", "/p1", "\ufeff", "\x1b[31m"]
ODD += ["2026-13-40T25:00:00Z"]
NAMES = ["id", "data", "next", "total", "has_more", "error", "errors", "ok", "success", "status", "code", "users"]
NAMES += ["items"]
HEADERS = [b"X-A: 1", b'Link: </p1>; rel="self"', b"Set-Cookie: a=b", b"Retry-After: 1", b"X-Total-Count: 3"]
HEADERS += [b"ETag: \xe9", b"Server: \x1b[2J", b"Connection: close", b"Date: Sat, 01 Jan 2000 00:00:00 GMT"]
FRAMES = [b"\r\n", b"\n", b"\r", b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"\0"]
FRAMES += [b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: deflate\r\n"]
FRAMES += [b"-1\r\n", b": "]
INNER = [b"\xef\xbb\xbf", b"\0", b"NaN", b"\xff", b"\xed\xa0\x80", b'"\\ud800"', b"// x\n", b",", b"[" * 300]
INNER += [b"\n", b"{}"]
LINES = [b"no header", b" folded", b": empty", b"X\0: 1", b"X: " + b"y" * 70000, b"Transfer-Encoding: gzip, chunked"]
STATUSES = [b"200 OK", b"203 X", b"206 Partial Content", b"201 Created", b"204 No Content", b"304 Not Modified"]
STATUSES += [b"302 Found", b"400 Bad Request", b"401 \x1b]0;x\x07", b"404 <b>", b"418 a\rb", b"429 Slow", b"999 X"]


@dataclass
class Case:
    """A source: the kind of its bodies, and its responses by target."""

    kind: str
    answers: dict[str, list[Raw]] = field(default_factory=dict)
    sound: bool = True
    timeout: float = 20.0


def make_case(seed: str) -> Case:
    """Build the case of a seed."""
    dice = random.Random(seed)
    case = Case(dice.choice(list(KINDS)))
    bodies = _make_bodies(dice, case.kind)
    broken = dice.choice(["", "", "values", "text", "frame", "frame", "bytes", "bytes", "bytes", "all"])
    case.sound = not broken
    victim = dice.randrange(len(bodies))
    for number, (target, body) in enumerate(bodies):
        hit = broken if number == victim else ""
        if hit in ("values", "all"):
            body = _break_value(dice, body)
        text = _write(dice, case.kind, body)
        if hit in ("text", "all"):
            text = _break_text(dice, text)
        link = bodies[number + 1][0] if case.kind == "link" and number + 1 < len(bodies) else ""
        raw = _frame(dice, case, text, link, broken=hit in ("frame", "all"))
        if hit in ("bytes", "all"):
            raw = _break_bytes(dice, raw)
        case.answers[target] = [raw]
    if dice.random() < 0.1:  # the first request fails, the next one succeeds
        target = dice.choice(bodies)[0]
        first = dice.choice([Raw(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "keep"), Raw(b"", "reset"), None])
        first = first or Raw(case.answers[target][0].data[:30])
        case.answers[target].insert(0, first)
    if dice.random() < 0.1 and case.kind != "pages":
        first = case.answers.pop("/u")
        status = dice.choice([b"301 Moved", b"302 Found", b"303 Other", b"307 X", b"308 X"])
        case.answers["/u"] = [Raw(b"HTTP/1.1 %b\r\nLocation: /moved\r\nContent-Length: 0\r\n\r\n" % status, "keep")]
        case.answers["/moved"] = first
    return case


def _make_bodies(dice: random.Random, kind: str) -> list[tuple[str, Any]]:
    several = kind in ("next", "next_auto", "link", "pages")
    pages = [
        [make_user(dice, 100 * page + number) for number in range(dice.randint(1, 4))]
        for page in range(dice.randint(2, 3) if several else 1)
    ]
    targets = [f"/u?page={n}" for n in range(1, 9)] if kind == "pages" else ["/u", "/p1", "/p2"]
    total, has_flag = sum(map(len, pages)), dice.random() < 0.3
    bodies: list[tuple[str, Any]] = []
    for number, (target, users) in enumerate(zip(targets, pages, strict=False)):
        body: Any = {"data": users}
        if kind in ("list", "link", "lines"):
            body = users
        elif kind in ("next", "next_auto"):
            following = targets[number + 1] if number + 1 < len(pages) else None
            body |= {"next": following} | ({"has_more": following is not None} if has_flag else {})
        elif kind == "pages":
            body["total"] = total
        elif dice.random() < 0.5:
            body |= {"meta": {"took": 3}, "status": "ok"}
        bodies.append((target, body))
    return bodies


def make_user(dice: random.Random, number: int) -> dict[str, Any]:
    """Build a record; the first of a page can always be loaded, others may be rejects."""
    user: dict[str, Any] = {"id": number + 1, "name": dice.choice(["Ann", " Bo ", "Çé", "", None])}
    user["email"] = dice.choice([f"a{number}@Example.com", None, ""])
    if dice.random() < 0.5:
        user["address"] = {"city": dice.choice(["Rome", None]), "zip": [1, {"a": 2}]}
    if dice.random() < 0.5:
        user["updated_at"] = f"2026-10-31T{dice.randrange(24):02}:00:00{dice.choice(['Z', '.5Z', '+02:00'])}"
    if number % 100 and dice.random() < 0.2:
        user[dice.choice(list(user))] = dice.choice(ODD)
    if number % 100 and dice.random() < 0.03:
        user["deep"] = json.loads("[" * (depth := dice.randrange(100, 500)) + "]" * depth)
    return user


def _write(dice: random.Random, kind: str, body: Any) -> bytes:
    """Write a body like one of the usual libraries."""
    how: dict[str, Any] = {"ensure_ascii": dice.random() < 0.5 or "\\ud" in json.dumps(body)}
    if kind == "lines" and isinstance(body, list):
        return b"".join(json.dumps(line, **how).encode() + b"\n" for line in body)
    how["indent"] = dice.choice([None, None, 1])
    return json.dumps(body, separators=dice.choice([(",", ":"), (", ", ": ")]), **how).encode()


def _break_value(dice: random.Random, body: Any) -> Any:
    """Change one value somewhere in a body."""
    places: list[tuple[Any, Any]] = []

    def walk(value: Any, depth: int = 0) -> None:
        for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            if depth < 5:
                walk(value[key], depth + 1)

    walk(body)
    for _ in range(dice.randint(1, 2)):
        holder, key = dice.choice(places)
        if isinstance(holder, list) and key >= len(holder):
            continue
        old = holder.get(key) if isinstance(holder, dict) else holder[key]
        new = dice.choice([dice.choice(ODD), str(old), [old], {"data": old}, dice.choice(places)[0]])
        what = dice.random()
        if isinstance(holder, dict) and what < 0.3:
            holder[dice.choice(NAMES)] = json.loads(json.dumps(new))
        elif isinstance(holder, dict) and what < 0.4:
            holder.pop(key, None)
        elif isinstance(holder, list) and what < 0.3:
            holder.insert(key, json.loads(json.dumps(new)))
        else:
            holder[key] = json.loads(json.dumps(new))
    return body


def _break_text(dice: random.Random, text: bytes) -> bytes:
    """Change the text of a body in ways that no JSON library writes."""
    at = dice.randrange(len(text) + 1)
    name = dice.choice(NAMES)
    again = b'{"%b": %b, ' % (name.encode(), dice.choice([b"[]", b"null", b"true", b"{}", b"1", b'"/p2"']))
    ends = [b"\xef\xbb\xbf" + text, text + b"\0", b"\0" + text, text + text, text + b"\n" + text, text + b"  \r\n"]
    ends.append(b"\xff\xfe")
    new = [text.replace(b"{", again, 1), text.replace(b'"id"', b'"id": 5, "id"', 1), text[:at]]
    new.append(text.replace(b"]", b",]", 1))
    new += [text[:-1] + b", " + again[1:-2] + b"}", text.decode().encode("utf-16"), text.replace(b'"', b"'")]
    return dice.choice([dice.choice(ends), text[:at] + dice.choice(INNER) + text[at:], dice.choice(new)])


def _frame(dice: random.Random, case: Case, text: bytes, link: str, *, broken: bool) -> Raw:
    """Build the response around a body."""
    lines = [b"Content-Type: " + (b"application/x-ndjson" if case.kind == "lines" else b"application/json")]
    lines += [b'Link: <%b>; rel="next"' % link.encode()] if link else []
    then, status = dice.choice(["close", "keep"]), b"200 OK"
    if dice.random() < 0.3:
        text = gzip.compress(text, 1)
        lines.append(b"Content-Encoding: gzip")
    wrong = dice.randrange(12) if broken else -1
    if wrong == 0:
        tails = [text[:-4], text + b"\0\0", text + gzip.compress(b" ")]
        text = dice.choice([zlib.compress(text), *tails, gzip.compress(text)])
        lines += [b"Content-Encoding: " + name for name in dice.choice([[], [b"deflate"], [b"gzip"], [b"br"]])]
    elif wrong == 1:
        text = gzip.compress(b"[" + b" " * dice.choice([10, 2**22, 2**24]) + text + b"]", 1)
        lines.append(b"Content-Encoding: gzip")
    elif wrong == 2:
        status = dice.choice(STATUSES)
    elif wrong == 3:
        lines += dice.sample(HEADERS, dice.randint(1, 4))
    framing = dice.choice(["length", "chunks", "close"])
    body = text
    if framing == "chunks":
        lines.append(b"Transfer-Encoding: chunked")
        size = dice.choice([1 + len(text) // 3, 10**9, 7])
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    elif framing == "length":
        lines.append(b"Content-Length: %d" % len(text))
    else:
        then = "close"
        case.sound = case.sound and (case.kind != "lines" or b"Content-Encoding: gzip" in lines)
    if wrong == 4:
        lines.append(b"Content-Length: %d" % dice.choice([0, 1, len(text) - 1, len(text) + 1, 10**15, 10**30]))
    elif wrong == 5:
        lines.append(b"Content-Length:" + dice.choice([b" -1", b" 1_0", b" x", b""]))
    elif wrong == 6:
        end = dice.choice([b"\n", b"\r\n\r\n", b";a=b\r\n", b" \r\n", b"_0\r\n"])
        body = body.replace(b"\r\n", end, dice.randint(1, 2))
    elif wrong == 7:
        body = dice.choice([b"-5\r\n", b"zz\r\n", b"+3\r\n", b"\r\n", b"0\r\n\r\n", b"ffffffffffffffffff\r\n"]) + body
    elif wrong == 8:
        lines.insert(0, dice.choice(LINES))
    elif wrong == 9:
        lines += [b"X-%d: 1" % number for number in range(dice.choice([90, 200]))]
    elif wrong == 10:
        body += dice.choice([b"\r\n", b"}", body, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"])
    elif wrong == 11:
        location = dice.choice([b"/u", b"/p1", b"//evil.example/", b"http://[", b"?page=1", b"/\xff", b"", b"ftp://x/"])
        status, lines = dice.choice([b"302 F", b"308 P"]), [b"Location: " + location, b"Content-Length: 0"]
    before = dice.choice([b"", b"", b"", b"HTTP/1.1 100 Continue\r\n\r\n" * dice.choice([1, 1, 2])])
    data = before + b"HTTP/1.1 %b\r\n%b\r\n\r\n%b" % (status, b"\r\n".join(lines), body)
    return _pick_timeout(dice, case, Raw(data, then))


def _break_bytes(dice: random.Random, raw: Raw) -> Raw:
    """Flip, insert, delete, repeat, splice or cut bytes of a response."""
    data = bytearray(raw.data)
    for _ in range(dice.choice([1, 1, 1, 2, 4])):
        at = dice.randrange(len(data) + 1)
        span = slice(at, at + dice.choice([1, 1, 2, 5, 30]))
        match dice.randrange(8):
            case 0:
                data[at : at + 1] = bytes([data[at] ^ 1 << dice.randrange(8)]) if at < len(data) else b"!"
            case 1:
                data[at:at] = bytes([dice.randrange(256)]) * dice.choice([1, 1, 3])
            case 2:
                del data[span]
            case 3:
                data[at:at] = data[span] * dice.choice([1, 1, 50])
            case 4:
                data[at:at] = dice.choice(FRAMES)
            case 5:
                other = dice.randrange(len(data) + 1)
                data[at:at] = data[other : other + dice.randrange(1, 60)]
            case 6:
                del data[at:]
            case 7:
                data[at : at + 1] = str(dice.choice([0, 9, 10**20])).encode()
        data = data or bytearray(b"?")
    return Raw(bytes(data), raw.then, raw.slow)


def _pick_timeout(dice: random.Random, case: Case, raw: Raw) -> Raw:
    """Set a short timeout for a broken case, and close most connections, so that few clients wait for the timeout."""
    if case.sound:
        return raw
    case.timeout = 0.3
    if dice.random() < 0.01:
        return Raw(raw.data, raw.then, 0.05)
    return Raw(raw.data, "close" if dice.random() < 0.9 else raw.then)
