"""Pictures, folders of them, tables and tars, at every kind of address."""

from __future__ import annotations

import contextlib
import functools
import http.server
import io
import itertools
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

Put = Callable[[Mapping[str, bytes]], str]
"""Puts files, by their names, and returns the address that they are below."""

Sample = Mapping[str, bytes]

_NUMBERS = itertools.count()


def picture(seed: int, side: int = 12) -> bytes:
    """Return a PNG of random colours."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def photos() -> dict[str, bytes]:
    """Return a folder of classes in splits; names with spaces and letters of their own."""
    return {
        f"{role}/{label}/bild {i}.png": picture(1000 * at + 100 * len(role) + i)
        for role, count in (("train", 8), ("test", 4))
        for at, label in enumerate(("katze", "hündin"))
        for i in range(count)
    }


def tar(samples: Mapping[str, Sample], folder: str = "") -> bytes:
    """Return a tar whose members are ``KEY.ENDING``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for key, members in samples.items():
            for ending, content in members.items():
                info = tarfile.TarInfo(f"{folder}{key}.{ending}")
                info.size = len(content)
                made.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@pytest.fixture
def memory() -> Iterator[Put]:
    """Files in memory."""
    files = fsspec.filesystem("memory")
    roots = []

    def put(found: Mapping[str, bytes]) -> str:
        root = f"/far{next(_NUMBERS)}"
        roots.append(root)
        for name, content in found.items():
            files.pipe_file(f"{root}/{name}", content)
        return f"memory:/{root}"

    yield put
    for root in roots:
        files.rm(root, recursive=True)


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Objects of an emulated S3."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # one that knows another emulator
    files: Any = fsspec.filesystem("s3", endpoint_url=s3, use_listings_cache=False)
    with contextlib.suppress(FileExistsError):  # the emulator keeps it between tests
        files.mkdir("bucket")

    def put(found: Mapping[str, bytes]) -> str:
        root = f"bucket/far{next(_NUMBERS)}"
        for name, content in found.items():
            files.pipe_file(f"{root}/{name}", content)
        return f"s3://{root}"

    return put


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Gives whole files, as Python's server does, and writes no log."""

    asked: Sequence[tuple[str, str]] = ()

    def log_message(self, *_: object) -> None:
        pass


class _Parts(_Quiet):
    """Gives parts of files, too."""

    def send_head(self) -> Any:
        asked = self.headers.get("Range")
        path = Path(self.translate_path(self.path))
        if asked is None or not path.is_file():
            return super().send_head()
        first, _, last = asked.removeprefix("bytes=").partition("-")
        size = path.stat().st_size
        stop = min(size - 1, int(last)) if last else size - 1
        content = path.read_bytes()[int(first) : stop + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{stop}/{size}")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return io.BytesIO(content)

    def end_headers(self) -> None:
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()


def served(kind: type[_Quiet], tmp_path: Path) -> Iterator[Put]:
    """Serve files behind HTTP."""
    pytest.importorskip("aiohttp")
    handler = functools.partial(kind, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def put(found: Mapping[str, bytes]) -> str:
        folder = f"far{next(_NUMBERS)}"
        write(tmp_path / folder, found)
        return f"http://127.0.0.1:{server.server_port}/{folder}"

    yield put
    server.shutdown()
    server.server_close()


@pytest.fixture
def whole_web(tmp_path: Path) -> Iterator[Put]:
    """Files behind HTTP, of a server that does not know parts of files."""
    yield from served(_Quiet, tmp_path)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Put]:
    """Files behind HTTP."""
    yield from served(_Parts, tmp_path)


@pytest.fixture(params=["memory", "bucket", "web", "whole_web"])
def put(request: pytest.FixtureRequest) -> Put:
    """Every kind of address in turn."""
    found: Put = request.getfixturevalue(request.param)
    return found
