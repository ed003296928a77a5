"""Every command that is printed runs as it stands, on the same data and the same network."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import timm
import typer
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits

import headstart
from headstart.commands.cli import app
from headstart.commands.fit.options import FIT, FitConfig
from headstart.commands.invocation import Call
from headstart.commands.settings import BackboneSpec, ReadOptions, RunOptions
from headstart.core.wording import shell
from headstart.data import load_data

from .test_cli import Command, command  # noqa: F401  a fixture

PLACEHOLDERS = ("NEW_IMAGES", "OTHER_DATA")


def words_of(line: str) -> list[str]:
    """Take a command apart as a shell does."""
    printed = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True
    ).stdout
    return printed.decode("utf-8", "surrogateescape").split("\0")[:-1]


def params(words: list[str]) -> dict[str, object]:
    """Return what the command line makes of a command, by parameter."""
    assert words[0] == "headstart"
    group = typer.main.get_command(app)
    return group.commands[words[1]].make_context(words[1], words[2:]).params


def printed(out: str) -> list[str]:
    """Return the commands that a command has printed, placeholders included."""
    found = [line.partition(": ")[2].strip() for line in out.splitlines() if ": " in line]
    return [line for line in found if line.startswith("headstart ")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name a shell would take apart, with digits as images, a table and weights."""
    place = tmp_path_factory.mktemp("work") / 'it\'s "my" $HOME; data & more'
    images, labels = load_digits(return_X_y=True)
    rows = ["nothing,picture,left or right,kind"]
    for i in np.flatnonzero(labels < 3)[:90]:
        name = f"{labels[i]} of 3's"
        (place / "pictures" / name).mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray((images[i].reshape(8, 8) * 15).astype(np.uint8))
        picture.resize((32, 32)).save(place / "pictures" / name / f"{i}.png")
        rows.append(f"x,pictures/{name}/{i}.png,{'lr'[i % 2]},{labels[i]}")
    (place / "my table.csv").write_text("\n".join(rows))
    model = timm.create_model("test_resnet", pretrained=False)
    save_file(model.state_dict(), place / "the weights.safetensors")
    return place


@pytest.fixture
def options(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    return {
        "backbone": "timm/test_resnet",
        "weights": str(place / "the weights.safetensors"),
        "mean": "0.4,0.5,0.6",
        "std": "0.25",
        "size": "48",
        "interpolation": "bilinear",
        "crop": "1.0",
        "cache": str(tmp_path / "a cache; here"),
        "batch-size": "16",
        "workers": "1",
        "device": "cpu",
        "test-fraction": "0.4",
        "image-column": "picture",
        "label-column": "kind",
    }


OWN = {
    "fit": {
        "seed": "3",
        "head": "linear",
        "head-options": '{"standardise": false, "C": 0.5}',
        "layer": "layer4",
        "pooling": "gem",
        "precision": "bfloat16",
        "out": "it's out",
    },
    "finetune": {
        "seed": "3",
        "recipe": "last-block",
        "epochs": "1",
        "layer": "layer4",
        "pooling": "gem",
        "out": "out put",
    },
    "sweep": {"layers": "layer3,layer4", "poolings": "avg,gem", "heads": "lda,ridge", "seeds": "3"},
    "compare": {
        "seed": "3",
        "configs": "no_grad,finetune:last-block",
        "repeats": "1",
        "epochs": "1",
        "head": "ridge",
        "layer": "layer4",
        "pooling": "gem",
        "out": "$(echo no)",
    },
    "advise": {"seed": "3", "epochs": "1", "repetitions": "2", "layer": "layer4"},
    "examine": {"seed": "3", "repetitions": "1", "layer": "layer4", "out": "examined `here`"},
}  # fmt: skip
SKIPPING = {"fit": "skip", "sweep": "skip", "compare": "skip", "examine": "skip"}


def flags(given: dict[str, str]) -> list[str]:
    return [word for name, value in given.items() for word in (f"--{name}", value)]


def carried(given: dict[str, str], said: dict[str, object]) -> dict[str, tuple[object, object]]:
    """Return the options that a command which has them does not repeat."""
    names = {name: name.replace("-", "_") for name in given}
    names |= {"backbone": "source", "crop": "crop_fraction", "bad-files": "on_bad"}
    return {
        name: (value, said[names[name]])
        for name, value in given.items()
        if names[name] in said and written(said[names[name]]) != value
    }


def written(value: object) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


@pytest.mark.parametrize("name", OWN)
def test_every_printed_command_runs(command, place, options, name):  # noqa: F811
    table = place / "my table.csv"
    bad = {"bad-files": SKIPPING[name]} if name in SKIPPING else {}
    given = {**options, **bad, **OWN[name]}
    status, out, err = command(name, table, *flags(given))
    assert status == 0, err
    following = printed(out)
    assert following, out
    shared = {**options, **bad, **{key: OWN[name][key] for key in OWN[name] if key in ("seed",)}}
    for line in following:
        words = words_of(line)
        words = [str(table) if word in PLACEHOLDERS else word for word in words]
        said = params(words)
        if "source" in said:
            assert not carried(shared, said), line
        status, _, err = command(*words[1:])
        assert status == 0, f"{line}\n{err}"


@pytest.mark.parametrize("name", sorted(set(OWN) - {"advise"}))  # which writes no report
def test_the_command_that_made_a_report_ends_it_and_makes_it_again(
    command, place, options, name, tmp_path  # noqa: F811
):  # fmt: skip
    given = {**options, **OWN[name], "out": str(tmp_path / "it's out")}
    status, _, err = command(name, place / "my table.csv", *flags(given))
    assert status == 0, err
    record = "examination.json" if name == "examine" else "run.json"
    folder = tmp_path / "it's out"
    first = json.loads((folder / record).read_text())
    words = words_of(first["command"])
    assert words[:3] == ["headstart", name, str(place / "my table.csv")]
    assert not carried(given, params(words))
    status, _, err = command(*words[1:])
    assert status == 0, err
    again = json.loads((folder / record).read_text())
    assert again["command"] == first["command"]
    assert again.get("fingerprints") == first.get("fingerprints")
    text = (folder / "report.html").read_text()
    last = text[text.rindex("<pre>") : text.rindex("</pre>")]
    assert last.startswith(f"<pre><code>headstart {name} ")


def test_defaults_make_short_commands(command, place, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    status, out, err = command("fit", place / "pictures", "--out", "run")
    assert status == 0, err
    assert printed(out) == [
        shell(["headstart", "compare", str(place / "pictures"), "--backbone", "headstart/glyphs"]),
        "headstart predict run NEW_IMAGES --out predictions.csv",
        "headstart evaluate run OTHER_DATA",
    ]


def test_names_that_look_like_options(command, place, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-pictures").symlink_to(place / "pictures")
    status, out, err = command("fit", "./-pictures", "--out", "./-run")
    assert status == 0, err
    for line in printed(out):
        words = [str(place / "pictures") if w in PLACEHOLDERS else w for w in words_of(line)]
        status, _, err = command(*words[1:])
        assert status == 0, f"{line}\n{err}"


ODD = ["a b", "it's", '"', "$HOME", "`ls`", "a;b", "a\nb", "tab\there", "back\\slash", "*", "~",
       "", "#x", "ünïcode", "日本", "\x1b[31mred", "\u202eright", "caf\udce9", "a'\n'b", "!x",
       "{a,b}"]  # fmt: skip


@pytest.mark.parametrize("word", ODD)
def test_a_shell_reads_back_any_word_from_one_line(word):
    line = shell(["headstart", word])
    assert "\n" not in line
    assert line.isprintable()
    assert words_of(line) == ["headstart", word]


def test_what_only_python_can_say_is_said_in_python(place, tmp_path):
    data = load_data(place / "pictures")
    backbone = headstart.load_backbone(timm.create_model("test_resnet"), mean=0.5, std=0.5, size=32)
    run = headstart.fit(
        data, backbone, head="ridge", cache=tmp_path / "cache", out=tmp_path / "run"
    )
    assert run.commands.made.startswith("headstart.fit(data, backbone, head='ridge', cache=")
    assert run.commands.next[0].startswith("headstart.compare(data, backbone, ")
    (_, predicting), (_, evaluating) = run.commands.later
    scope = {"headstart": headstart, "data": data, "backbone": backbone}
    scope |= {"new_images": place / "pictures", "other_data": data.test}
    for line in (run.commands.made, predicting.replace("predictions.csv", str(tmp_path / "p.csv")),
                 evaluating):  # fmt: skip
        exec(line, scope)


@pytest.mark.parametrize("value", [np.array([0.4, 0.5, 0.6]), np.float32(0.5)])
def test_arrays_among_the_settings(value):
    spec = BackboneSpec("timm/test_resnet", mean=value)
    call = Call(FIT, "digits", FitConfig(), RunOptions(), ReadOptions(), spec)
    assert "mean" in call.again()


def test_the_command_that_mends_a_cache_names_the_cache(command, place, tmp_path):  # noqa: F811
    cache = tmp_path / "my cache"
    assert command("fit", place / "pictures", "--cache", cache, "--out", tmp_path / "run")[0] == 0
    shard = next(path for path in cache.rglob("shards/*") if path.is_file())
    shard.write_bytes(shard.read_bytes()[:-40] + bytes(40))
    status, out, _ = command("cache", "verify", "--cache", cache)
    assert status == 1
    (line,) = printed(out)
    assert command(*words_of(line)[1:])[0] == 0
    assert command("cache", "verify", "--cache", cache)[0] == 0
