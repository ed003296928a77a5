"""``serve`` and requests that no library would send: each has an answer, and costs nothing."""

from __future__ import annotations

import json
import select
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart.commands.serve.answers import Answers
from headstart.commands.serve.job import serving
from headstart.data.formats import MAX_PIXELS

from .serving import QUIET, Client, in_json, picture, small_run

MEGABYTE = 1_000_000
JSON = "application/json"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("strangers"))


@pytest.fixture(scope="module")
def url(run: Path) -> Iterator[str]:
    with serving(
        run, port=0, cache=run.parent / "cache", reporter=QUIET, max_body=1.0, max_pixels=200.0
    ) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    client = Client(url)
    yield client
    client.close()


def opened(url: str, head: str, body: bytes = b"") -> socket.socket:
    """Send the head of a request, and perhaps something of its body; wait for nothing."""
    connection = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=20)
    connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
    return connection


def claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is of this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + head + rows + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [13_500, 14_500, 30_000, 2**31 - 1])
def test_an_image_of_too_many_pixels_is_413_whichever_limit_finds_it(client: Client, side: int):
    """13,500² lies between the decoder's limit and that of this service, the others beyond both."""
    assert MAX_PIXELS < 13_500**2
    status, answer = client.predict(claims(side, side), "image/png")
    assert status == 413
    assert f"{side:,} × {side:,} pixels" in answer["predictions"][0]["error"]["found"]


def test_a_body_that_says_it_is_too_long_is_refused_before_it_is_sent(url: str):
    """Whoever waits for leave to send, as curl does beyond a megabyte, is told no instead."""
    head = "POST /predict HTTP/1.1\nHost: localhost\nContent-Type: image/png\nExpect: 100-continue"
    with opened(url, f"{head}\nContent-Length: {10**12}") as connection:
        connection.settimeout(3)
        with connection.makefile("rb") as answer:
            said = answer.read()
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"1,000,000,000,000" in said
    assert b"connection: close" in said.lower()


def test_bodies_that_are_announced_and_never_sent_keep_nobody_out(url: str, client: Client):
    head = "POST /predict HTTP/1.1\nHost: localhost\nContent-Type: image/png\nContent-Length: "
    silent = [opened(url, f"{head}{MEGABYTE}", b"x") for _ in range(20)]
    try:
        assert client.images(picture(1))[0] == 200
    finally:
        for connection in silent:
            connection.close()


def test_bodies_that_have_arrived_are_counted_and_let_go_again(url: str, client: Client):
    """Eight of the largest fill the memory that is meant for them, and a ninth is refused."""
    head = "POST /predict HTTP/1.1\nHost: localhost\nContent-Type: image/png\nContent-Length: "
    large = [opened(url, f"{head}{MEGABYTE}", bytes(MEGABYTE - 1)) for _ in range(9)]
    try:
        told, _, _ = select.select(large, [], [], 20)  # one does not fit, whichever it is
        assert told
        assert told[0].recv(4096).startswith(b"HTTP/1.1 503 ")
    finally:
        for connection in large:
            connection.close()
    assert comes(client, 200), "what was held is not let go"


def comes(client: Client, status: int) -> bool:
    """Whether an image is answered so before long."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if client.images(picture(1))[0] == status:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("path", ["/", "/health", "/metrics"])
def test_what_can_be_got_can_be_asked_for_its_head(client: Client, path: str):
    status, headers, body = client("HEAD", path)
    assert status == 200
    assert not body
    assert int(headers["content-length"]) > 0


def test_what_is_not_allowed_says_what_is(client: Client):
    for method in ("GET", "PUT", "OPTIONS"):
        status, headers, _ = client(method, "/predict")
        assert status == 405
        assert headers["allow"] == "POST"


def test_no_address_is_answered_with_another(client: Client):
    for path in ("/predict/", "/metrics/"):
        status, headers, answer = client("POST", path, in_json(picture(1)))
        assert status == 404
        assert "location" not in headers
        assert "GET /health" in answer["error"]["expected"]


@pytest.mark.parametrize("hosts", [("evil.example", "localhost"), ("localhost", "evil.example")])
def test_of_two_hosts_none_is_taken(url: str, hosts: tuple[str, str]):
    head = "GET /health HTTP/1.1\n" + "\n".join(f"Host: {host}" for host in hosts)
    with opened(url, head) as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 421 ")


@pytest.mark.parametrize(
    ("body", "status", "found"),
    [
        ('{"images": ["a"], "images": ["b"]}', 400, "the name 'images' stands there twice"),
        ('{"images": [{"data": "a", "data": "b"}]}', 400, "the name 'data' stands there twice"),
        ('{"images": [{"data": "", "id": 7}]}', 422, "an object with 'data', 'id'"),
        ('{"images": [{}]}', 422, "an empty object"),
        ('{"images": [{"name": 7, "data": ""}]}', 422, "a number"),
    ],
)
def test_nothing_of_a_request_is_left_out_without_a_word(
    client: Client, body: str, status: int, found: str
):
    said, answer = client.predict(body.encode())
    error: Any = answer.get("error") or answer["predictions"][0]["error"]
    assert (said, found in error["found"]) == (status, True), json.dumps(answer)


class Slow:
    """A model that takes its time for one item a batch."""

    size = 1

    def __init__(self) -> None:
        self.computed = 0

    def sample(self, content: Any) -> Any:
        return content

    def rows(self, samples: Any, names: Any) -> Any:
        time.sleep(0.3)
        self.computed += len(samples)
        return [{"item": name} for name in names]


def test_when_the_time_to_finish_is_up_requests_are_refused_and_nothing_more_is_computed(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = Slow()
    monkeypatch.setattr(Answers, "size", 1, raising=False)
    monkeypatch.setattr(Answers, "warm_up", lambda _: [])
    monkeypatch.setattr(Answers, "sample", lambda _, content: model.sample(content))
    monkeypatch.setattr(Answers, "rows", lambda _, *given: model.rows(*given))
    answered: list[tuple[int, dict[str, str], Any]] = []
    with serving(run, port=0, cache=run.parent / "cache", reporter=QUIET, grace=1.0) as url:
        client = Client(url)
        asking = threading.Thread(
            target=lambda: answered.append(
                client("POST", "/predict", in_json(*[picture(1)] * 60), content_type=JSON)
            )
        )
        asking.start()
        other = Client(url)
        while other("GET", "/health")[2]["pending"] == 0:
            time.sleep(0.01)
        other.close()
    asking.join(20)
    ((status, headers, answer),) = answered
    assert status == 503
    assert (headers["retry-after"], headers["connection"]) == ("1", "close")
    assert answer["error"]["found"] == "the service is stopping"
    assert model.computed < 60
    assert "Traceback" not in caplog.text
