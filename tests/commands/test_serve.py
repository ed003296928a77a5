"""``serve``: the same answers as ``predict``, batches of what arrives together, an ordered stop."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart
from headstart.commands.serve.batching import Batcher, Given
from headstart.commands.serve.fault import Fault, RefusedError
from headstart.commands.serve.job import serve, serving
from headstart.core.errors import ConfigError, MissingExtraError

from ..sound_models import encoded, save_sounds, tone
from ..sound_models import save_model as save_sound_model
from ..text_models import questions, save_model
from .serving import QUIET, Client, form, in_json, picture, small_run

TOLERANCE = 1e-5
"""Probabilities of one image in batches of several sizes, in float32: docs/serve.md says it."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def url(run: Path) -> Iterator[str]:
    with serving(run, port=0, cache=run.parent / "cache", reporter=QUIET, max_items=8) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    client = Client(url)
    yield client
    client.close()


def predicted(run: Path, images: list[bytes], tmp_path: Path) -> list[dict[str, Any]]:
    said = headstart.predict(images, run, cache=tmp_path / "other", reporter=QUIET)
    columns = said.columns(3)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in set(one) - {"item"}:
            if isinstance(other[name], float):
                assert one[name] == pytest.approx(other[name], abs=TOLERANCE)
            else:
                assert one[name] == other[name]


def test_every_form_of_a_request_is_answered_as_predict_answers(client, run, tmp_path):
    images = [picture(i, kind) for i, kind in enumerate(("PNG", "JPEG", "WEBP", "BMP", "GIF"))]
    expected = predicted(run, images, tmp_path)
    status, answer = client.images(*images)
    assert status == 200
    same(answer["predictions"], expected)
    assert [row["item"] for row in answer["predictions"]] == [f"images[{i}]" for i in range(5)]

    status, answer = client.predict(*form(*((f"é {i}.png", one) for i, one in enumerate(images))))
    assert status == 200
    same(answer["predictions"], expected)
    assert answer["predictions"][0]["item"] == "é 0.png"

    for image, row in zip(images, expected, strict=True):
        status, answer = client.predict(image, "image/png")  # the content says what it is
        assert status == 200
        same(answer["predictions"], [row])


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_rows_are_rounded_as_the_run_stores_them(storage, tmp_path):
    made = small_run(tmp_path, storage=storage)
    images = [picture(i) for i in range(90, 95)]
    expected = predicted(made, images, tmp_path)
    with serving(made, port=0, cache=tmp_path / "cache", reporter=QUIET) as url:
        status, answer = Client(url).images(*images)
    assert status == 200
    same(answer["predictions"], expected)


def test_a_bad_item_has_an_error_of_its_own(client):
    status, answer = client.images(picture(1), b"no image", b"", picture(2)[:60])
    assert status == 200
    good, *bad = answer["predictions"]
    assert good["class"] == "bright"
    for i, row in enumerate(bad, 1):
        assert row["item"] == f"images[{i}]"
        assert set(row["error"]) == {"expected", "found", "do"}
        assert all(row["error"].values())
    status, answer = client.images(b"no image")
    assert status == 422
    assert answer["predictions"][0]["error"]["expected"] == "an image"


def test_what_it_is_and_how_it_does(client, run):
    client.images(picture(3))
    client.images(b"nothing")
    status, _, about = client("GET", "/")
    assert status == 200
    assert about["classes"] == ["bright", "dark"]
    assert about["limits"]["items"] == 8
    status, _, health = client("GET", "/health")
    assert (status, health["status"]) == (200, "ready")
    status, headers, text = client("GET", "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    for line in ('headstart_items_total{is="bad"}', "headstart_batch_items_bucket", 'status="422"'):
        assert line in text.decode()
    status, _, described = client("GET", "/openapi.json")
    assert "multipart/form-data" in json.dumps(described["paths"]["/predict"])


def test_many_clients_at_once_get_their_own_answers(url, run, tmp_path):
    images = [picture(i) for i in range(100, 164)]
    expected = predicted(run, images, tmp_path)

    def ask(i: int) -> Any:
        client = Client(url)
        try:
            return client.predict(images[i], "image/png")
        finally:
            client.close()

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(len(images))))
    assert {status for status, _ in answers} == {200}
    same([answer["predictions"][0] for _, answer in answers], expected)


def test_texts_are_served(tmp_path):
    texts, labels = questions(60)
    data = {
        "train": (np.array(texts[:40]), labels[:40]),
        "test": (np.array(texts[40:]), labels[40:]),
    }
    folder, run = save_model(tmp_path / "bert"), tmp_path / "run"
    headstart.fit(data, f"hf/{folder}", out=run, cache=tmp_path / "cache", reporter=QUIET)
    asked = [texts[0], "cat", "the red house " * 200]
    said = headstart.predict(asked, run, cache=tmp_path / "c", reporter=QUIET)
    with serving(run, port=0, cache=tmp_path / "cache", reporter=QUIET) as url:
        client = Client(url)
        status, answer = client.predict(json.dumps({"texts": [*asked, "", 3]}).encode())
        assert status == 200
        found = answer["predictions"]
        assert [row["class"] for row in found[:3]] == list(said.labels)
        assert [row["probability"] for row in found[:3]] == pytest.approx(
            np.asarray(said.probabilities).max(axis=1), abs=TOLERANCE
        )
        assert "empty" in found[3]["error"]["found"]
        assert found[4]["error"]["found"] == "a number"
        status, answer = client.predict("très bien".encode(), "text/plain")
        assert status == 200
        status, answer = client.predict("très bien".encode("latin-1"), "text/plain")
        assert status == 422
        assert "UTF-8" in answer["predictions"][0]["error"]["expected"]


# -- the queue -----------------------------------------------------------------------------------


def test_sounds_of_several_lengths_are_served(tmp_path):
    """wav2vec2 takes no padding, so that a batch of the network holds sounds of one length."""
    data = save_sounds(tmp_path / "data", train=18, test=6)
    folder, run = save_sound_model(tmp_path / "model"), tmp_path / "run"
    how = {"cache": tmp_path / "cache", "reporter": QUIET}
    headstart.fit(data, f"hf/{folder}", out=run, precision="float32", **how)
    asked = [encoded(tone(seconds)) for seconds in (0.5, 1.0, 0.8, 0.5)]
    said = headstart.predict(asked, run, **how)
    with serving(run, port=0, wait=500, **how) as url:
        client = Client(url)
        body = [base64.b64encode(each).decode() for each in (*asked, b"RIFF")]
        status, answer = client.predict(json.dumps({"sounds": body}).encode())
        assert status == 200
        found = answer["predictions"]
        assert [row["probability"] for row in found[:4]] == pytest.approx(
            np.asarray(said.probabilities).max(axis=1), abs=TOLERANCE
        )
        assert found[4]["error"]["expected"] == "a sound"
        status, answer = client.predict(asked[0], "audio/wav")
        assert (status, answer["predictions"][0]["class"]) == (200, said.labels[0])
        assert "a sound as it is (audio/wav, …)" in client("GET", "/")[2]["takes"]


class Held:
    """A network that computes when it is let go."""

    size = 8

    def __init__(self) -> None:
        self.go, self.began, self.batches = threading.Event(), threading.Event(), []

    def sample(self, content: Any) -> Any:
        return Fault("x", "y", "z") if content == "bad" else content

    def rows(self, samples: Any, names: Any) -> Any:
        self.batches.append(list(samples))
        self.began.set()
        assert self.go.wait(60)
        if "boom" in samples:
            raise RuntimeError("with a private path")
        return [{"item": name, "said": sample} for name, sample in zip(names, samples, strict=True)]


def held(queue: int = 12) -> tuple[Held, Batcher]:
    model = Held()
    return model, Batcher(model, queue=queue, wait=0.0, workers=2)


def given(*contents: str) -> list[Given]:
    return [Given(f"n{i}", content) for i, content in enumerate(contents)]


def test_what_arrives_while_the_network_is_busy_is_one_batch():
    model, batcher = held()

    async def ask() -> list[Any]:
        first = asyncio.create_task(batcher.answer(given("a")))
        await asyncio.to_thread(model.began.wait, 60)
        rest = [asyncio.create_task(batcher.answer(given(c, "bad"))) for c in "bcd"]
        while len(batcher._ready) < 3:
            await asyncio.sleep(0.001)
        model.go.set()
        return await asyncio.gather(first, *rest)

    answers = asyncio.run(ask())
    assert [len(batch) for batch in model.batches] == [1, 3]
    assert answers[0] == [{"item": "n0", "said": "a"}]
    for answer, content in zip(answers[1:], "bcd", strict=True):
        assert answer == [{"item": "n0", "said": content}, Fault("x", "y", "z")]
    batcher.close()


def test_a_full_queue_is_said_with_the_seconds_to_wait():
    model, batcher = held(queue=4)

    async def ask() -> Any:
        waiting = asyncio.create_task(batcher.answer(given("a", "b", "c")))
        await asyncio.sleep(0)
        with pytest.raises(RefusedError) as refused:
            await batcher.answer(given("d", "e"))
        model.go.set()
        assert len(await waiting) == 3
        assert len(await batcher.answer(given("d", "e"))) == 2  # there is room again
        return refused.value.fault

    fault = asyncio.run(ask())
    assert fault.status == 503
    assert fault.retry >= 1
    assert batcher.pending == 0
    batcher.close()


def test_a_batch_that_fails_says_so_and_the_next_is_computed():
    model, batcher = held()
    model.go.set()
    bad = asyncio.run(batcher.answer(given("boom")))
    assert [fault.status for fault in bad] == [500]
    assert "private" not in json.dumps(bad[0].plain())
    assert asyncio.run(batcher.answer(given("fine"))) == [{"item": "n0", "said": "fine"}]
    batcher.close()


def test_closing_answers_what_is_pending():
    model, batcher = held()

    async def ask() -> Any:
        waiting = [asyncio.create_task(batcher.answer(given(c))) for c in "abcde"]
        await asyncio.to_thread(model.began.wait, 60)
        model.go.set()
        await asyncio.to_thread(batcher.close)
        with pytest.raises(RefusedError):
            await batcher.answer(given("late"))
        return await asyncio.gather(*waiting)

    assert len(asyncio.run(ask())) == 5


# -- starting and stopping -----------------------------------------------------------------------


def test_a_port_that_is_taken_is_said_before_the_run_is_loaded(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match=r"cannot listen on port .*; choose another"):
            serve(tmp_path / "no run", port=taken.getsockname()[1], reporter=QUIET)
    with pytest.raises(ConfigError, match="not an address of this machine"):
        serve(tmp_path / "no run", host="no.such.host.invalid", reporter=QUIET)
    with pytest.raises(ConfigError, match="max_items"):
        serve(tmp_path / "no run", queue=4)


def test_other_machines_are_let_in_with_a_warning(run, capsys):
    with serving(run, port=0, host="0.0.0.0", cache=run.parent / "cache") as url:
        port = url.rpartition(":")[2]
        status, _, _ = Client(f"http://127.0.0.1:{port}")("GET", "/health", host="my.machine")
        assert status == 200
    assert "without authentication" in capsys.readouterr().err


def test_the_extra_is_named(run, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "fastapi" else find(name)
    )
    with pytest.raises(MissingExtraError, match=r"pip install 'headstart\[serve\]'"):
        serve(run, port=0, reporter=QUIET)


def started(run: Path, port: int) -> tuple[subprocess.Popen[str], str]:
    words = [sys.executable, "-m", "headstart", "serve", str(run), "--port", str(port), "--json"]
    words += ["--cache", str(run.parent / "cache")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.rstrip() == "}":
            return process, json.loads(said)["url"]
    raise AssertionError(process.communicate()[1])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_answers_what_is_in_flight_and_the_port_is_free_at_once(run, number):
    process, url = started(run, 0)
    port = int(url.rpartition(":")[2])
    sent, answered = threading.Semaphore(0), []

    def ask(_: int) -> None:
        client = Client(url)
        body = in_json(*map(picture, range(60)))
        client._connection.putrequest("POST", "/predict")
        client._connection.putheader("Content-Type", "application/json")
        client._connection.putheader("Content-Length", str(len(body)))
        client._connection.endheaders(body)
        sent.release()
        answer = client._connection.getresponse()
        answered.append((answer.status, len(json.loads(answer.read())["predictions"])))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert sent.acquire(timeout=60)
    # The last request may be on its way to the service: it is in flight once it is counted.
    while Client(url)("GET", "/health")[2]["pending"] == 0 and len(answered) < 4:
        pass
    os.kill(process.pid, number)
    for thread in threads:
        thread.join(60)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert answered
    assert set(answered) == {(200, 60)}

    again, other = started(run, port)
    try:
        assert other == url
        assert Client(other).images(picture(1))[0] == 200
    finally:
        again.terminate()
        assert again.wait(60) == 0


@pytest.mark.slow
def test_a_kill_leaves_nothing_that_a_restart_would_stumble_over(run):
    process, url = started(run, 0)
    assert Client(url).images(picture(1))[0] == 200
    process.kill()
    process.communicate()
    again, other = started(run, int(url.rpartition(":")[2]))
    assert other == url
    assert Client(other).images(picture(1))[0] == 200
    again.terminate()
    assert again.wait(60) == 0
