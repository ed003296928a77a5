"""A run folder holds the old run or the new one, whatever is killed while it is written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart
from headstart.commands.finetune.job import plan_finetune
from headstart.commands.run_place import (
    COMMITTED,
    KNOWN,
    LOCK,
    holds_folder,
    prepare_folder,
    publishing_run,
    whole_run,
)
from headstart.commands.saved_run import open_run
from headstart.core.errors import ConfigError, DataError, HeadError
from headstart.core.locks import try_lock
from headstart.core.progress import SilentReporter

QUIET = SilentReporter()


def pictures(n: int, names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    labels = np.arange(n) % 2
    noise = rng.integers(0, 90, (n, 8, 8, 3), dtype=np.uint8)
    return noise + (labels * 120).astype(np.uint8)[:, None, None, None], np.array(names)[labels]


def data(*names: str) -> dict[str, Any]:
    return {"train": pictures(24, names), "test": pictures(12, names)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``old``: fine-tuned, of cats and dogs; ``new``: on frozen features, of ants and bees."""
    place = tmp_path_factory.mktemp("runs")
    more: dict[str, Any] = {"cache": place / "cache", "baselines": False, "reporter": QUIET}
    headstart.finetune(data("cat", "dog"), recipe="full", epochs=1, out=place / "old", **more)
    headstart.fit(data("ant", "bee"), out=place / "new", **more)
    return place


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# -- kills ----------------------------------------------------------------------------------------


@holds_folder
def replace(folder: Path, source: Path) -> None:
    """Do what every job does with its folder, all computing left out."""
    prepare_folder(folder, "run")
    with publishing_run(folder) as made:
        for path in sorted(source.iterdir()):
            shutil.copyfile(path, made / path.name)


def killed_at(step: int, folder: Path, source: Path) -> bool:
    """Replace a run in a process that is killed before its ``step``-th change of the disk.

    Returns:
        Whether it was killed; else it had fewer steps.
    """
    child = os.fork()
    if child == 0:
        changes = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}
        left = [step]

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & 3
            if event in changes or writing:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(hook)
            replace(folder, source)
            os._exit(0)
        except BaseException:
            os._exit(9)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def fresh(tmp_path: Path, source: Path | None) -> Path:
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    if source is not None:
        shutil.copytree(source, folder)
        (folder / "notes of mine.txt").write_text("mine")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [("old", "new"), ("new", "old"), (None, "new")])
def test_killed_before_every_change_of_the_disk(place, tmp_path, first, second):
    classes = {"old": ("cat", "dog"), "new": ("ant", "bee")}
    seen: list[str] = []
    step = 0
    while True:
        step += 1
        folder = fresh(tmp_path, place / first if first else None)
        killed = killed_at(step, folder, place / second)
        if first is None and not (whole_run(folder) / "run.json").exists():
            with pytest.raises(DataError, match="not a run folder"):
                open_run(folder)
            seen.append("none")
        else:
            found = open_run(folder)
            which = "new" if found.classes == classes["new"] else "old"
            assert found.classes == classes[which]
            assert (found.tuned is not None) == (which == "old")
            if found.tuned is not None and step % 10 == 0:
                found.load_backbone()
            seen.append(which)
        # Whatever was left, the next job leaves a whole run, nothing else, and what is mine.
        replace(folder, place / second)
        mine = {"notes of mine.txt"} if first else set()
        assert names_in(folder) == names_in(place / second) | mine
        assert open_run(folder).classes == classes[second]
        if not killed:
            break
    turn = seen.index(second)
    assert set(seen[:turn]) == {first or "none"}
    assert set(seen[turn:]) == {second}
    assert 15 < turn < len(seen) - 5  # it was killed before and after the one moment that counts


@pytest.mark.parametrize("step", range(1, 100, 7))
def test_killed_before_some_changes_of_the_disk(place, tmp_path, step):
    """The quick part of the test above."""
    folder = fresh(tmp_path, place / "old")
    killed_at(step, folder, place / "new")
    assert open_run(folder).classes in {("cat", "dog"), ("ant", "bee")}
    replace(folder, place / "new")
    assert names_in(folder) == names_in(place / "new") | {"notes of mine.txt"}
    assert open_run(folder).classes == ("ant", "bee")


def test_a_torn_folder_is_refused_and_not_believed(place, tmp_path):
    """What the issue names: a head of one run with the classes of another."""
    for name in ("head.json", "head.safetensors", "run.json"):
        folder = fresh(tmp_path, place / "old")
        shutil.copyfile(place / "new" / name, folder / name)
        with pytest.raises((DataError, HeadError)) as raised:
            open_run(folder)
        assert "\n" not in str(raised.value)
    folder = fresh(tmp_path, place / "old")
    for name in ("head.json", "head.safetensors"):  # a head that is whole, and another run's
        shutil.copyfile(place / "new" / name, folder / name)
    with pytest.raises(DataError, match="belongs to another run"):
        open_run(folder)
    folder = fresh(tmp_path, place / "old")
    (folder / "plan.json").write_text("{}")
    with pytest.raises(DataError, match=r"plan\.json"):
        open_run(folder)


def test_a_real_job_that_is_killed_leaves_the_run_before_it(place, tmp_path):
    """The whole of ``fit`` in a process of its own, killed when it begins to write."""
    folder = fresh(tmp_path, place / "old")
    script = tmp_path / "job.py"
    script.write_text(
        "import os, signal, sys\n"
        "import numpy as np\n"
        "import headstart\n"
        "from headstart.commands import run_report\n"
        "run_report.write_tested = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "x = np.random.default_rng(0).integers(0, 255, (24, 8, 8, 3), dtype=np.uint8)\n"
        "y = np.arange(24) % 2\n"
        "headstart.fit({'train': (x, y), 'test': (x[:6], y[:6])}, 'headstart/glyphs',\n"
        "              out=sys.argv[1], cache=sys.argv[2], baselines=False)\n"
    )
    ended = subprocess.run(
        [sys.executable, script, folder, tmp_path / "cache"], capture_output=True, check=False
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    before = content(place / "old")
    assert content(folder).items() >= before.items()
    assert open_run(folder).classes == ("cat", "dog")
    headstart.fit(data("ant", "bee"), out=folder, cache=tmp_path / "cache", baselines=False)
    assert names_in(folder) == names_in(place / "new") | {"notes of mine.txt"}


def test_a_job_that_fails_while_writing_leaves_the_run_before_it(place, tmp_path, monkeypatch):
    folder = fresh(tmp_path, place / "old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("headstart.commands.run_report.write_tested", fail)
    with pytest.raises(OSError, match="No space"):
        headstart.fit(data("ant", "bee"), out=folder, cache=place / "cache", baselines=False)
    assert names_in(folder) == names_in(place / "old") | {"notes of mine.txt"}
    assert open_run(folder).classes == ("cat", "dog")


# -- over another run -----------------------------------------------------------------------------


def test_nothing_of_a_fine_tuned_run_stays_under_another(place, tmp_path):
    folder = fresh(tmp_path, place / "old")
    assert {"backbone.safetensors", "plan.json"} <= names_in(folder)
    headstart.fit(data("ant", "bee"), out=folder, cache=place / "cache", baselines=False)
    assert names_in(folder) == names_in(place / "new") | {"notes of mine.txt"}
    assert open_run(folder).tuned is None


@pytest.mark.parametrize("job", ["sweep", "examine", "compare", "evaluate"])
def test_every_job_replaces_what_another_left(place, tmp_path, job):
    folder = tmp_path / "run"
    more: dict[str, Any] = {"out": folder, "cache": place / "cache", "reporter": QUIET}

    def examine() -> Any:
        return headstart.examine(data("ant", "bee"), repetitions=2, **more)

    if job == "evaluate":
        headstart.evaluate(pictures(10, ("ant", "bee")), place / "new", **more)
    elif job == "examine":
        examine()
    elif job == "sweep":
        headstart.sweep(data("ant", "bee"), heads=("linear",), grid=(1.0,), **more)
    else:
        headstart.compare(data("ant", "bee"), configs=("eval", "train"), repeats=2, **more)
    left = names_in(folder)
    assert left <= KNOWN  # every name that a job writes is known, so that it can be replaced
    headstart.fit(data("ant", "bee"), baselines=False, **more)
    assert names_in(folder) == names_in(place / "new")
    if job != "evaluate":  # which refuses to be written over a run
        examine()
        assert "run.json" not in names_in(folder)


def test_a_folder_of_an_older_version_is_replaced_and_a_table_of_mine_is_not(place, tmp_path):
    folder = fresh(tmp_path, place / "old")
    description = json.loads((folder / "run.json").read_text())
    del description["files"]
    (folder / "run.json").write_text(json.dumps({**description, "format": 2}))
    with pytest.raises(ConfigError, match=r"holds 'predictions.csv'.*does not belong to its run"):
        headstart.fit(data("ant", "bee"), out=folder, cache=place / "cache", baselines=False)
    for name in ("predictions.csv", "predictions.parquet", "training_items.json"):
        (folder / name).unlink()
    headstart.fit(data("ant", "bee"), out=folder, cache=place / "cache", baselines=False)
    assert names_in(folder) == names_in(place / "new") | {"notes of mine.txt"}


def test_older_run_folders_open_and_say_what_they_lack(place, tmp_path):
    folder = fresh(tmp_path, place / "new")
    description = json.loads((folder / "run.json").read_text())
    for name in ("files", "training_items", "built_from"):
        del description[name]
    (folder / "run.json").write_text(json.dumps({**description, "format": 2}))
    (note,) = open_run(folder).notes
    assert "older version" in note
    said = headstart.predict(pictures(3, ("a", "b"))[0], folder, cache=place / "cache")
    assert len(said) == 3


# -- one job at a time ----------------------------------------------------------------------------


def test_the_second_job_in_a_folder_is_refused(place, tmp_path):
    folder = fresh(tmp_path, place / "old")
    lock = try_lock(folder / LOCK, exclusive=True)
    assert lock is not None
    more: dict[str, Any] = {"out": folder, "cache": place / "cache", "reporter": QUIET}
    jobs = (
        lambda: headstart.fit(data("a", "b"), baselines=False, **more),
        lambda: headstart.sweep(data("a", "b"), heads=("linear",), grid=(1.0,), **more),
        lambda: headstart.examine(data("a", "b"), repetitions=2, **more),
        lambda: headstart.finetune(data("a", "b"), epochs=1, **more),
        lambda: plan_finetune(data("a", "b"), **more),
        lambda: headstart.compare(data("a", "b"), configs=("eval",), repeats=2, **more),
    )
    for job in jobs:
        with pytest.raises(ConfigError, match="another job is writing into"):
            job()
    assert content(folder).keys() >= content(place / "old").keys()
    assert open_run(folder).classes == ("cat", "dog")  # reading needs no lock
    lock.release()
    jobs[0]()
    assert LOCK not in names_in(folder)


def test_a_job_that_fails_lets_go_of_the_folder(place, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(DataError) as raised:
        headstart.fit({"train": pictures(1, ("a", "a")), "test": pictures(2, ("a", "a"))},
                      out=folder, cache=place / "cache")  # fmt: skip
    assert raised.value.__traceback__ is not None  # which holds the frames of the job
    headstart.fit(data("ant", "bee"), out=folder, cache=place / "cache", baselines=False)


def test_jobs_of_one_second_have_folders_of_their_own(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    more: dict[str, Any] = {"cache": place / "cache", "baselines": False, "reporter": QUIET}
    folders = [headstart.fit(data("ant", "bee"), **more).folder for _ in range(3)]
    assert len({str(folder) for folder in folders}) == 3


# -- what is not ours -----------------------------------------------------------------------------


def test_a_folder_with_files_of_the_users_is_refused_and_left_alone(place, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"holds 1 file or folder that no run writes.*holiday"):
        headstart.fit(data("a", "b"), out=photos, cache=place / "cache")
    assert names_in(photos) == {"holiday.jpg"}
    for name in ("report.html", "predictions.csv", "checkpoint"):
        mine = tmp_path / name.replace(".", "_")
        mine.mkdir()
        if name == "checkpoint":
            (mine / name).mkdir()
            (mine / name / "progress of mine.txt").write_text("mine")
        else:
            (mine / name).write_text("mine")
        with pytest.raises(ConfigError, match="no run writes"):
            headstart.fit(data("a", "b"), out=mine, cache=place / "cache")
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / ".gitkeep").touch()
    headstart.fit(data("a", "b"), out=hidden, cache=place / "cache", baselines=False)
    assert ".gitkeep" in names_in(hidden)


@pytest.mark.parametrize("where", ["data", "data/run", "data/cat/run", "link/run", None])
def test_a_run_does_not_lie_in_the_data(place, tmp_path, monkeypatch, where):
    from PIL import Image

    for i in range(24):
        folder = tmp_path / "data" / ("cat" if i % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    before = sorted(tmp_path.rglob("*"))
    more: dict[str, Any] = {} if where is None else {"out": tmp_path / where}
    monkeypatch.chdir(tmp_path / "data")
    with pytest.raises(ConfigError, match="would be inside the data"):
        headstart.fit(tmp_path / "data", cache=place / "cache", baselines=False, **more)
    assert sorted(tmp_path.rglob("*")) == before


def test_links_are_not_written_through(place, tmp_path):
    folder = fresh(tmp_path, place / "new")
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    (folder / "report.html").unlink()
    (folder / "report.html").symlink_to(mine)
    headstart.fit(data("ant", "bee"), out=folder, cache=place / "cache", baselines=False)
    assert mine.read_text() == "mine"
    assert not (folder / "report.html").is_symlink()


def test_a_checkpoint_removes_only_what_is_its_own(place, tmp_path):
    from headstart.finetuning.checkpoint import Checkpoint

    place = tmp_path / "checkpoint"
    place.mkdir()
    for name in ("mine.txt", "state-1.safetensors", "best-1.safetensors", "progress.json"):
        (place / name).write_text("{}")
    Checkpoint(place, "x").remove()
    assert names_in(place) == {"mine.txt"}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "state-1.safetensors").write_text("mine")
    link = tmp_path / "link"
    link.symlink_to(elsewhere)
    Checkpoint(link, "x").remove()
    assert names_in(elsewhere) == {"state-1.safetensors"}


def test_a_plan_is_not_written_beside_a_finished_run(place, tmp_path):
    folder = fresh(tmp_path, place / "old")
    with pytest.raises(ConfigError, match="finished run"):
        plan_finetune(data("a", "b"), out=folder, cache=place / "cache", reporter=QUIET)
    assert (folder / "plan.json").read_bytes() == (place / "old" / "plan.json").read_bytes()


def test_what_was_committed_is_read_from_where_it_is(place, tmp_path):
    folder = fresh(tmp_path, place / "old")
    shutil.copytree(place / "new", folder / COMMITTED)
    assert open_run(folder).classes == ("ant", "bee")
    with pytest.raises(ConfigError, match="holds a run"):
        headstart.evaluate(
            pictures(4, ("ant", "bee")), place / "new", out=folder, cache=place / "cache"
        )
