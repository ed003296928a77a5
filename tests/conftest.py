"""Fixtures that every room's tests share."""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Keras reads its backend when it is imported, which whoever comes first may do.
os.environ.setdefault("KERAS_BACKEND", "torch")

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what a long walk leaves out of CI: all but ``keep`` of its cases, evenly spread."""
    walks: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("walk") is not None:
            walks.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for cases in walks.values():
        marker = cases[0].get_closest_marker("walk")
        assert marker is not None
        keep = marker.kwargs["keep"]
        kept = {round(i * (len(cases) - 1) / max(1, keep - 1)) for i in range(keep)}
        for number, item in enumerate(cases):
            if number not in kept:
                item.add_marker(pytest.mark.exhaustive)


@pytest.fixture(scope="session")
def tabicl_weights_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function from a task to a small TabICL with random weights, made when asked for."""

    @functools.cache
    def made(task: str) -> Path:
        pytest.importorskip("tabicl", reason="needs tabicl")
        from tests.tabicl_models import save

        return save(tmp_path_factory.mktemp("tabicl") / f"{task}.ckpt", task)

    return made


@pytest.fixture(autouse=True)
def _small_default(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tabicl_weights_of: Callable[[str], Path],
) -> None:
    """Let ``auto`` take the small network for pictures of any kind, and ask for no hub.

    Tests feed random colours of a few pixels, which are photographs to it; at 224 pixels they
    would take minutes. Tests that are about the choice are marked ``chosen``.
    """
    from headstart.backbones import choice
    from headstart.heads import tabicl_weights

    monkeypatch.setattr(tabicl_weights, "hub_file", tabicl_weights_of)
    monkeypatch.setattr(choice, "hub_is_reachable", lambda: False)
    if request.node.get_closest_marker("chosen") is None:
        monkeypatch.setitem(choice.DEFAULTS, "photographs", "headstart/glyphs")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An emulator of S3 that takes one request after the other: so conditional puts are atomic."""
    moto = pytest.importorskip("moto.server", reason="needs moto")
    pytest.importorskip("s3fs", reason="needs s3fs")
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    application = moto.DomainDispatcherApplication(moto.create_backend_app)
    made = make_server("127.0.0.1", 0, application, threaded=False)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data and weights beside the checkout; skip where it is missing."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data (../shared/data) is not on this machine")
    return folder
