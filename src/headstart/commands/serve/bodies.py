"""From the body of a request to items: one image or many, as JSON, as a form, or as it is.

Nothing in a request is more than data: no paths are opened, no addresses fetched, nothing is
unpacked, and nothing is written to disk.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from headstart.commands.serve.batching import Given
from headstart.commands.serve.fault import Fault, RefusedError
from headstart.core.wording import count, quoted, shorten, singular

_SECONDS = 60.0
"""A body has to arrive within this time."""
_DROPPING = 5.0
"""So long the rest of a body is read that was refused."""
_IN_A_THREAD = 2**18
"""Bytes of JSON from which it is read beside the event loop."""


_OCTETS = "application/octet-stream"
_RAW = {
    "text": ("text/plain", _OCTETS),
    "audio": ("audio/", "application/ogg", _OCTETS),
    "bands": ("image/", "application/dicom", _OCTETS),
}
"""Kinds of bodies that are one item as it is, by what a run takes; of others those of images."""
_AS_IT_IS = {"text": "text/plain", "audio": "a sound as it is (audio/wav, …)"}


@dataclass(frozen=True)
class Limits:
    """What one request may bring.

    Attributes:
        kind, unit: of the items ("image", "images").
        items: how many of them.
        body: bytes of the body.
    """

    kind: str
    unit: str
    items: int
    body: int

    @property
    def one(self) -> str:
        """What one item is called."""
        return singular(self.unit)

    @property
    def raw(self) -> tuple[str, ...]:
        """Content types of a body that is one item as it is; one that ends in / is a beginning."""
        return _RAW.get(self.kind, ("image/", _OCTETS))

    @property
    def forms(self) -> str:
        """The bodies that are taken, in words."""
        value = "base64" if self.kind != "text" else "text"
        raw = _AS_IT_IS.get(self.kind, "an image as it is (image/jpeg, …)")
        return (
            f'JSON {{"{self.unit}": [{value}, …]}} (application/json), a form with files'
            f" (multipart/form-data), or {raw}"
        )


class Body:
    """The body of one request, chunk by chunk.

    Args:
        request: whose body it is.
        hold: told the bytes of every chunk that is kept; it may refuse them.

    Attributes:
        complete: whether nothing of it is left to arrive.
        held: bytes that were kept.
    """

    def __init__(self, request: Request, hold: Callable[[int], None]) -> None:
        self._receive, self._hold, self.complete, self.held = request.receive, hold, False, 0
        self._begun, self._headers = False, request.headers

    @property
    def awaits_word(self) -> bool:
        """Whether its sender sends it only once it is told to; asking for it tells it."""
        return not self._begun and self._headers.get("expect", "").lower() == "100-continue"

    async def _chunks(self) -> AsyncIterator[bytes]:
        while not self.complete:
            self._begun = True
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            self.complete = not message.get("more_body", False)
            yield message.get("body", b"")

    async def read(self, limit: int) -> bytes:
        """Return it.

        Raises:
            RefusedError: it has more than ``limit`` bytes, or says so, takes too long to arrive,
                or finds no room.
        """
        told = self._headers.get("content-length", "")
        announced = int(told) if told.isdecimal() else 0
        if announced > limit:
            raise RefusedError(_too_long(limit, f"{announced:,}"))
        parts, size = [], 0
        try:
            async with asyncio.timeout(_SECONDS):
                async for chunk in self._chunks():
                    size += len(chunk)
                    if size > limit:
                        raise RefusedError(_too_long(limit, "more"))
                    self._hold(len(chunk))
                    self.held += len(chunk)
                    parts.append(chunk)
        except TimeoutError:
            expected, found = f"a body within {_SECONDS:g} s", f"{size:,} bytes of it"
            raise RefusedError(Fault(expected, found, "send it again", 408)) from None
        return b"".join(parts)

    async def drop(self, most: int) -> None:
        """Let up to ``most`` bytes more arrive: their sender then reads why they are not wanted."""
        size = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DROPPING):
                async for chunk in self._chunks():
                    size += len(chunk)
                    if size > most:
                        return


def _too_long(limit: int, found: str) -> Fault:
    return Fault(f"a body of at most {limit:,} bytes", found, "send fewer or smaller items", 413)


async def read_items(request: Request, body: Body, limits: Limits) -> list[Given]:
    """Read the items of a request.

    Raises:
        RefusedError: the request as a whole cannot be read; a bad item is one with a fault.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        found = f"content-encoding '{shorten(coding, 40)}'"
        raise RefusedError(Fault("a body as it is", found, "send it uncompressed", 415))
    raw = any(kind.startswith(each) if each.endswith("/") else kind == each for each in limits.raw)
    if kind not in ("application/json", "multipart/form-data") and not raw:
        found = f"content-type '{shorten(kind, 60)}'" if kind else "no content-type"
        raise RefusedError(Fault(limits.forms, found, "set the header Content-Type", 415))
    data = await body.read(limits.body)
    if kind == "application/json":
        beside = len(data) > _IN_A_THREAD
        items = (
            await asyncio.to_thread(from_json, data, limits) if beside else from_json(data, limits)
        )
    elif kind == "multipart/form-data":
        items = await _from_form(request, data, limits)
    else:
        items = [_named("body", data, limits)]
    if not items:
        raise RefusedError(Fault(f"{limits.forms}, with one item or more", "none", "send one"))
    return items


def from_json(body: bytes, limits: Limits) -> list[Given]:
    """Read ``{"images": ["<base64>", {"name": …, "data": …}]}``, or ``{"texts": ["…"]}``.

    Raises:
        RefusedError: it is no such object, or has too many items.
    """
    try:
        said = json.loads(body, object_pairs_hook=_each_name_once)
    except (ValueError, RecursionError) as error:
        text = shorten(str(error), 120)
        raise RefusedError(
            Fault("JSON", f"none: {text}", "send valid JSON in UTF-8", 400)
        ) from None
    names = (limits.unit, limits.one)
    if not isinstance(said, dict) or set(said) - set(names) or len(said) != 1:
        found = f"an object with {quoted(said, 4)}" if isinstance(said, dict) else _kind_of(said)
        raise RefusedError(Fault(limits.forms, found, f"name the list '{limits.unit}'", 400))
    ((name, values),) = said.items()
    values = values if isinstance(values, list) else [values]
    check_count(len(values), limits)
    return [_from_value(f"{name}[{i}]", value, limits) for i, value in enumerate(values)]


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object; of two values of one name the first would be lost without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {quoted([twice], 1)} stands there twice")
    return found


def check_count(number: int, limits: Limits) -> None:
    """Refuse more items than a request may have."""
    if number > limits.items:
        most = count(limits.items, limits.one, limits.unit)
        raise RefusedError(
            Fault(f"at most {most} a request", f"{number:,}", "send several requests", 413)
        )


def _from_value(name: str, value: Any, limits: Limits) -> Given:
    if isinstance(value, dict) and set(value) <= {"name", "data"} and "data" in value:
        given = value.get("name")
        if given is not None and not isinstance(given, str):
            found = _kind_of(given)
            return Given(name, Fault("a name that is a string", found, "put it in quotes"))
        name, value = given or name, value["data"]
    if not isinstance(value, str):
        kind = "a text" if limits.kind == "text" else f"one of the {limits.unit} in base64"
        if isinstance(value, dict):
            found = f"an object with {quoted(value, 4)}" if value else "an empty object"
            return Given(name, Fault(kind, found, "send a string, or its 'name' and its 'data'"))
        return Given(name, Fault(kind, _kind_of(value), "send a string"))
    if limits.kind == "text":
        return _named(name, value, limits)
    if value.startswith("data:"):
        value = value.partition(",")[2]
    try:
        return Given(name, base64.b64decode("".join(value.split()), validate=True))
    except (binascii.Error, ValueError) as error:
        found = shorten(f"none: {error}", 120)
        return Given(name, Fault("base64", found, "encode the bytes of the file in base64"))


def _named(name: str, content: bytes | str, limits: Limits) -> Given:
    """Return an item; a text comes as UTF-8."""
    if limits.kind != "text" or isinstance(content, str):
        return Given(name, content)
    try:
        return Given(name, content.decode("utf-8"))
    except UnicodeDecodeError as error:
        found = f"none: {error.reason} at byte {error.start:,}"
        return Given(name, Fault("a text in UTF-8", found, "encode it in UTF-8"))


async def _from_form(request: Request, body: bytes, limits: Limits) -> list[Given]:
    _, options = parse_options_header(request.headers["content-type"])
    edge = b"--" + options.get(b"boundary", b"")
    whole_form = body.lstrip(b"\r\n").startswith(edge) and body.rstrip().endswith(edge + b"--")
    if edge == b"--" or not whole_form:
        found = "no boundary" if edge == b"--" else "one that its boundary does not begin and end"
        expected = "a form (multipart/form-data) between its boundaries"
        raise RefusedError(Fault(expected, found, "let a library make the form", 400))

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    # One more than allowed, so that it is counted here and refused in our words.
    most = limits.items + 1
    parser = MultiPartParser(
        request.headers, whole(), max_files=most, max_fields=most, max_part_size=limits.body
    )
    parser.spool_max_size = limits.body + 1  # never on disk
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        text = shorten(getattr(error, "message", str(error)), 120)
        if "Too many" in text:
            check_count(most, limits)
        raise RefusedError(
            Fault("a form (multipart/form-data)", f"none: {text}", "send each item as a part", 400)
        ) from None
    fields = form.multi_items()
    check_count(len(fields), limits)
    return [item async for item in _parts(fields, limits)]


async def _parts(fields: list[tuple[str, Any]], limits: Limits) -> AsyncIterator[Given]:
    for name, value in fields:
        if isinstance(value, UploadFile):
            content = await value.read()
            await value.close()
            yield _named(value.filename or name, content, limits)
        elif limits.kind == "text":
            yield _named(name, value, limits)
        else:
            found = f"the field '{shorten(name, 40)}' without a file name"
            yield Given(name, Fault("a file", found, "send it with a file name"))


def _kind_of(value: Any) -> str:
    kinds: Mapping[type, str] = {
        dict: "an object", list: "a list", str: "a string", bool: "true or false",
        int: "a number", float: "a number", type(None): "null",
    }  # fmt: skip
    return kinds.get(type(value), type(value).__name__)


__all__ = ["Body", "Limits", "check_count", "from_json", "read_items"]
