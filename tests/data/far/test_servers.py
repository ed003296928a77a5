"""Servers over HTTP that list no folder, refuse, or end a file too early."""

from __future__ import annotations

import http.server
import pickle
import threading
from collections.abc import Iterator

import pytest

from headstart.core.errors import BadFilesError, DataError, UnreachableError
from headstart.data import load_items
from tests.data.far.conftest import picture

FILES = {f"/photos/{i}.png": picture(i, 40) for i in range(3)}


class _Faulty(http.server.BaseHTTPRequestHandler):
    """Does what it is told with the folder and its files."""

    protocol_version = "HTTP/1.1"
    folder: tuple[int, str] = (200, "".join(f'<a href="{i}.png">{i}</a>' for i in range(3)))
    cut = 0  # so many answers to come are cut off
    notices = True  # whether the protocol shows it

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(head=True)

    def do_GET(self) -> None:
        self._answer(head=False)

    def _answer(self, *, head: bool) -> None:
        kind = type(self)
        code, text = kind.folder if self.path.rstrip("/") == "/photos" else (404, "")
        content = FILES.get(self.path)
        self.send_response(200 if content else code)
        if content and not head and kind.cut > 0:
            kind.cut -= 1
            half = content[: len(content) // 2]
            if kind.notices:
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(half)
                self.close_connection = True
            else:
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(f"{len(half):x}\r\n".encode() + half + b"\r\n0\r\n\r\n")
            return
        body = content or text.encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not head:
            self.wfile.write(body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[type[_Faulty], str]]:
    """A server, and the address of its folder."""
    pytest.importorskip("aiohttp")
    monkeypatch.setattr("headstart.data.elsewhere._PAUSES", (0.0, 0.0))
    kind = type("Handler", (_Faulty,), {})
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield kind, f"http://127.0.0.1:{served.server_port}/photos"
    served.shutdown()
    served.server_close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((403, "no"), "cannot list .*: permission is denied"),
        ((404, "no"), "cannot list .*: it does not exist"),
        ((200, "<html>Welcome</html>"), "holds no files"),
    ],
)
def test_a_server_that_lists_no_folder(
    server: tuple[type[_Faulty], str], answer: tuple[int, str], said: str
) -> None:
    kind, address = server
    kind.folder = answer
    with pytest.raises(DataError, match=said) as caught:
        load_items(address)
    assert "lists a folder only where it is set up to" in str(caught.value.hint)
    assert "\n" not in str(caught.value)
    assert load_items(f"{address}/1.png").content(0) == FILES["/photos/1.png"]


def test_a_file_that_was_cut_off_is_asked_for_again(server: tuple[type[_Faulty], str]) -> None:
    kind, address = server
    kind.cut = 2
    split = load_items(address)
    assert len(set(split.ids)) == 3
    assert [split.content(i) for i in range(3)] == list(FILES.values())


def test_a_service_that_drops_every_connection_is_no_bad_item(
    server: tuple[type[_Faulty], str],
) -> None:
    kind, address = server
    split = load_items(address)
    split = pickle.loads(pickle.dumps(split))  # keeps nothing that was read
    kind.cut = 10**6
    with pytest.raises(UnreachableError, match=r"png': .*Not enough data") as caught:
        _ = split.ids
    assert "\n" not in str(caught.value)


def test_a_part_of_a_file_is_not_taken_for_all_of_it(server: tuple[type[_Faulty], str]) -> None:
    kind, address = server
    kind.cut, kind.notices = 10**6, False
    whole = len(FILES["/photos/1.png"])
    with pytest.raises(BadFilesError, match=f"of its {whole:,} bytes"):
        load_items(f"{address}/1.png").content(0)
