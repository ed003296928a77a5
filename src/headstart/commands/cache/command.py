"""``headstart cache``: what is stored, what differs, what is damaged, what may go."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.commands.cache.listing import data_names, summaries, summary
from headstart.commands.console import (
    Printing,
    plain_table,
    print_json,
    print_lines,
    reporter,
    stdout,
)
from headstart.commands.generate import generated
from headstart.commands.settings import RunOptions
from headstart.core.errors import ConfigError
from headstart.core.kinds import Kind
from headstart.core.settings import command_line, like, option
from headstart.core.wording import count, format_bytes, shell
from headstart.core.wording import count as counted

if TYPE_CHECKING:
    from headstart.cache import FeatureCache
    from headstart.store import Fault, SpaceInfo, VerifyReport

app = typer.Typer(
    name="cache",
    help="Stored features: list, explain, verify, remove, export.",
    no_args_is_help=True,
)

Key = Annotated[
    str, typer.Argument(help="A key, or an unambiguous prefix of one.", show_default=False)
]


@dataclass(frozen=True)
class Place:
    """The cache that is meant."""

    cache: str | Path | None = like(RunOptions, "cache")

    def open(self) -> FeatureCache:
        """Open it."""
        from headstart.cache import FeatureCache

        return FeatureCache(self.cache)


@dataclass(frozen=True)
class Listed(Place):
    """A cache of which something is printed."""

    json: bool = like(Printing, "json")


@dataclass(frozen=True)
class Worked(Place):
    """A cache in which something is done, with progress."""

    quiet: bool = like(Printing, "quiet")


@app.command("ls")
@generated("cache ls")
def list_spaces(place: Listed) -> None:
    """List the feature spaces, the last used first."""
    cache = place.open()
    spaces = sorted(cache.store.spaces(), key=lambda info: -info.last_used)
    if place.json:
        print_json([_plain(info) for info in spaces])
        return
    console = stdout()
    if not spaces:
        console.print(f"no features in {cache.location}")
    else:
        texts, data = summaries(spaces), data_names(cache.store, spaces)
        rows = [
            (
                info.key[:12],
                texts[info.key],
                data[info.key],
                f"{info.rows:,}",
                format_bytes(info.nbytes),
                "in use" if info.in_use else _ago(info.last_used),
            )
            for info in spaces
        ]
        titles = ("key", "features", "data", "rows", "size", "last used")
        console.print(plain_table(titles, rows, right=["rows", "size"]))
    files = [file for file in cache.store.files() if file.kind != "foreign"]
    if files:
        size = format_bytes(sum(file.nbytes for file in files))
        kept = sum(file.kind == "result" for file in files)
        what = f"{count(kept, 'kept result')} (heads, baselines) and digests of files"
        console.print(f"{what}: {size}")
    total = sum(each.nbytes for each in spaces) + sum(file.nbytes for file in files)
    if total:
        console.print(f"{format_bytes(total)} in {cache.location}")


@app.command()
@generated("cache info")
def info(key: Key, place: Listed) -> None:
    """Show what one feature space was computed with."""
    store = place.open().store
    space = store.find(key)
    found = next(entry for entry in store.spaces() if entry.key == space.key)
    if place.json:
        print_json({**_plain(found), "description": space.description})
        return
    console = stdout()
    console.print(f"{found.key}: {counted(found.rows, 'row')} in {counted(found.shards, 'shard')}")
    console.print(f"{format_bytes(found.nbytes)} in {space.folder}")
    for column in found.columns:
        error = f", largest error {column.max_error:.2g}" if column.max_error else ""
        shape = "×".join(map(str, column.shape))
        console.print(f"column {column.name}: {shape} {column.encoding}{error}")
    console.print(json.dumps(space.description, indent=2, ensure_ascii=False))


@app.command()
@generated("cache explain")
def explain(one: Key, other: Key, place: Listed) -> None:
    """Say in what two feature spaces differ: why the rows of one do not serve the other."""
    found = place.open().store.explain(one, other)
    if place.json:
        print_json([{"path": d.path, "text": str(d)} for d in found])
        return
    stdout().print("\n".join(map(str, found)) if found else "they are the same space")


@dataclass(frozen=True)
class VerifyConfig:
    """What is done about damage."""

    repair: bool = option(False, "Repair what can be repaired; drop damaged rows.")


@app.command()
@generated("cache verify")
def verify(config: VerifyConfig, place: Place, printing: Printing) -> None:
    """Read every byte and compare it with its digest. Exit status 1 if something is wrong."""
    report = place.open().store.verify(config.repair, reporter=reporter(printing.quiet))
    rows = sum(fault.rows for fault in report.faults)
    if printing.json:
        faults = [
            {
                "key": f.key,
                "kind": f.kind,
                "path": str(f.path),
                "what": f.what,
                "repaired": f.repaired,
                "rows": f.rows,
            }
            for f in report.faults
        ]
        print_json({"ok": report.ok, "rows": report.rows, "faults": faults})
    else:
        console = stdout()
        for fault in report.faults:
            console.print(f"{fault.path}: {fault.what} ({_state(fault)})")
        console.print(
            f"{counted(report.rows, 'row')} in {counted(report.shards, 'shard')} of"
            f" {counted(report.spaces, 'space')}, "
            f"{format_bytes(report.nbytes)}, {counted(report.kept, 'kept result')} and digests of"
            f" files: " + _verdict(report)
        )
        if rows and config.repair:
            console.print(
                f"{counted(rows, 'row')} will be computed again when they are next needed"
            )
        elif report.damaged:
            words = ["headstart", "cache", "verify", *command_line(place), "--repair"]
            print_lines(console, (f"repair it with: {shell(words)}",))
    if not report.ok:
        raise typer.Exit(1)


def _state(fault: Fault) -> str:
    if fault.repaired:
        return "repaired"
    untouched = {"foreign": "ignored", "unreadable": "left alone", "newer": "left alone"}
    return untouched.get(fault.kind, "not repaired")


def _verdict(report: VerifyReport) -> str:
    if report.ok:
        return "sound"
    return "damaged" if report.damaged else "some could not be read; the rest is intact"


_UNITS = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
          "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}  # fmt: skip
_AGES = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_size(text: str) -> int:
    """Read "20GB" or "512 MiB" as bytes."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*", text)
    unit = _UNITS.get(match.group(2).lower()) if match else None
    if match is None or unit is None:
        raise ValueError(text)
    return int(float(match.group(1)) * unit)


def parse_age(text: str) -> float:
    """Read "30d" or "12h" as seconds."""
    match = re.fullmatch(r"\s*([0-9]+)\s*([smhdw])\s*", text.lower())
    if match is None:
        raise ValueError(text)
    return float(match.group(1)) * _AGES[match.group(2)]


@dataclass(frozen=True)
class GcConfig:
    """What may go, and whether it goes."""

    max_size: Any = option(
        None,
        "Keep at most this much, dropping the least recently used first: 20GB, 500MB.",
        kind=Kind("SIZE", "a size such as 20GB", parse_size),
    )
    older_than: Any = option(
        None,
        "Remove what has not been used for this long: 30d, 12h.",
        kind=Kind("AGE", "an age such as 30d or 12h", parse_age),
    )
    dry_run: bool = option(False, "Only print what would be removed.")


@app.command()
@generated("cache gc")
def gc(config: GcConfig, place: Listed) -> None:
    """Remove feature spaces, never one that a running process reads."""
    if config.max_size is None and config.older_than is None:
        raise ConfigError(("gc needs max_size=SIZE or older_than=AGE",))
    report = place.open().store.gc(config.max_size, config.older_than, dry_run=config.dry_run)
    if place.json:
        print_json(
            {
                "removed": [_plain(i) for i in report.removed],
                "freed": report.freed,
                "files": [str(file.path) for file in report.files],
                "in_use": [_plain(i) for i in report.in_use],
            }
        )
        return
    console = stdout()
    verb = "would remove" if config.dry_run else "removed"
    for entry in report.removed:
        console.print(f"{verb} {entry.key[:12]} ({summary(entry)}, {counted(entry.rows, 'row')})")
    for entry in report.in_use:
        console.print(f"kept {entry.key[:12]}, which is in use")
    if report.files:
        what = count(
            len(report.files), "kept result or file of digests", "kept results and the like"
        )
        console.print(f"and {what}")
    console.print(f"{format_bytes(report.freed)} {'would be ' if config.dry_run else ''}freed")


@dataclass(frozen=True)
class RmConfig:
    """Whether to ask first."""

    yes: bool = option(False, "Remove without asking for confirmation.", flags=("-y",))


@app.command("rm")
@generated("cache rm")
def remove(
    keys: Annotated[
        list[str], typer.Argument(help="Keys, or unambiguous prefixes.", metavar="KEY...")
    ],
    config: RmConfig,
    place: Place,
) -> None:
    """Remove feature spaces, never one that a running process uses, nor what a link leads to."""
    store = place.open().store
    infos = list({info.key: info for info in map(store.info, keys)}.values())
    console = stdout()
    lines = [
        f"{info.key[:12]} ({info.problem or summary(info)}, {info.rows:,} rows,"
        f" {format_bytes(info.nbytes)})"
        for info in infos
    ]
    if not config.yes:
        if not sys.stdin.isatty():
            raise ConfigError(
                ("rm asks for confirmation, which is not possible here; use yes=True",)
            )
        for line in lines:
            console.print(line)
        typer.confirm(f"remove {count(len(infos), 'feature space')}?", abort=True)
    freed = 0
    for info, line in zip(infos, lines, strict=True):
        store.remove(info.key)
        freed += info.nbytes
        console.print(f"removed {line}")
    console.print(f"{format_bytes(freed)} freed")


@app.command()
@generated("cache export")
def export(
    key: Key,
    target: Annotated[Path, typer.Argument(help="The Parquet file to write.")],
    place: Worked,
) -> None:
    """Write the rows of a space with their ids to a Parquet file, for other programs."""
    from headstart.store import export_space

    space = place.open().store.find(key)
    rows = export_space(space, target, reporter=reporter(place.quiet))
    stdout().print(f"{counted(rows, 'row')} written to {target}")


@app.command("import")
@generated("cache import")
def import_(
    source: Annotated[Path, typer.Argument(help="What export wrote.")], place: Worked
) -> None:
    """Add the rows of an export; rows that are there already are skipped."""
    from headstart.store import import_rows

    space = import_rows(place.open().store, source, reporter=reporter(place.quiet))
    stdout().print(f"{counted(len(space), 'row')} in {space.key[:12]}")


def _plain(info: SpaceInfo) -> dict[str, Any]:
    return {
        "key": info.key,
        "rows": info.rows,
        "bytes": info.nbytes,
        "last_used": info.last_used,
        "in_use": info.in_use,
        "problem": info.problem,
        "features": summary(info),
    }


def _ago(then: float) -> str:
    import time

    seconds = max(0.0, time.time() - then)
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = int(seconds // length)
        if count:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"
