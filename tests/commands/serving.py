"""What tests of the service share: a small run, and a client of a few lines."""

from __future__ import annotations

import base64
import http.client
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import headstart
from headstart.core.progress import SilentReporter

QUIET = SilentReporter()


def picture(seed: int, kind: str = "PNG", side: int = 24) -> bytes:
    """An image of one of two classes: a bright or a dark square on noise."""
    draw = np.random.default_rng(seed)
    pixels = draw.integers(60, 120, (side, side, 3), dtype=np.uint8)
    pixels[6:18, 6:18] = 250 if seed % 2 else 5
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def small_run(folder: Path, **options: Any) -> Path:
    """Fit a head on forty of them, and return the run folder."""
    data = folder / "data"
    for i in range(40):
        place = data / ("train" if i < 28 else "test") / ("dark", "bright")[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.png").write_bytes(picture(i))
    headstart.fit(
        data,
        "headstart/glyphs",
        out=folder / "run",
        cache=folder / "cache",
        reporter=QUIET,
        **{"head": "linear", "precision": "float32", **options},
    )
    return folder / "run"


class Client:
    """One connection to a service."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").rpartition(":")
        self._connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=60)

    def __call__(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        """Return status, headers in lower case, and the JSON or the bytes of the answer."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(method, path, body, named)
        answer = self._connection.getresponse()
        data = answer.read()
        found = {name.lower(): value for name, value in answer.getheaders()}
        plain = json.loads(data) if data and "json" in found.get("content-type", "") else data
        return answer.status, found, plain

    def predict(self, body: bytes, kind: str = "application/json") -> tuple[int, Any]:
        """Send a body to ``/predict``."""
        status, _, plain = self("POST", "/predict", body, content_type=kind)
        return status, plain

    def images(self, *images: bytes) -> tuple[int, Any]:
        """Send images as JSON."""
        return self.predict(in_json(*images))

    def close(self) -> None:
        self._connection.close()


def in_json(*images: bytes) -> bytes:
    return json.dumps({"images": [base64.b64encode(each).decode() for each in images]}).encode()


def form(*files: tuple[str, bytes], boundary: str = "8f0a") -> tuple[bytes, str]:
    """Return the body of a form, and its content type."""
    parts = []
    for name, data in files:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="images"; filename="{name}"'
        parts.append(f"{head}\r\nContent-Type: image/png\r\n\r\n".encode() + data + b"\r\n")
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"
