"""The plan: small jobs run as they are, larger ones on what a trial finds, which is remembered."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headstart.backbones import Backbone, features_of, load_backbone
from headstart.cache import FeatureCache
from headstart.core.arguments import Arguments
from headstart.core.errors import ConfigError
from headstart.data import Preprocessing, load_items
from headstart.extraction import Engine, Extraction, Extractor, choice, extract, machine, plan
from headstart.extraction.engines import EngineUnfitError, Prospect, register_engine
from headstart.extraction.engines import table as engine_table
from headstart.extraction.precision import row_errors

INPUTS = Preprocessing(size=(16, 16), mean=(0.5,) * 3, std=(0.25,) * 3)


class Slow(nn.Module):
    """A network that takes some milliseconds an item; a fast engine skips the waiting."""

    seconds = 0.002

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.seconds * len(x))
        return self.norm(self.conv(x)).relu().mean((2, 3))


def split_of(count: int, seed: int = 0):
    images = np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    return load_items((images, np.zeros(count, int)))


OPENED: list[str] = []


@contextlib.contextmanager
def quick(cuts: Sequence[Backbone], precision: str, device: torch.device) -> Iterator[Any]:
    OPENED.append("quick")

    def run(inputs: Arguments) -> list[Tensor]:
        net = cuts[0].module
        before, net.seconds = net.seconds, 0.0
        try:
            return features_of(cuts, inputs)
        finally:
            net.seconds = before

    yield run


@contextlib.contextmanager
def unfit(cuts: Sequence[Backbone], precision: str, device: torch.device) -> Iterator[Any]:
    OPENED.append("unfit")
    raise EngineUnfitError("it has a loop")
    yield


@contextlib.contextmanager
def wrong(cuts: Sequence[Backbone], precision: str, device: torch.device) -> Iterator[Any]:
    OPENED.append("wrong")
    yield lambda inputs: [rows + 1 for rows in features_of(cuts, inputs)]


@contextlib.contextmanager
def slower(cuts: Sequence[Backbone], precision: str, device: torch.device) -> Iterator[Any]:
    OPENED.append("slower")

    def run(inputs: Arguments) -> list[Tensor]:
        time.sleep(0.2)
        return features_of(cuts, inputs)

    yield run


PROMISING = {"cpu": Prospect(0.1, {"float32": 10.0})}


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch):
    """Enter engines in a table with the eager one alone; nothing is small to the plan."""
    monkeypatch.setattr(engine_table, "_ENGINES", {"eager": engine_table._ENGINES["eager"]})
    monkeypatch.setattr(plan, "_SMALL_SECONDS", 0.05)
    OPENED.clear()

    def enter(name: str, open_engine: Any, prospect: Any = PROMISING) -> None:
        register_engine(Engine(name, name, open_engine, prospect=prospect))

    return enter


class Notes:
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


class Kept(dict):
    """A memory for one test."""

    def get(self, about: Any) -> Any:
        return super().get(repr(about))

    def put(self, about: Any, values: Any) -> None:
        self[repr(about)] = dict(values)


def run_job(count: int = 200, memory: Any = None, **settings: Any) -> tuple[Any, list[str], Any]:
    backbone, split = load_backbone(Slow().eval(), inputs=INPUTS), split_of(count)
    with Extractor((backbone,), Extraction(batch_size=16, **settings), memory) as extractor:
        rows = np.concatenate([part.features[0] for part in extractor.rows(split)])
        notes = Notes()
        extractor.tell(notes)
    return extractor.plan, notes.said, rows


def test_a_small_job_runs_as_it_is_written_and_says_nothing(register) -> None:
    register("quick", quick)
    chosen, said, _ = run_job(8)
    assert (chosen.engine, said, OPENED) == ("as written", [], [])


def test_what_pays_is_chosen_with_its_reason_and_remembered(register) -> None:
    register("quick", quick)
    memory = Kept()
    chosen, (said,), rows = run_job(memory=memory)
    assert chosen.engine == "quick"
    assert said.startswith("engine 'quick' in float32, batches of 16, ")
    assert " images/s against " in said
    again, (said,), same = run_job(memory=memory)
    assert again.engine == "quick"
    assert said.endswith("measured in an earlier run")
    np.testing.assert_array_equal(rows, same)
    expected = run_job(engine="eager")[2]
    np.testing.assert_allclose(rows, expected, atol=1e-5)


def test_what_is_remembered_holds_for_one_version_of_the_libraries(register, monkeypatch) -> None:
    register("quick", quick)
    memory = Kept()
    run_job(memory=memory)
    monkeypatch.setattr(machine, "_version", lambda library: "99")
    _, (said,), _ = run_job(memory=memory)
    assert "ready after" in said
    assert len(memory) == 2


@pytest.mark.parametrize(
    ("name", "engine", "why"),
    [
        ("unfit", unfit, "'unfit' cannot run it (it has a loop)"),
        ("wrong", wrong, "'wrong' cannot run it (the engine 'wrong' and the network itself return"),
        ("slower", slower, "'slower' is slower ("),
    ],
)
def test_what_does_not_work_out_is_said_and_not_tried_again(register, name, engine, why) -> None:
    register(name, engine)
    memory = Kept()
    chosen, (said,), rows = run_job(memory=memory)
    assert (chosen.engine, OPENED) == ("eager", [name])
    assert why in said
    _, _, again = run_job(memory=memory)
    assert [name] == OPENED
    np.testing.assert_array_equal(rows, again)


def test_what_does_not_pay_back_is_not_tried(register) -> None:
    register("quick", quick, {"cpu": Prospect(60.0, {"float32": 10.0})})
    chosen, (said,), _ = run_job()
    assert (chosen.engine, OPENED) == ("eager", [])
    assert said.endswith("'quick' does not pay off for 200 images")


def test_the_first_share_of_a_job_is_planned_as_the_whole(register, tmp_path) -> None:
    register("quick", quick, {"cpu": Prospect(0.8, {"float32": 10.0})})
    backbone, split = load_backbone(Slow().eval(), inputs=INPUTS), split_of(900)
    notes = Notes()
    notes.task = Quiet().task
    settings = Extraction(batch_size=16)
    found = FeatureCache(tmp_path).features(backbone, split, settings=settings, reporter=notes)
    assert found.use.misses == 900
    assert OPENED == ["quick"]
    assert sum(text.startswith("engine 'quick'") for text in notes.said) == 1


class Quiet:
    @contextlib.contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[Any]:
        yield self

    def advance(self, count: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass


def test_one_thread_is_taken_where_several_are_slower(register, monkeypatch) -> None:
    monkeypatch.setattr(plan, "_THREADS_SECONDS", 0.0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        forward = Slow.forward

        def busy(self: Slow, x: Tensor) -> Tensor:
            time.sleep(0.02 if torch.get_num_threads() > 1 else 0.0)
            return forward(self, x)

        monkeypatch.setattr(Slow, "forward", busy)
        chosen, _, _ = run_job()
        assert chosen.threads == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# Precision


@pytest.fixture
def bfloat16(monkeypatch: pytest.MonkeyPatch):
    """Let a CPU claim instructions for bfloat16, and say what a trial finds."""
    trials: list[int] = []

    def found(gain: float, off: float) -> list[int]:
        for module in (choice, __import__("headstart.cache.features", fromlist=["x"])):
            monkeypatch.setattr(module, "half_types", lambda device: ("bfloat16",))
        monkeypatch.setattr(choice, "_SMALL_SECONDS", 0.05)

        def trial(*args: Any) -> dict[str, float]:
            trials.append(1)
            return {"gain": gain, "off": off}

        monkeypatch.setattr(choice, "_trial", trial)
        return trials

    return found


def settle(cache: FeatureCache, count: int = 64) -> tuple[str, list[str]]:
    backbone, notes = load_backbone(Slow().eval(), inputs=INPUTS), Notes()
    settings = Extraction(precision="auto")
    made = cache.settled(settings, (backbone,), (split_of(count),), notes)
    return made.precision, notes.said


@pytest.mark.parametrize(
    ("gain", "off", "precision"),
    [(1.8, 0.004, "bfloat16"), (1.1, 0.004, "float32"), (1.8, 0.03, "float32")],
)
def test_half_precision_where_it_is_faster_and_as_good(
    bfloat16, tmp_path, gain, off, precision
) -> None:
    trials, cache = bfloat16(gain, off), FeatureCache(tmp_path)
    chosen, (said,) = settle(cache)
    assert chosen == precision
    assert said.startswith(f"precision {precision}: ")
    assert f"{gain:.1f} × as fast as float32, rows within {off:.2%} of it" in said
    assert settle(cache)[0] == precision
    assert len(trials) == 1  # the second time it was remembered


def test_a_small_job_is_in_float32(bfloat16, tmp_path) -> None:
    trials = bfloat16(3.0, 0.001)
    assert settle(FeatureCache(tmp_path), 4) == ("float32", [])
    assert not trials


def test_rows_that_are_stored_decide(bfloat16, tmp_path) -> None:
    bfloat16(3.0, 0.001)
    cache, split = FeatureCache(tmp_path), split_of(64)
    backbone = load_backbone(Slow().eval(), inputs=INPUTS)
    cache.features(backbone, split, settings=Extraction(precision="float32"))
    assert settle(cache) == ("float32", [])
    found = cache.features(backbone, split, settings=Extraction(precision="auto"))
    assert found.use.misses == 0
    other = FeatureCache(tmp_path / "other")
    assert other.features(backbone, split, settings=Extraction(precision="auto")).use.misses == 64
    assert settle(other) == ("bfloat16", [])


def test_a_trial_measures_both_and_leaves_the_network_as_it_is() -> None:
    net = Slow().eval()
    backbone, split = load_backbone(net, inputs=INPUTS), split_of(16)
    inputs = choice._some((backbone,), split, torch.device("cpu"))
    with torch.inference_mode():
        found = choice._trial((backbone,), inputs, "bfloat16", torch.device("cpu"))
    assert 0 < found["off"] < 0.02
    assert found["gain"] > 0
    assert {p.dtype for p in net.parameters()} == {torch.float32}


def test_errors_of_rows_are_relative_to_their_length() -> None:
    exact = torch.tensor([[3.0, 4.0], [300.0, 400.0]])
    found = row_errors(exact + torch.tensor([[0.0, 1.0], [0.0, 1.0]]), exact)
    np.testing.assert_allclose(found, [0.2, 0.002])


def test_names_of_precisions() -> None:
    assert Extraction(precision="bf16") == Extraction(precision="bfloat16")
    assert Extraction(precision="fp32").precision == "float32"
    with pytest.raises(ConfigError, match=r"'tf32' needs a CUDA device, and this is cpu"):
        extract(
            load_backbone(Slow().eval(), inputs=INPUTS), split_of(2),
            settings=Extraction(precision="tf32", device="cpu"),
        )  # fmt: skip
    with pytest.raises(ConfigError, match="has to be resolved before this call"):
        Extractor((load_backbone(Slow().eval(), inputs=INPUTS),), Extraction(precision="auto"))
