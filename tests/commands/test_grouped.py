"""Groups of options: what typer sees, and what the command gets."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from headstart.commands.grouped import grouped


@dataclass(frozen=True)
class Paint:
    colour: Annotated[str, typer.Option("--colour", "-c")] = "red"
    coats: Annotated[int, typer.Option()] = 1


@pytest.fixture
def app():
    app = typer.Typer()

    @app.command()
    @grouped
    def paint(
        wall: Annotated[str, typer.Argument()],
        *,
        first: Annotated[bool, typer.Option("--first")] = False,
        paint: Paint,
    ) -> None:
        """Paint a wall."""
        print(wall, first, paint)

    return app


def test_fields_become_options(app):
    done = CliRunner().invoke(app, ["north", "-c", "blue", "--coats", "2", "--first"])
    assert done.output.strip() == "north True Paint(colour='blue', coats=2)"
    done = CliRunner().invoke(app, ["north"])
    assert done.output.strip() == "north False Paint(colour='red', coats=1)"


def test_types_are_checked(app):
    done = CliRunner().invoke(app, ["north", "--coats", "many"])
    assert done.exit_code == 2
    assert not done.stdout
    assert "coats" in str(done.stderr_bytes or done.output)


def test_the_signature_keeps_the_order_of_the_command(app):
    names = list(inspect.signature(app.registered_commands[0].callback).parameters)
    assert names == ["wall", "first", "colour", "coats"]
