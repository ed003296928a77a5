"""Every registry is open from outside: each test adds one thing without touching the package.

One test for each row of the table "to add X, touch these files" in ``docs/architecture.md``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
import torch
import typer
from sklearn.datasets import load_digits
from torch import Tensor, nn
from typer.testing import CliRunner

from headstart.backbones import Backbone, features_of, load_backbone
from headstart.cache import FeatureCache
from headstart.commands.compare.job import compare
from headstart.commands.finetune.job import FinetuneConfig, finetune
from headstart.commands.fit.job import FitConfig, fit
from headstart.commands.generate import as_flags, generated
from headstart.commands.predict.job import predict
from headstart.commands.settings import BackboneSpec, RunOptions, Signature
from headstart.core.arguments import Arguments
from headstart.core.errors import BackboneError, BadFilesError, ConfigError, DataError
from headstart.core.progress import Reporter, SilentReporter
from headstart.core.settings import check, command_line, option, options_of, recorded
from headstart.data import (
    INPUT_KINDS,
    Content,
    Dataset,
    Inputs,
    Items,
    NumberedView,
    Part,
    Request,
    Source,
    SourceKind,
    Split,
    UndecodableError,
    load_data,
    load_items,
    load_test_data,
    register_inputs,
    register_source,
    source,
)
from headstart.evaluation.targets import FloatArray
from headstart.extraction import Engine, Extraction, extract, register_engine
from headstart.extraction.engines import table as engine_table
from headstart.finetuning import (
    PRESETS,
    OptimizerKind,
    Recipe,
    Schedule,
    Stage,
    load_recipe,
    register_optimizer,
    register_recipe,
    register_schedule,
)
from headstart.finetuning.optimizers import OPTIMIZERS, SCHEDULES
from headstart.heads import HeadKind, Trained, TrainingRows, load_head, register_head, sweep, table
from headstart.heads import registry as heads
from headstart.heads.base import Arrays, Head
from headstart.heads.features import Features
from headstart.runners import Crew, Job, Ran, Runner, register_runner, work
from headstart.runners import table as runner_table
from headstart.sklearn import HeadClassifier, SettingsError
from headstart.study import Evidence, Finding, findings, register_rule
from headstart.study.heads import HeadRows, HeadSpec, fit_head
from tests.finetuning.conftest import squares

QUIET = SilentReporter()


@dataclass(frozen=True, eq=False)
class CentroidHead(Head):
    """A toy head: the class whose mean is nearest."""

    kind: ClassVar[str] = "centroid"

    means: FloatArray
    sharpness: float
    task: str = "classification"
    temperature: float = 1.0

    @property
    def n_features(self) -> int:
        return self.means.shape[1]

    @property
    def n_classes(self) -> int:
        return len(self.means)

    def decision(self, x: Features) -> FloatArray:
        rows = np.asarray(x, dtype=np.float64)
        return -self.sharpness * ((rows[:, None] - self.means) ** 2).sum(axis=2)

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        return {"means": self.means}, {"sharpness": self.sharpness}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], options: Mapping[str, Any]) -> Self:
        return cls(arrays["means"], float(options["sharpness"]))


@dataclass(frozen=True)
class CentroidOptions:
    sharpness: float = option(0.01, "How fast probability falls with distance.", above=0)

    def __post_init__(self) -> None:
        check(self)


def fit_centroids(rows: TrainingRows, options: CentroidOptions) -> Trained:
    x, y = np.asarray(rows.x, dtype=np.float64), np.asarray(rows.y)
    means = np.stack([x[y == label].mean(axis=0) for label in range(rows.n_classes)])
    return Trained(CentroidHead(means, options.sharpness), {"sharpness": options.sharpness})


CENTROID = HeadKind(
    name="centroid",
    summary="the nearest class mean by distance",
    fit=fit_centroids,
    options=CentroidOptions,
    candidates=lambda _: [{"sharpness": value} for value in (0.001, 0.01)],
)


@pytest.fixture
def centroid(monkeypatch: pytest.MonkeyPatch) -> HeadKind:
    heads.head_names()  # the built-in ones are in the table that is copied
    monkeypatch.setattr(table, "KINDS", dict(table.KINDS))
    return register_head(CENTROID)


def test_a_head_is_at_once_in_fit(centroid: HeadKind, tmp_path: Path) -> None:
    data = {"train": squares(40), "test": squares(20, 9)}
    run = fit(
        data, head="centroid", head_options={"sharpness": 1.0}, out=tmp_path / "run",
        cache=tmp_path / "cache", reporter=QUIET,
    )  # fmt: skip
    assert run.evaluation.accuracy.value > 0.7
    assert run.configuration["chosen"] == {"sharpness": 1.0}
    assert isinstance(load_head(tmp_path / "run"), CentroidHead)
    with pytest.raises(ConfigError, match="sharpness must be above 0"):
        fit(
            data, head="centroid", head_options={"sharpness": 0.0}, out=tmp_path / "other",
            cache=tmp_path / "cache", reporter=QUIET,
        )  # fmt: skip
    with pytest.raises(ConfigError, match="did you mean 'sharpness'"):
        FitConfig(head="centroid", head_options={"sharpnes": 1.0})
    with pytest.raises(ConfigError, match="did you mean 'centroid'"):
        FitConfig(head="centroids")


def test_a_head_is_at_once_in_sweeps(centroid: HeadKind) -> None:
    x, y = load_digits(return_X_y=True)
    found = sweep(x[:300], y[:300], 10, heads=("centroid", "knn"), folds=3)
    tried = {c.options["sharpness"] for c in found.candidates if c.head == "centroid"}
    assert tried == {0.001, 0.01}
    assert max(c.accuracy.value for c in found.candidates if c.head == "centroid") > 0.8
    everything = sweep(x[:300], y[:300], 10, grid=(0.1,), folds=3)
    assert "centroid" in {c.head for c in everything.candidates}


def test_a_head_is_at_once_in_comparisons(centroid: HeadKind) -> None:
    x, y = load_digits(return_X_y=True)
    x, y = x[:400].astype(np.float32), y[:400].astype(np.int64)
    held_out = np.arange(300) % 5 == 0
    rows = HeadRows(x[:300], y[:300], np.arange(300), held_out, x[:300][held_out], x[300:])
    fitted = fit_head(HeadSpec("centroid"), rows, 10, 0)
    assert (fitted.test == y[300:]).mean() > 0.8
    assert len(fitted.validation) == held_out.sum()
    assert fitted.chosen == {"sharpness": 0.01}
    assert HeadSpec("centroid", {"sharpness": 1.0}).describe()["sharpness"] == 1.0


def test_a_head_is_at_once_in_the_estimators(centroid: HeadKind) -> None:
    x, y = load_digits(return_X_y=True)
    model = HeadClassifier("centroid", head_options={"sharpness": 1.0})
    assert model.fit(x[:400], y[:400]).score(x[400:800], y[400:800]) > 0.7
    weighted = HeadClassifier("centroid", class_weight={**dict.fromkeys(range(10), 1.0), 3: 9.0})
    plain = HeadClassifier("centroid")
    threes = [(m.fit(x[:400], y[:400]).predict(x) == 3).sum() for m in (weighted, plain)]
    assert threes[0] > threes[1]
    with pytest.raises(SettingsError, match="no option 'sharp'"):
        HeadClassifier("centroid", head_options={"sharp": 1.0}).fit(x, y)


def test_a_head_that_is_not_linear_is_no_start_of_fine_tuning(centroid: HeadKind) -> None:
    with pytest.raises(ConfigError, match=r"one of linear, ridge.*cannot start from 'centroid'"):
        FinetuneConfig(probe="centroid")


def test_a_linear_head_is_a_start_of_fine_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    heads.head_names()
    monkeypatch.setattr(table, "KINDS", dict(table.KINDS))
    register_head(HeadKind("plain", "class means", heads.head_kind("lda").fit, linear=True))
    assert FinetuneConfig(probe="plain").probe == "plain"


def test_a_head_is_at_once_in_the_help() -> None:
    code = textwrap.dedent(
        """
        import sys
        from headstart.heads.registry import HeadKind, register_head
        register_head(HeadKind("centroid", "the nearest mean", None, linear=True))
        from headstart.commands.cli import main
        for command in ("fit", "sweep", "compare", "finetune"):
            sys.argv = ["headstart", command, "--help"]
            try:
                main()
            except SystemExit:
                pass
        assert "torch" not in sys.modules
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, timeout=60,
        env={**os.environ, "COLUMNS": "400"},
    )  # fmt: skip
    assert done.stdout.count("centroid:") == 4


def test_a_taken_name_and_an_option_without_default_are_refused(centroid: HeadKind) -> None:
    @dataclass(frozen=True)
    class Bare:
        width: int

    with pytest.raises(ConfigError) as caught:
        register_head(HeadKind("logistic", "another", fit_centroids, options=Bare))
    assert caught.value.faults == (
        "the head name 'logistic' is taken by 'linear'",
        "the option 'width' of head 'logistic' needs a default",
    )


# A kind of inputs: sequences of bases, padded to the longest of their batch


@dataclass(frozen=True)
class Bases(Inputs):
    """DNA: a text of A, C, G and T becomes token numbers 1 to 4; 0 pads."""

    kind: ClassVar[str] = "bases"
    unit: ClassVar[str] = "sequences"

    longest: int = 40

    def sample(self, content: Content, view: NumberedView | None = None, key: str = "") -> Tensor:
        assert isinstance(content, str)
        if unknown := set(content) - set("ACGT"):
            raise UndecodableError(f"'{min(unknown)}' is no base")
        return torch.tensor(["ACGT".index(base) + 1 for base in content[: self.longest]])

    def collate(self, samples: Sequence[Tensor]) -> Arguments:
        tokens = nn.utils.rnn.pad_sequence(list(samples), batch_first=True)
        return Arguments((tokens,), {"attend": tokens > 0}, mask=tokens > 0)

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "longest": self.longest}

    def example(self, count: int) -> Arguments:
        return self.collate([torch.arange(5 + i % 2) % 4 + 1 for i in range(count)])


class Composition(nn.Module):
    """Counts bases and pairs of them; a network whose rows padding would change."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        with torch.no_grad():
            self.embed.weight.copy_(torch.cat([torch.full((1, 4), 9.0), torch.eye(4)]))
        self.mix = nn.Linear(4, 6)

    def forward(self, tokens: Tensor, attend: Tensor) -> Tensor:
        real = attend[:, :, None].float()
        mean = (self.embed(tokens) * real).sum(1) / real.sum(1)
        return self.mix(mean)


class Texts(Items):
    """Items whose content is a text."""

    def __init__(self, texts: Sequence[str]) -> None:
        super().__init__(len(texts))
        self.texts = tuple(texts)

    def content(self, i: int) -> str:
        return self.texts[i]

    def origin(self, i: int) -> str:
        return f"sequence {i}"


def sequences(count: int, seed: int = 0) -> Split:
    """Random sequences of 3 to 40 bases; those of the second class are rich in G and C."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    weights = ([0.4, 0.1, 0.1, 0.4], [0.15, 0.35, 0.35, 0.15])
    texts = ["".join(rng.choice(list("ACGT"), rng.integers(3, 41), p=weights[y])) for y in labels]
    return Split(Texts(texts), np.arange(count), labels, ("poor", "rich"))


@pytest.fixture
def bases() -> Iterator[Backbone]:
    register_inputs(Bases)
    torch.manual_seed(0)
    backbone = load_backbone(Composition(), inputs=Bases())
    yield backbone
    del INPUT_KINDS["bases"]


def test_rows_of_a_new_kind_do_not_depend_on_padding(bases: Backbone) -> None:
    split = sequences(30)
    whole = extract(bases, split, settings=Extraction(batch_size=7)).features[0]
    order = np.random.default_rng(1).permutation(30)
    shuffled = extract(bases, split.take(order), settings=Extraction(batch_size=11)).features[0]
    np.testing.assert_allclose(shuffled, whole[order], atol=1e-6)
    shares = np.array([[text.count(b) / len(text) for b in "ACGT"] for text in split.items.texts])
    for pooling, expected in (("avg", shares), ("gem", np.cbrt(shares))):
        pooled = extract(bases.at("embed", pooling), split).features[0]
        np.testing.assert_allclose(pooled, expected, atol=2e-2 if pooling == "gem" else 1e-6)


@pytest.mark.slow  # compiling takes 15 s
def test_a_new_kind_is_compiled(bases: Backbone) -> None:
    split = sequences(12)
    cuts = (bases, bases.at("embed", "avg"))
    eager = extract(cuts, split)
    compiled = extract(cuts, split, settings=Extraction(engine="compile"))
    for one, other in zip(eager.features, compiled.features, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_new_kind_is_at_once_in_the_cache_and_in_fit(bases: Backbone, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "cache")
    data = Dataset("dna", ("poor", "rich"), {"train": sequences(160), "test": sequences(80, 1)})
    run = fit(data, bases, cache=cache, out=tmp_path / "run", reporter=QUIET)
    assert run.evaluation.accuracy.value > 0.8
    assert cache.features(bases, data.train).use.misses == 0
    assert fit(data, bases, cache=cache, write=False, reporter=QUIET).cache.misses == 0
    shorter = load_backbone(bases.module, inputs=Bases(longest=5))
    assert cache.features(shorter, data.train).use.hits == 0
    page = (tmp_path / "run" / "report.html").read_text()
    wrong = next(m for m in np.flatnonzero(_predicted(run, bases, data.test) != data.test.labels))
    assert data.test.content(int(wrong)) in page
    said = predict(data.test, tmp_path / "run", backbone=bases, cache=cache, reporter=QUIET)
    assert [said.classes[i] for i in said.probabilities.argmax(1)] == [
        data.classes[i] for i in _predicted(run, bases, data.test)
    ]


def _predicted(run: Any, backbone: Backbone, split: Split) -> np.ndarray:
    return run.head.predict(extract(backbone, split).features[0])


def test_a_new_kind_is_fine_tuned(bases: Backbone, tmp_path: Path) -> None:
    data = Dataset("dna", ("poor", "rich"), {"train": sequences(160), "test": sequences(80, 1)})
    recipe = Recipe("short", (Stage("all", ("all",), epochs=2, lr=1e-3),), "probe")
    plans: list[Any] = []
    run = finetune(
        data, bases, recipe, cache=tmp_path / "cache", write=False, reporter=QUIET,
        show_plan=plans.append,
    )  # fmt: skip
    assert run.evaluation.accuracy.value > 0.8
    assert "sequences differ in length" in plans[0].stages[0].no_cut


def test_a_new_kind_is_compared(bases: Backbone, tmp_path: Path) -> None:
    data = Dataset("dna", ("poor", "rich"), {"train": sequences(160), "test": sequences(80, 1)})
    found = compare(
        data, bases, configs="no_grad,longest=5,layer=embed", repeats=2, batch_size=16,
        cache=tmp_path / "cache", out=tmp_path / "run", reporter=QUIET,
    ).comparison  # fmt: skip
    accuracy = {outcome.name: outcome.accuracy.value for outcome in found.outcomes}
    assert accuracy["longest=5"] < accuracy["no_grad"] == accuracy["eval+inference_mode"]
    text = (tmp_path / "run" / "report.html").read_text()
    assert "160 training and 80 test sequences" in text
    assert "image" not in "".join(finding.text for finding in found.findings)
    with pytest.raises(ConfigError, match="'unscaled': inputs='unscaled' does not apply to seq"):
        compare(data, bases, configs="unscaled", cache=tmp_path / "cache", write=False)


def test_a_new_kind_reports_bad_items_and_names_its_fields(bases: Backbone) -> None:
    split = Split(Texts(["ACGT", "ACXT"]), np.arange(2), np.array([0, 1]), ("a", "b"))
    with pytest.raises(BadFilesError, match=r"sequence 1 \('X' is no base\)"):
        extract(bases, split)
    with pytest.raises(ConfigError, match=r"no longst.*did you mean 'longest'"):
        load_backbone(bases.module, inputs=Bases(), longst=3)
    with pytest.raises(ConfigError, match="numbered views of sequences are not supported"):
        bases.inputs.numbered_views(3)


def test_a_run_folder_rebuilds_inputs_of_a_new_kind(bases: Backbone, tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(
        "from tests.test_extending import Bases, Composition\n"
        "def make():\n    return Composition(), Bases(longest=17)\n"
    )
    backbone = load_backbone(f"{path}:make")
    assert backbone.inputs == Bases(longest=17)
    spec = BackboneSpec.of(backbone)
    assert spec.load().inputs == backbone.inputs


# An engine


@contextmanager
def run_by_halves(cuts: Sequence[Backbone], precision: str, device: torch.device) -> Iterator[Any]:
    """A toy engine: runs a batch in two halves."""

    def run(inputs: Arguments) -> list[Tensor]:
        BATCHES.append(len(inputs))
        parts = [features_of(cuts, half) for half in inputs.split(-(-len(inputs) // 2))]
        return [torch.cat(rows) for rows in zip(*parts, strict=True)]

    yield run


BATCHES: list[int] = []


@pytest.fixture
def halves(monkeypatch: pytest.MonkeyPatch) -> None:
    built_in = {name: engine_table._ENGINES[name] for name in ("eager", "compile")}
    monkeypatch.setattr(engine_table, "_ENGINES", built_in)
    register_engine(Engine("halves", "two halves of every batch", run_by_halves))
    BATCHES.clear()


def test_an_engine_is_at_once_in_extraction_and_in_the_commands(
    halves: None, tmp_path: Path
) -> None:
    data = {"train": squares(30), "test": squares(10, 9)}
    fit(data, engine="halves", cache=tmp_path / "cache", write=False, reporter=QUIET)
    assert set(BATCHES) == {64}
    backbone, split = load_backbone("headstart/glyphs"), load_items(data["train"][0])
    cache = FeatureCache(tmp_path / "cache")
    found = cache.features(backbone, split)  # the engine is no part of the key
    assert found.use.misses == 0
    np.testing.assert_allclose(found.rows, extract(backbone, split).features[0], atol=1e-5)
    field = next(each for each in options_of(Extraction) if each.name == "engine")
    assert field.choices == ("auto", "eager", "compile", "halves")
    assert "two halves of every batch" in field.help
    with pytest.raises(ConfigError, match="engine must be one of auto, eager, compile, halves"):
        Extraction(engine="half")


def test_an_engine_with_other_rows_is_refused(halves: None) -> None:
    @contextmanager
    def wrong(cuts: Sequence[Backbone], precision: str, device: torch.device) -> Iterator[Any]:
        yield lambda inputs: [rows + 1 for rows in features_of(cuts, inputs)]

    register_engine(Engine("wrong", "adds one", wrong))
    split = load_items(squares(9)[0])
    backbone = load_backbone("headstart/glyphs")
    with pytest.raises(
        BackboneError, match="engine 'wrong' and the network itself return different features"
    ):
        extract(backbone, split, settings=Extraction(engine="wrong"))


# A runner


def test_a_runner_is_at_once_in_the_commands_and_computes_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(runner_table, "_RUNNERS", dict(runner_table._RUNNERS))
    given = []

    def in_turn(job: Job, crew: Crew, reporter: Reporter) -> list[Ran]:
        """Two members of an array, one after the other."""
        given.append((len(job.splits), crew.runner))
        return [work(job, index, 2) for index in range(2)]

    register_runner(Runner("in-turn", "two members, one after the other", lambda: in_turn))
    data = {"train": squares(30), "test": squares(10, 9)}
    # A batch of rows is not worth a second worker.
    place = {"write": False, "reporter": QUIET, "backbone": "headstart/glyphs", "batch_size": 8}
    run = fit(data, runner="in-turn", cache=tmp_path / "cache", **place)
    assert given
    assert {name for _, name in given} == {"in-turn"}
    plain = fit(data, cache=tmp_path / "plain", **place)
    assert run.metrics()["evaluation"] == plain.metrics()["evaluation"]
    field = next(each for each in options_of(RunOptions) if each.name == "runner")
    assert "in-turn" in field.choices
    assert "two members, one after the other" in field.help
    with pytest.raises(ConfigError, match=r"runner must be one of .*in-turn, not 'in-tunr'"):
        runner_table.find_runner("in-tunr")


# A finding of a comparison


def test_a_finding_is_at_once_in_the_comparison(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(findings, "RULES", list(findings.RULES))

    @register_rule
    def few_items(evidence: Evidence) -> Iterator[Finding]:
        if evidence.n_train < 1_000:
            text = f"There are only {evidence.n_train} training {evidence.unit}."
            yield Finding("few items", "warning", text, evidence={"items": evidence.n_train})

    found = compare(
        {"train": squares(60), "test": squares(30, 9)}, configs="eval", repeats=1,
        cache=tmp_path / "cache", out=tmp_path / "run", reporter=QUIET,
    )  # fmt: skip
    (finding,) = [f for f in found.document()["findings"] if f["kind"] == "few items"]
    assert finding["evidence"] == {"items": found.comparison.evidence.n_train}
    assert finding["text"] in (tmp_path / "run" / "report.html").read_text()


# A recipe, with a schedule and an optimizer of its own


@pytest.fixture
def own_recipe() -> Iterator[Recipe]:
    register_schedule(
        Schedule("sawtooth", lambda _, progress: 1.0 - progress % 1.0, lambda _: "a saw")
    )
    register_optimizer(
        OptimizerKind(
            "signed",
            lambda groups, stage: torch.optim.SGD(groups, lr=stage.lr),
            lambda _: "plain SGD",
            lambda _: 0,
        )
    )
    stage = Stage("s", ("head",), epochs=2, optimizer="signed", schedule="sawtooth", lr=0.1)
    register_recipe(Recipe("half", (stage,)), "half a recipe")
    yield load_recipe("half")
    del SCHEDULES["sawtooth"], OPTIMIZERS["signed"], PRESETS["half"]


def test_a_recipe_is_at_once_in_fine_tuning(own_recipe: Recipe, tmp_path: Path) -> None:
    data = {"train": squares(40), "test": squares(20, 9)}
    run = finetune(
        data, recipe="half", out=tmp_path / "run", cache=tmp_path / "cache", baselines=False,
        reporter=QUIET,
    )  # fmt: skip
    epochs = run.training["epochs"]
    assert [epoch["epoch"] for epoch in epochs] == [0, 1, 2]
    # One step an epoch, in its middle, where the saw is at a half.
    assert [epoch["rate"] for epoch in epochs[1:]] == pytest.approx([0.05, 0.05])
    assert run.configuration["recipe"]["stage"][0]["schedule"] == "sawtooth"
    plan = (tmp_path / "run" / "plan.json").read_text()
    assert "plain SGD, a saw" in plan
    with pytest.raises(ConfigError, match="there is no recipe named 'hlaf'; recipes are 'half'"):
        finetune(data, recipe="hlaf", write=False, reporter=QUIET)
    with pytest.raises(ConfigError, match=r"schedule must be one of .*sawtooth"):
        Recipe("r", (Stage(schedule="sawtoth"),)).check()


def test_a_recipe_and_a_logger_are_at_once_in_the_help() -> None:
    code = textwrap.dedent(
        """
        import sys
        from headstart.commands.loggers import LoggerKind, register_logger
        from headstart.finetuning import Recipe, Stage, register_recipe
        register_recipe(Recipe("half", (Stage("s"),)), "half a recipe")
        register_logger(LoggerKind("papyrus", (), None))
        from headstart.commands.cli import main
        sys.argv = ["headstart", "finetune", "--help"]
        try:
            main()
        except SystemExit:
            pass
        assert "torch" not in sys.modules
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, timeout=60,
        env={**os.environ, "COLUMNS": "400"},
    )  # fmt: skip
    assert "half" in done.stdout
    assert "papyrus" in done.stdout


# A source of data


def read_fasta(path: Path, request: Request) -> Source:
    """A toy source: lines of ``class sequence``."""
    pairs = [line.split() for line in path.read_text().splitlines()]
    names = tuple(name for name, _ in pairs)
    return Source(path.stem, {"all": Part(Texts([text for _, text in pairs]), names, path.name)})


@pytest.fixture
def fasta(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(source, "_REGISTERED", [])
    register_source(
        SourceKind("a .fasta file", lambda p, _: p.suffix == ".fasta", read_fasta, path=True)
    )
    split, path = sequences(240), tmp_path / "genes.fasta"
    pairs = zip(split.labels, split.items.texts, strict=True)
    path.write_text("".join(f"{('poor', 'rich')[y]} {text}\n" for y, text in pairs))
    return path


def test_a_source_is_at_once_read_everywhere(fasta: Path, bases: Backbone, tmp_path: Path) -> None:
    run = fit(str(fasta), bases, cache=tmp_path / "cache", write=False, reporter=QUIET)
    assert run.classes == ("poor", "rich")
    assert run.n_train + run.n_test == 240
    assert run.evaluation.accuracy.value > 0.8
    assert len(load_test_data(fasta).test) == len(load_items(fasta)) == 240
    with pytest.raises(DataError, match=r"give a \.fasta file, a saved"):
        load_data(__file__)
    with pytest.raises(DataError, match=r"'genez\.fasta'.*did you mean 'genes\.fasta'"):
        load_data(fasta.with_name("genez.fasta"))


def test_a_source_need_not_be_a_file(fasta: Path) -> None:
    register_source(
        SourceKind(
            "an address fasta://NAME",
            lambda address, _: isinstance(address, str) and address.startswith("fasta://"),
            lambda address, request: read_fasta(
                fasta.with_name(address.removeprefix("fasta://") + ".fasta"), request
            ),
        )
    )
    assert load_data("fasta://genes").name == "genes"


# An option


@dataclass(frozen=True)
class PatientOptions(RunOptions):
    """An option added to a dataclass; a command has only to read it."""

    patience: int = option(3, "Passes without gain.", at_least=1, panel="Running")


def test_an_option_is_at_once_a_parameter_a_flag_and_in_the_record() -> None:
    signature = Signature("wait", FitConfig(), run=PatientOptions())
    app = typer.Typer()

    @app.command()
    @generated(signature)
    def wait(config: FitConfig, run: PatientOptions) -> None:
        """Print what the record of a run would hold."""
        print(recorded(run)["patience"], as_flags("use patience=5", {o.name: o for o in OPTIONS}))

    def shell(*words: str) -> Any:
        return CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})

    assert shell().output == "3 use --patience 5\n"
    assert shell("--patience", "7").output.startswith("7 ")
    assert str(shell("--patience", "0").exception) == "--patience must be at least 1, not 0"
    assert "Passes without gain. [default: 3]" in shell("--help").output
    settled = signature.settle({"patience": 9, "folds": 2}, None, None, None)
    assert (settled.run.patience, settled.config.folds) == (9, 2)
    with pytest.raises(ConfigError, match=r"no setting 'patienc' \(did you mean 'patience"):
        signature.settle({"patienc": 9}, None, None, None)
    assert command_line(PatientOptions(patience=4)) == ["--patience", "4"]


OPTIONS = options_of(PatientOptions)


def test_sources_families_poolings_and_engines_are_at_once_in_the_help() -> None:
    code = textwrap.dedent(
        """
        import sys
        from headstart.backbones.families import register_family
        from headstart.backbones.family import Family
        from headstart.data.source import SourceKind, register_source
        from headstart.extraction.engines import Engine, register_engine
        from headstart.modules.pooling import PoolingKind, register_pooling
        register_source(SourceKind("a .fasta file", None, None, path=True))
        register_family(Family("toys", "own/NAME", "toys", None))
        register_engine(Engine("halves", "two halves of every batch", None))
        register_pooling(PoolingKind("median", "the median", None))
        from headstart.commands.cli import main
        sys.argv = ["headstart", "fit", "--help"]
        try:
            main()
        except SystemExit:
            pass
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, timeout=120,
        env={**os.environ, "COLUMNS": "400"},
    )  # fmt: skip
    assert "a .fasta file or the word digits or photographs." in done.stdout
    assert "or own/NAME." in done.stdout
    assert "halves: two halves of every batch." in done.stdout
    assert "avg, cls, last, gem, none or median." in done.stdout
