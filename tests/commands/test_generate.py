"""The command line out of dataclasses: flags, values, faults, help, and hints in terms of flags."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from headstart.commands.console import Printing
from headstart.commands.generate import as_flags, generated, in_flags
from headstart.commands.settings import BackboneSpec, ReadOptions, RunOptions, Signature
from headstart.core.errors import ConfigError, HeadstartError
from headstart.core.kinds import PER_CHANNEL
from headstart.core.settings import check, command_line, option, options_of


@dataclass(frozen=True)
class Paint:
    colour: str = option("red", "Of the wall.", flags=("-c",), choices=("red", "blue"))
    coats: int = option(1, "How many.", at_least=1, panel="Work")
    mix: Any = option(None, "Parts.", kind=PER_CHANNEL)
    tins: tuple[int, ...] = option((), "Sizes of the tins.")
    primer: bool = option(True, "The primer.")
    where: Path | None = option(None, "Address.", shown="at home")
    tool: Any = option(None, "A brush.", cli=False)
    hue: float | None = option(None, "Left out on the command line.")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Rehearsal:
    dry: bool = option(False, "Whether to paint without paint.")


PAINT = Signature("paint", Paint(coats=2), hidden=("hue",))


@pytest.fixture
def app():
    app = typer.Typer()

    @app.command()
    @generated(PAINT)
    def paint(wall: Annotated[str, typer.Argument()], paint: Paint, printing: Printing) -> None:
        """Paint a wall."""
        print(wall, paint, printing)

    return app


def run(app, *words: str) -> Any:
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "100", "TERM": "dumb"})


def test_fields_become_options_and_defaults_are_those_of_the_command(app):
    done = run(app, "north", "-c", "blue", "--mix", "1,2,3", "--tins", "5,2", "--no-primer", "-q")
    expected = Paint(colour="blue", coats=2, mix=(1.0, 2.0, 3.0), tins=(5, 2), primer=False)
    assert done.output.strip() == f"north {expected} {Printing(quiet=True)}"
    assert run(app, "north").output.strip() == f"north {Paint(coats=2)} {Printing()}"


def test_a_list_can_be_given_in_several_parts(app):
    assert "tins=(5, 2, 9)" in run(app, "north", "--tins", "5,2", "--tins", "9").output


def test_numbers_are_checked_by_the_command_line(app):
    done = run(app, "north", "--coats", "many")
    assert done.exit_code == 2
    assert "coats" in done.stderr


def test_all_faults_are_reported_together_and_name_flags(app):
    error = run(app, "north", "--colour", "grey", "--coats", "0").exception
    assert (
        str(error) == "--colour must be red or blue, not 'grey'; --coats must be at least 1, not 0"
    )
    error = run(app, "north", "--mix", "a,b", "--tins", "x").exception
    assert str(error) == (
        "--mix takes one number, or one for each channel, with commas, not 'a,b'"
        " (could not convert string to float: 'a');"
        " --tins takes whole numbers with commas, not 'x'"
        " (invalid literal for int() with base 10: 'x')"
    )


def test_the_help_text_is_generated(app):
    text = run(app, "--help").output
    lines = [re.sub(r"[^\w\-|,\[\]:. ]", "", line).strip() for line in text.splitlines()]
    joined = re.sub(r"\s+", " ", " ".join(lines))
    assert "--colour -c red|blue Of the wall. [default: red]" in joined
    assert "--mix M|R,G,B Parts." in joined
    assert "--no-primer bool Leave out the primer." in joined
    assert "--where path Address. Default: at home." in joined
    assert "Work --coats int How many. [default: 2]" in joined
    assert "--tool" not in joined
    assert "--hue" not in joined


def test_options_come_panel_by_panel(app):
    names = list(inspect.signature(app.registered_commands[0].callback).parameters)
    assert names == ["wall", "colour", "mix", "tins", "primer", "where", "coats", "json", "quiet"]


SHOWN = {each.name: each for group in (BackboneSpec, RunOptions, ReadOptions, Paint, Rehearsal)
         for each in options_of(group)}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("use pooling='avg'", "use --pooling avg"),
        ("skip them with on_bad='skip'", "skip them with --bad-files skip"),
        ("give mean=… and std=…, or not", "give --mean … and --std …, or not"),
        ("mean=(0.485, 0.456, 0.406), std=0.5", "--mean 0.485,0.456,0.406, --std 0.5"),
        ("model_args={'pad_type': 'same'}", '--model-args \'{"pad_type": "same"}\''),
        ("dry=True (crop_fraction=0.9)", "--dry (--crop 0.9)"),
        ("try dry=False", "try no --dry"),
        ("primer=False", "--no-primer"),
        ("choose another folder with out=DIR", "choose another folder with --out DIR"),
        ("write track_running_stats=False", "write track_running_stats=False"),
        (
            "the term 'layer=stage2' of a configuration",
            "the term 'layer=stage2' of a configuration",
        ),
        ("in no_grad+mean=0.5", "in no_grad+mean=0.5"),
        ("pass f(x, device='cpu'), or device='cpu'", "pass f(x, device='cpu'), or --device cpu"),
        ("https://x.org/?size=3", "https://x.org/?size=3"),
        ("try size=3.", "try --size 3."),
        ("try size=3: it is", "try --size 3: it is"),
        ("is it crop_fraction=0.5?", "is it --crop 0.5?"),
        ("use crop_fraction=0.9. Then size=3!", "use --crop 0.9. Then --size 3!"),
        ("choose out=..", "choose --out .."),
        ("out=./a.b.c.", "--out ./a.b.c."),
        ("fit again with abstain='always'", "fit again with --abstain always"),  # of fit alone
    ],
)
def test_parameters_in_a_message_become_flags(text, expected):
    assert as_flags(text, SHOWN) == expected


@given(st.text())
def test_a_message_without_parameters_is_left_alone(text):
    if "=" not in text:
        assert as_flags(text, SHOWN) == text


def test_an_error_keeps_its_hint_and_its_faults():
    error = ConfigError(("device 'x' cannot be used", "y"), hint="use device='cpu'")
    assert str(in_flags(error, SHOWN)) == "device 'x' cannot be used; y; use --device cpu"
    assert str(in_flags(HeadstartError("plain", hint=None), SHOWN)) == "plain"


def test_notes_name_flags_too(capsys):
    app = typer.Typer()

    @app.command()
    @generated(Signature("noting", Paint()))
    def noting(run: RunOptions) -> None:
        """Note something."""
        run.open_reporter().note("tested as batch_size=64")

    assert run(app).exit_code == 0
    assert "tested as --batch-size 64" in run(app).stderr


def test_what_a_command_line_says_is_read_as_the_same_settings(app):
    paint = Paint(
        colour="blue", coats=3, mix=(1.0, 0.5, 0.5), tins=(4,), primer=False, where=Path("x")
    )
    words = command_line(paint)
    assert run(app, "north", *words).output.strip() == f"north {paint} {Printing()}"


def test_settings_of_the_study_alone_are_taken_and_those_of_another_command_refused() -> None:
    from headstart.commands.compare.options import COMPARE
    from headstart.commands.fit.options import FitConfig
    from headstart.study import CompareConfig

    own = COMPARE.settle({}, CompareConfig(repeats=7), None, None)[0]
    assert (own.repeats, own.loggers) == (7, ())
    with pytest.raises(ConfigError, match="must be a CompareConfig, not a FitConfig"):
        COMPARE.settle({}, FitConfig(), None, None)  # type: ignore[arg-type]
