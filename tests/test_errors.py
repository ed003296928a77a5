"""Errors say what to do, and survive the way from a worker process."""

from __future__ import annotations

import pickle

import pytest

from headstart.core import errors


@pytest.mark.parametrize(
    "error",
    [
        errors.HeadstartError("this happened", hint="do that"),
        errors.DataError("no hint"),
        errors.BadFilesError((("a.png", "truncated"), ("b.png", "empty")), hint="skip them"),
        errors.ConfigError(("one fault", "another"), hint="mend both"),
        errors.MissingExtraError("keras", "keras", "a Keras backbone"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickling(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.__dict__ == error.__dict__


def test_the_text_has_message_and_hint():
    assert str(errors.HeadstartError("this happened", hint="do that")) == "this happened; do that"
    assert str(errors.HeadstartError("this happened")) == "this happened"


def test_many_bad_files_are_counted():
    error = errors.BadFilesError(tuple((f"{i}.png", "empty") for i in range(25)))
    assert str(error).startswith("25 items cannot be read: 0.png (empty)")
    assert str(error).endswith("and 5 more")
