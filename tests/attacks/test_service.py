"""Requests made to break a service: each is refused in words, and the next one is answered."""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import json
import socket
import struct
import zlib
from collections.abc import Iterator

import pytest
from PIL import Image

from headstart.commands.serve import patience
from headstart.commands.serve.job import serving

from ..commands.serving import QUIET, Client, form, in_json, picture, small_run

MOST = 200_000


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    run = small_run(tmp_path_factory.mktemp("service"))
    limits = {"max_items": 4, "max_body": MOST / 1e6, "max_pixels": 1.0}
    with serving(run, port=0, cache=run.parent / "cache", reporter=QUIET, **limits) as url:
        yield url
        client = Client(url)
        assert client.images(picture(1))[0] == 200  # after all of them
        assert client("GET", "/health")[2]["pending"] == 0


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes that says it has this many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        end = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + end

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * min(10_000_000, 3 * width * height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_by_its_header(url):
    bombs = bomb(12_000, 12_000), bomb(1001, 1000), bomb(50_000, 50_000)
    status, answer = Client(url).images(*bombs, picture(1))
    assert status == 200
    *refused, good = answer["predictions"]
    for row in refused:
        assert row["error"]["expected"] == "at most 1 million pixels"
    assert refused[2]["error"]["found"].startswith("50,000 × 50,000 pixels")
    assert "class" in good
    status, answer = Client(url).predict(bombs[0], "image/png")
    assert status == 413


def test_a_body_that_is_too_large_is_refused_in_words(url):
    status, answer = Client(url).predict(b"x" * (MOST + 1), "image/png")
    assert status == 413
    assert answer["error"]["expected"] == "a body of at most 200,000 bytes"

    def endless() -> Iterator[bytes]:
        for _ in range(4):
            yield b"x" * 100_000

    client = Client(url)
    client._connection.request(
        "POST", "/predict", endless(), {"Content-Type": "image/png"}, encode_chunked=True
    )
    assert client._connection.getresponse().status == 413


BODIES = {
    "nothing": (b"", "image/png", 422),
    "no type": (b"x", "", 415),
    "other type": (b"<a/>", "application/xml", 415),
    "no JSON": (b"{", "application/json", 400),
    "deep JSON": (b"[" * 90_000, "application/json", 400),
    "a long number": (b'{"images": ' + b"9" * 9_000 + b"}", "application/json", 400),
    "JSON that is not UTF-8": (b'{"images": "\xff"}', "application/json", 400),
    "a list": (b"[1]", "application/json", 400),
    "other names": (b'{"path": "/etc/passwd"}', "application/json", 400),
    "more names": (b'{"images": [], "run": "x"}', "application/json", 400),
    "no items": (b'{"images": []}', "application/json", 422),
    "too many": (in_json(*[b"x"] * 5), "application/json", 413),
    "a number": (b'{"images": [7]}', "application/json", 422),
    "a path": (b'{"images": ["/etc/passwd"]}', "application/json", 422),
    "an address": (b'{"images": ["http://127.0.0.1/x.png"]}', "application/json", 422),
    "NaN": (b'{"images": NaN}', "application/json", 422),
    "a form without boundary": (b"x", "multipart/form-data", 400),
    "no form": (b"x", "multipart/form-data; boundary=a", 400),
    "half a form": (form(("a.png", picture(1)))[0][:300], form()[1], 400),
    "an empty form": (*form(), 422),
    "too many files": (*form(*([("a", b"x")] * 6)), 413),
    "a field for a file": (
        b'--a\r\nContent-Disposition: form-data; name="images"\r\n\r\nx\r\n--a--\r\n',
        "multipart/form-data; boundary=a",
        422,
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_body_is_refused_in_words(url, name):
    body, kind, expected = BODIES[name]
    client = Client(url)
    headers = {"content_type": kind} if kind else {}
    status, _, answer = client("POST", "/predict", body, **headers)
    assert status == expected, answer
    fault = answer.get("error") or answer["predictions"][0]["error"]
    assert set(fault) == {"expected", "found", "do"}
    assert all(isinstance(text, str) and text.strip() for text in fault.values())
    assert "Traceback" not in json.dumps(answer)
    assert Client(url).images(picture(2))[0] == 200


def test_nothing_is_unpacked(url):
    body = gzip.compress(in_json(picture(1)))
    status, _, answer = Client(url)(
        "POST", "/predict", body, content_type="application/json", content_encoding="gzip"
    )
    assert status == 415
    assert "uncompressed" in answer["error"]["do"]


def test_names_come_back_as_data(url):
    name = '<script>alert("1")</script>\u202e.png'
    body = json.dumps(
        {"images": [{"name": name, "data": base64.b64encode(picture(1)).decode()}]}
    ).encode()
    status, headers, answer = Client(url)("POST", "/predict", body, content_type="application/json")
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert answer["predictions"][0]["item"] == name


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "169.254.169.254"])
def test_another_name_than_this_machines_is_refused(url, host):
    status, _, answer = Client(url)("GET", "/", host=host)
    assert status == 421
    assert "localhost" in answer["error"]["expected"]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [("GET", "/predict", 405), ("POST", "/x", 404), ("GET", "/../../etc/passwd", 404),
     ("DELETE", "/", 405), ("GET", "/docs", 404)],
)  # fmt: skip
def test_other_routes_say_which_there_are(url, method, path, expected):
    status, _, answer = Client(url)(method, path)
    assert status == expected
    assert "POST /predict" in answer["error"]["expected"]


def test_a_client_that_goes_away_leaves_no_trace(url):
    port = int(url.rpartition(":")[2])
    for sent in (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        b"Content-Length: 9999\r\n\r\nhalf",
        b"not http at all\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(sent)
    assert Client(url)("GET", "/health")[0] == 200


def test_pictures_that_lie_about_themselves(url):
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "TIFF")
    broken = bytearray(file.getvalue())
    broken[4:8] = b"\xff\xff\xff\x7f"
    frames = io.BytesIO()
    Image.new("P", (9, 9)).save(
        frames, "GIF", save_all=True, append_images=[Image.new("P", (9, 9), i) for i in range(90)]
    )
    status, answer = Client(url).images(bytes(broken), frames.getvalue(), picture(1) + b"\0" * 999)
    assert status == 200
    assert "error" in answer["predictions"][0]
    assert all("class" in row for row in answer["predictions"][1:])


def test_heads_that_never_end_are_not_waited_for(url, monkeypatch):
    monkeypatch.setattr(patience, "HEAD_SECONDS", 0.2)
    port = int(url.rpartition(":")[2])
    for sent in (b"", b"GET / HTT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.sendall(sent)
            assert client.recv(100) == b""  # it is closed, long before the client gives up
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        monkeypatch.setattr(patience, "HEAD_SECONDS", 60.0)
        with contextlib.suppress(OSError):
            for i in range(100):
                client.sendall(b"X%d: " % i + b"y" * 4_000 + b"\r\n")
            client.sendall(b"\r\n")
            assert client.recv(100) == b""
    assert Client(url).images(picture(2))[0] == 200
