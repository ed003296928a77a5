"""A hub of a few lines behind HTTP: what Hugging Face's client asks for when a folder is pushed."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub(ThreadingHTTPServer):
    """Repositories in memory.

    Attributes:
        files: of every repository, by name.
        private: by repository.
        messages: of commits, in order.
        refuses: the status of every answer; 0: it answers.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.messages: list[str] = []
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.refuses = 0

    def commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        """Apply a commit as the client sends it: one line of JSON an operation."""
        files = self.files[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                raise AssertionError(line)


class _Answers(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self._body())

    def do_PUT(self) -> None:
        self._answer(self._body())

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, body: bytes) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(f"{self.command} {path}")
        if self.server.refuses:
            self._send({"error": "Not today\nand a second line"}, self.server.refuses)
            return
        if self.command == "PUT":
            self.server.objects[hashlib.sha256(body).hexdigest()] = body
            self._send({})
            return
        self._send(self._said(path, body))

    def _said(self, path: str, body: bytes) -> Any:
        hub = self.server
        if path == "/api/repos/create":
            given = json.loads(body)
            name = f"{given.get('organization') or 'somebody'}/{given['name']}"
            hub.files.setdefault(name, {".gitattributes": b"*.onnx filter=lfs\n"})
            hub.private.setdefault(name, given.get("private") or given.get("visibility") ==
                                   "private")  # fmt: skip
            return {"url": f"{hub.url}/{name}", "id": name}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if path.endswith("/info/lfs/objects/batch"):
            return {"transfer": "basic", "objects": [
                {**each, "actions": {"upload": {"href": f"{hub.url}/upload/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]}  # fmt: skip
        name = "/".join(path.split("/")[3:5])
        if "/preupload/" in path:
            return {"files": [
                {"path": each["path"], "shouldIgnore": False,
                 "uploadMode": "lfs" if each["path"].endswith(".onnx") else "regular"}
                for each in json.loads(body)["files"]
            ]}  # fmt: skip
        if "/commit/" in path:
            hub.commit(name, [json.loads(line) for line in body.splitlines() if line.strip()])
            return {"commitUrl": f"{hub.url}/{name}/commit/{'a' * 40}", "commitOid": "a" * 40}
        if "/tree/" in path:
            return [
                {"type": "file", "path": key, "size": len(value), "oid": "b" * 40}
                for key, value in hub.files[name].items()
            ]
        return {"id": name, "sha": "a" * 40, "siblings": [
            {"rfilename": key} for key in hub.files.get(name, ())
        ]}  # fmt: skip

    def _send(self, value: Any, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Run a hub for as long as the context lasts."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
