"""The package as an index shows it: project links, and README links that lead somewhere there."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HOME = PROJECT["project"]["urls"]["Homepage"]
LINK = re.compile(r"\]\(([^)\s]+)\)|<(?:a|img)\b[^>]*\b(?:href|src)=[\"']([^\"']+)")


def as_shown(text: str) -> str:
    """Return a README as the build leaves it."""
    for each in PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(each["pattern"], each["replacement"], text)
    return text


def links(text: str) -> list[str]:
    return [first or second for first, second in LINK.findall(text)]


def check_links(text: str) -> None:
    found = links(text)
    assert len(found) > 10
    for link in found:
        assert re.match(r"https?://|#", link), f"relative: {link}"
        if link.startswith(HOME):
            path = re.fullmatch(rf"{re.escape(HOME)}/(?:blob|raw)/main/([^#]+)(?:#.*)?", link)
            assert path is not None, link
            assert (ROOT / path[1]).exists(), link


def test_the_links_of_the_readme_work_away_from_the_repository() -> None:
    check_links(as_shown((ROOT / "README.md").read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("[a](docs/a.md)", f"[a]({HOME}/blob/main/docs/a.md)"),
        ("[a](docs/a.md#part)", f"[a]({HOME}/blob/main/docs/a.md#part)"),
        ("![a](docs/images/a.png)", f"![a]({HOME}/raw/main/docs/images/a.png)"),
        ("[![a](a.svg)](docs/a.md)", f"[![a]({HOME}/raw/main/a.svg)]({HOME}/blob/main/docs/a.md)"),
        ("[a](https://x.example/a)", "[a](https://x.example/a)"),
        ("[a](mailto:a@x.example)", "[a](mailto:a@x.example)"),
        ("[a](#part)", "[a](#part)"),
        ("`x[i](j)`", f"`x[i]({HOME}/blob/main/j)`"),  # code looks the same: the README has none
    ],
)
def test_how_links_are_written(given: str, shown: str) -> None:
    assert as_shown(given) == shown


def test_the_address_is_one() -> None:
    urls = PROJECT["project"]["urls"]
    assert {"Homepage", "Documentation", "Source", "Changelog", "Issues"} <= set(urls)
    assert all(url.startswith(HOME) for url in urls.values())
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert {url.split("/")[2] for url in re.findall(r"https://[^\"')\s]+", text)} == {
        HOME.split("/")[2]
    }
    for url in urls.values():
        path = url.partition("/blob/main/")[2]
        assert not path or (ROOT / path).is_file()


def test_heavy_libraries_that_few_need_are_extras() -> None:
    needed = " ".join(PROJECT["project"]["dependencies"])
    for name in (
        "lightning",
        "mlflow",
        "tensorboard",
        "transformers",
        "datasets",
        "pandas",
        "keras",
    ):
        assert name not in needed


@pytest.mark.slow  # builds a wheel
def test_the_wheel_has_links_and_passes_the_check_of_an_index(tmp_path: Path) -> None:
    for name in ("hatchling", "hatch_fancy_pypi_readme", "twine"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}, which the extra dev installs")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--no-index", "--wheel-dir", tmp_path, ROOT],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("headstart-*.whl")
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", wheel], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        metadata = message_from_string(archive.read(name).decode("utf-8"))
        files = set(archive.namelist())
    said = dict(link.split(", ", 1) for link in metadata.get_all("Project-URL"))
    assert said == PROJECT["project"]["urls"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    check_links(str(metadata.get_payload()))
    assert {
        "headstart/py.typed",
        "headstart/report/page.css",
        "headstart/report/page.html.jinja",
    } <= (files)
    assert not [f for f in files if f.startswith(("tests/", "docs/", "benchmarks/"))]
