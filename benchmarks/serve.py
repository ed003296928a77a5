"""`serve` under load against `predict` in batches: the same images, in turns, in one run.

    python benchmarks/serve.py ../shared/data/hymenoptera

MobileNetV1 (or headstart/photos with `--photos`) is fitted on the photographs. Then, in rounds,
`predict` answers for a list of images and 32 clients, a process of their own, send the same images
one by one, with bad ones among them. No image comes twice: each has a comment of its own, so that
nothing is found in a cache. Every answer is compared with that of `predict`. It ends with a line of
JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import numpy as np

import headstart
from headstart.commands.serve.job import serving
from headstart.core.progress import SilentReporter

BAD = (b"", b"no image", b"\xff\xd8\xff\xe0 half a JPEG", b"<html></html>")
QUIET = SilentReporter()


def unlike(data: bytes, number: int) -> bytes:
    """A JPEG with a comment of its own: the same pixels, another content."""
    comment = f"{number:08d}".encode()
    return data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]


def backbone(photos: bool, data: Path, size: int):
    if photos:
        return "headstart/photos"
    weights = data.parent / "weights" / "mobilenetv1_imagenet.safetensors"
    return headstart.load_backbone(
        "timm/mobilenetv1_100",
        weights=str(weights),
        layer="blocks.4.0",
        model_args={"pad_type": "same", "bn_eps": 1e-3},
        mean=0.5,
        std=0.5,
        size=size,
    )


def clients(url: str, bodies: list[bytes], count: int, answers) -> None:
    """Send every body once, from `count` connections; put (seconds, statuses, rows) at the end."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    todo = iter(list(enumerate(bodies)))

    def work(_: int) -> list[tuple[int, int, dict, float]]:
        connection, found = HTTPConnection(host, int(port), timeout=120), []
        for i, body in todo:
            begun = time.perf_counter()
            while True:
                headers = {"Content-Type": "image/jpeg"}
                connection.request("POST", "/predict", body, headers)
                answer = connection.getresponse()
                said = json.loads(answer.read())
                if answer.status != 503:
                    break
                time.sleep(float(answer.headers["Retry-After"]))
            found.append((i, answer.status, said, time.perf_counter() - begun))
        return found

    begun = time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        parts = list(pool.map(work, range(count)))
    answers.put((time.perf_counter() - begun, [each for part in parts for each in part]))


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("data", type=Path)
    ask.add_argument("--photos", action="store_true")
    ask.add_argument("--size", type=int, default=224, help="pixels a side, of MobileNetV1")
    ask.add_argument("--requests", type=int, default=10_000)
    ask.add_argument("--rounds", type=int, default=5)
    ask.add_argument("--clients", type=int, default=32)
    ask.add_argument("--engine", default="auto")
    ask.add_argument("--batch-size", type=int, default=16)
    said = ask.parse_args()
    files = sorted(said.data.rglob("*.jpg"))
    photographs = [path.read_bytes() for path in files]
    each = said.requests // said.rounds
    bad = max(1, each // 50)
    ratios, differences, seconds = [], [], {"predict": [], "serve": []}
    statuses: dict[int, int] = {}
    lost, latencies = 0, []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run = headstart.fit(
            said.data,
            backbone(said.photos, said.data, said.size),
            head="linear",
            on_bad="skip",
            precision="float32",
            cache=folder / "cache",
            write=False,
            reporter=QUIET,
        )
        spawn = multiprocessing.get_context("spawn")
        options = {"engine": said.engine, "cache": folder / "serve", "reporter": QUIET}
        with serving(run, port=0, batch_size=said.batch_size, **options) as url:
            for turn in range(said.rounds):
                good = [
                    unlike(photographs[i % len(photographs)], turn * each + i)
                    for i in range(each - bad)
                ]
                bodies = list(good)
                for i in range(bad):
                    bodies.insert(i * len(bodies) // bad, BAD[i % len(BAD)])
                begun = time.perf_counter()
                expected = headstart.predict(
                    good, run, engine=said.engine, cache=folder / f"cache{turn}", reporter=QUIET
                )
                seconds["predict"].append((time.perf_counter() - begun) / len(good))
                answers = spawn.Queue()
                process = spawn.Process(target=clients, args=(url, bodies, said.clients, answers))
                process.start()
                taken, found = answers.get()
                process.join()
                seconds["serve"].append(taken / len(good))
                ratios.append(seconds["predict"][-1] / seconds["serve"][-1])
                lost += len(bodies) - len({i for i, *_ in found})
                latencies += [late for *_, late in found]
                for _, status, _, _ in found:
                    statuses[status] = statuses.get(status, 0) + 1
                rows = [
                    answer
                    for _, status, answer, _ in sorted(found, key=lambda one: one[0])
                    if status == 200
                ]
                p = np.asarray(expected.probabilities)
                for row, label, probability in zip(
                    (row["predictions"][0] for row in rows), expected.labels, p.max(1), strict=True
                ):
                    assert row["class"] == label or probability < 0.51, (row, label, probability)
                    differences.append(abs(row["probability"] - probability))
                print(
                    f"round {turn + 1}: predict {1 / seconds['predict'][-1]:.1f}, serve"
                    f" {1 / seconds['serve'][-1]:.1f} images/s, {ratios[-1]:.3f}",
                    flush=True,
                )
    print(json.dumps({
        "requests": said.requests, "clients": said.clients, "statuses": statuses, "lost": lost,
        "predict_images_per_s": round(1 / statistics.median(seconds["predict"]), 1),
        "serve_images_per_s": round(1 / statistics.median(seconds["serve"]), 1),
        "ratio": round(statistics.median(ratios), 3), "ratios": [round(r, 3) for r in ratios],
        "largest_difference": float(max(differences)),
        "latency_ms": {q: round(1000 * float(np.quantile(latencies, q)), 1) for q in (0.5, 0.99)},
    }))  # fmt: skip


if __name__ == "__main__":
    main()
