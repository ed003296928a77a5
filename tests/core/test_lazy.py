"""A package as a table of contents."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import headstart.extraction


def test_every_name_of_the_contents_exists():
    for name in headstart.extraction.__all__:
        assert getattr(headstart.extraction, name) is not None
        assert name in dir(headstart.extraction)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"'headstart.extraction' has no attribute 'extrct'"):
        headstart.extraction.extrct  # noqa: B018
    with pytest.raises(ImportError):
        importlib.import_module("headstart.extraction.nothing")


def test_settings_load_without_torch_and_the_extractor_with_it():
    code = (
        "import sys\n"
        "from headstart.extraction import Extraction\n"
        "print(Extraction(), 'torch' in sys.modules)\n"
        "from headstart.extraction import extract\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.endswith("False")
    assert second == "True"
