"""Programs that are kept: the next process starts with what an earlier one has compiled."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headstart.backbones import Backbone, features_of, load_backbone
from headstart.cache import FeatureCache
from headstart.core.arguments import Arguments
from headstart.data import Preprocessing, load_items
from headstart.extraction import Engine, Extraction, Extractor, plan
from headstart.extraction.engines import EngineUnfitError, Prospect, find_engine, register_engine
from headstart.extraction.engines import table as engine_table

INPUTS = Preprocessing(size=(16, 16), mean=(0.5,) * 3, std=(0.25,) * 3)
PROMISING = {"cpu": Prospect(0.1, {"float32": 10.0})}


class Small(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu().mean((2, 3))


def split_of(count: int):
    images = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    return load_items((images, np.zeros(count, int)))


class Notes:
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


MADE: list[str] = []


@contextlib.contextmanager
def keeping(
    cuts: Sequence[Backbone], precision: str, device: torch.device, slot: Any = None
) -> Iterator[Any]:
    """An engine whose program is an empty file, and takes a while to write."""

    def run(inputs: Arguments) -> list[Tensor]:
        if slot is not None and slot.find(inputs) is None:
            MADE.append(cuts[0].name)
            slot.keep(inputs, lambda path: path.write_bytes(b"program"))
        return features_of(cuts, inputs)

    yield run


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    eager = engine_table._ENGINES["eager"]
    monkeypatch.setattr(engine_table, "_ENGINES", {"eager": eager})
    monkeypatch.setattr(plan, "_SMALL_SECONDS", 0.0)
    # The engine is as fast as the network: let it look faster, so that it is taken.
    timed = plan.Trial._timed
    monkeypatch.setattr(
        plan.Trial,
        "_timed",
        lambda self, run, inputs, rounds=2: (
            timed(self, run, inputs, rounds) / (1 + 9 * (rounds == 1))
        ),
    )
    MADE.clear()
    prospect = {"cpu": Prospect(1e-4, {"float32": 1e3})}
    register_engine(Engine("keeper", "keeps", keeping, prospect=prospect, kept=keeping))


def run_job(cache: FeatureCache, net: nn.Module, **settings: Any) -> tuple[Any, list[str]]:
    backbone = load_backbone(net.eval(), inputs=INPUTS)
    given = Extraction(batch_size=16, **settings)
    with Extractor((backbone,), given, cache.plans()) as extractor:
        extractor.ahead = 1_000_000  # a job that pays for any preparation
        for _ in extractor.rows(split_of(64)):
            pass
        notes = Notes()
        extractor.tell(notes)
    return extractor.plan, notes.said


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    tmp_path.chmod(0o700)
    return FeatureCache(tmp_path / "cache")


def test_a_program_is_made_once_and_the_plan_says_so(keeper: None, cache: FeatureCache) -> None:
    chosen, (said,) = run_job(cache, Small())
    assert chosen.engine == "keeper"
    assert said.endswith("; its program is kept for later runs")
    chosen, (said,) = run_job(cache, Small())
    assert chosen.engine == "keeper"
    assert "measured in an earlier run; its program was kept by an earlier run, and ready" in said
    chosen, (said,) = run_job(cache, Small(), engine="keeper")
    assert said.endswith(": its program was kept by an earlier run")
    assert len(MADE) == 1


def test_other_weights_and_precisions_have_other_programs(
    keeper: None, cache: FeatureCache
) -> None:
    for seed in (0, 1, 0):
        run_job(cache, Small(seed), engine="keeper")
    assert len(MADE) == 2
    run_job(cache, Small(), engine="keeper", precision="bfloat16")
    assert len(MADE) == 3


def test_another_processor_has_other_programs(
    keeper: None, cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job(cache, Small(), engine="keeper")
    monkeypatch.setattr("headstart.extraction.machine._instructions", lambda: "others")
    run_job(cache, Small(), engine="keeper")
    assert len(MADE) == 2


def test_without_a_private_folder_nothing_is_kept(
    keeper: None, cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.cache.plans.private_folder", lambda path: None)
    for _ in range(2):
        _, said = run_job(cache, Small(), engine="keeper")
        assert said == []
    assert MADE == []


def test_a_program_that_went_is_weighed_as_one_to_be_made(
    keeper: None, cache: FeatureCache
) -> None:
    run_job(cache, Small())
    shelf = cache.plans().shelf
    for path in shelf.folder.iterdir():
        path.unlink()
    run_job(cache, Small())
    assert len(MADE) == 2


PROCESS = """
import json, sys
import numpy as np, timm, torch
from headstart.backbones import load_backbone
from headstart.cache import FeatureCache
from headstart.data import Preprocessing, load_items
from headstart.extraction import Extraction, Extractor

class Notes:
    said = []
    def note(self, text): self.said.append(text)

torch.manual_seed(0)
net = timm.create_model("test_resnet", num_classes=0).eval()
inputs = Preprocessing(size=(64, 64), mean=(0.5,) * 3, std=(0.25,) * 3)
backbone = load_backbone(net, inputs=inputs)
images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
split = load_items((images, np.zeros(20, int)))
settings = Extraction(batch_size=8, engine="aot", precision=sys.argv[2])
with Extractor((backbone,), settings, FeatureCache(sys.argv[1]).plans()) as extractor:
    rows = np.concatenate([part.features[0] for part in extractor.rows(split)])
    extractor.tell(Notes())
expected = np.concatenate([
    part.features[0]
    for part in Extractor((backbone,), Extraction(batch_size=8, engine="eager")).rows(split)
])
off = float(np.abs(rows - expected).max() / np.abs(expected).max())
print(json.dumps({"rows": rows.tobytes().hex(), "off": off, "said": Notes.said}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_the_next_process_loads_the_program_and_has_the_same_bits(
    tmp_path: Path, precision: str, most: float
) -> None:
    tmp_path.chmod(0o700)

    def process() -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", PROCESS, str(tmp_path / "cache"), precision],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout.splitlines()[-1])

    first, second = process(), process()
    assert first["off"] <= most
    assert first["said"] == []
    assert second["said"][0].endswith("its program was kept by an earlier run")
    assert second["rows"] == first["rows"]


def test_cuda_graphs_are_of_cuda_devices() -> None:
    backbone = load_backbone(Small().eval(), inputs=INPUTS)
    engine = find_engine("cudagraphs")
    with (
        pytest.raises(EngineUnfitError, match="CUDA graphs need a CUDA device, and this is cpu"),
        engine.open([backbone], "float32", torch.device("cpu")),
    ):
        pass
    with Extractor((backbone,), Extraction(engine="cudagraphs")) as extractor:
        (rows,) = extractor.rows(split_of(9))
        notes = Notes()
        extractor.tell(notes)
    assert len(rows.indices) == 9
    assert notes.said == [
        "the engine 'cudagraphs' cannot run this network (CUDA graphs need a CUDA device, and"
        " this is cpu): it runs as written"
    ]


@pytest.mark.parametrize("faster", ["compile", "cudagraphs"])
def test_on_cuda_the_graphs_are_weighed_as_the_others_are(faster: str) -> None:
    """What earlier runs have measured decides; no device is needed to weigh."""
    backbone = load_backbone(Small().eval(), inputs=INPUTS)
    trial = plan.Trial(
        (backbone,), "bfloat16", torch.device("cuda"), Arguments((torch.zeros(4, 3, 16, 16),)),
        100_000, [], 1e-3, enter=lambda context: context,  # type: ignore[arg-type,return-value]
    )  # fmt: skip
    known = {name: {"item": 2e-4, "seconds": 30.0} for name in ("compile", "cudagraphs")}
    known[faster]["item"] = 1e-4
    first = trial._candidates(known, 1e-3)[0][1]
    assert first.name == faster
    unmeasured = [engine.name for _, engine in trial._candidates({}, 1e-3)]
    assert {"compile", "cudagraphs"} <= set(unmeasured)
    assert "cudagraphs" not in find_engine("openvino").prospect


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_graphs_give_the_rows_of_the_network() -> None:
    backbone = load_backbone(Small().eval(), inputs=INPUTS)
    rows = {}
    for engine in ("eager", "cudagraphs"):
        with Extractor((backbone,), Extraction(engine=engine, batch_size=8)) as extractor:
            parts = [part.features[0] for part in extractor.rows(split_of(40))]
        rows[engine] = np.concatenate(parts)
    np.testing.assert_allclose(rows["cudagraphs"], rows["eager"], atol=1e-4)
