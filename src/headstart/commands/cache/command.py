"""``headstart cache``: what is stored, what differs, what is damaged, what may go."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.commands import options
from headstart.commands.console import print_json, reporter, stdout
from headstart.core.errors import ConfigError

if TYPE_CHECKING:
    from headstart.cache import FeatureCache
    from headstart.store import SpaceInfo

app = typer.Typer(
    name="cache",
    help="Stored features: list, explain, verify, remove, export.",
    no_args_is_help=True,
)

Key = Annotated[str, typer.Argument(help="A key, or enough of its beginning.", show_default=False)]


@app.command("ls")
def list_spaces(cache: options.Cache = None, as_json: options.AsJson = False) -> None:
    """List the feature spaces, the last used first."""
    store = _open(cache)
    spaces = sorted(store.store.spaces(), key=lambda info: -info.last_used)
    if as_json:
        print_json([_plain(info) for info in spaces])
        return
    console = stdout()
    if not spaces:
        console.print(f"no features in {store.location}")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("key", "features", "rows", "size", "last used"):
        table.add_column(title, justify="right" if title in {"rows", "size"} else "left")
    for info in spaces:
        what = info.problem or _summary(info)
        used = "in use" if info.in_use else _ago(info.last_used)
        row = (info.key[:12], what, f"{info.rows:,}", format_size(info.nbytes), used)
        table.add_row(*map(Text, row))
    console.print(table)
    total = sum(info.nbytes for info in spaces)
    console.print(f"{format_size(total)} in {store.location}")


@app.command()
def info(key: Key, cache: options.Cache = None, as_json: options.AsJson = False) -> None:
    """Show what one feature space was computed with."""
    store = _open(cache)
    space = store.store.find(key)
    found = next(entry for entry in store.store.spaces() if entry.key == space.key)
    if as_json:
        print_json({**_plain(found), "description": space.description})
        return
    console = stdout()
    console.print(f"{found.key}: {found.rows:,} rows in {found.shards:,} shards")
    console.print(f"{format_size(found.nbytes)} in {space.folder}")
    for column in found.columns:
        error = f", largest error {column.max_error:.2g}" if column.max_error else ""
        shape = "×".join(map(str, column.shape))
        console.print(f"column {column.name}: {shape} {column.encoding}{error}")
    import json

    console.print(json.dumps(space.description, indent=2, ensure_ascii=False))


@app.command()
def explain(
    one: Key, other: Key, cache: options.Cache = None, as_json: options.AsJson = False
) -> None:
    """Say in what two feature spaces differ: why the rows of one do not serve the other."""
    found = _open(cache).store.explain(one, other)
    if as_json:
        print_json([{"path": d.path, "text": str(d)} for d in found])
        return
    stdout().print("\n".join(map(str, found)) if found else "they are the same space")


@app.command()
def verify(
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Mend what can be mended; drop rows that are damaged."),
    ] = False,
    cache: options.Cache = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Read every byte and compare it with its digest. Exit status 1 if something is wrong."""
    report = _open(cache).store.verify(repair, reporter=reporter(quiet))
    rows = sum(fault.rows for fault in report.faults)
    if as_json:
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
            state = "mended" if fault.repaired else "not mended"
            console.print(f"{fault.path}: {fault.what} ({state})")
        console.print(
            f"{report.rows:,} rows in {report.shards:,} shards of {report.spaces:,} spaces, "
            f"{format_size(report.nbytes)}: " + ("sound" if report.ok else "damaged")
        )
        if rows and repair:
            console.print(f"{rows:,} rows will be computed again when they are next asked for")
        elif not report.ok:
            console.print("mend it with: headstart cache verify --repair")
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def gc(
    max_size: Annotated[
        str | None,
        typer.Option(
            help="Keep at most this much, the last used first: 20GB, 500MB.", show_default=False
        ),
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option(help="Remove what was not used for this long: 30d, 12h.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    cache: options.Cache = None,
    as_json: options.AsJson = False,
) -> None:
    """Remove feature spaces, never one that a running process reads."""
    if max_size is None and older_than is None:
        raise ConfigError(("gc needs --max-size or --older-than",))
    report = _open(cache).store.gc(
        None if max_size is None else parse_size(max_size),
        None if older_than is None else parse_age(older_than),
        dry_run=dry_run,
    )
    if as_json:
        print_json(
            {
                "removed": [_plain(i) for i in report.removed],
                "freed": report.freed,
                "in_use": [_plain(i) for i in report.in_use],
            }
        )
        return
    console = stdout()
    verb = "would remove" if dry_run else "removed"
    for entry in report.removed:
        console.print(f"{verb} {entry.key[:12]} ({_summary(entry)}, {entry.rows:,} rows)")
    for entry in report.in_use:
        console.print(f"kept {entry.key[:12]}, which is in use")
    console.print(f"{format_size(report.freed)} {'would be ' if dry_run else ''}freed")


@app.command()
def export(
    key: Key,
    target: Annotated[Path, typer.Argument(help="The Parquet file to write.")],
    cache: options.Cache = None,
    quiet: options.Quiet = False,
) -> None:
    """Write the rows of a space with their ids to a Parquet file, for other programs."""
    from headstart.store import export_space

    space = _open(cache).store.find(key)
    rows = export_space(space, target, reporter=reporter(quiet))
    stdout().print(f"{rows:,} rows written to {target}")


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="What export wrote.")],
    cache: options.Cache = None,
    quiet: options.Quiet = False,
) -> None:
    """Add the rows of an export; rows that are there already are skipped."""
    from headstart.store import import_rows

    space = import_rows(_open(cache).store, source, reporter=reporter(quiet))
    stdout().print(f"{len(space):,} rows in {space.key[:12]}")


def _open(cache: str | None) -> FeatureCache:
    from headstart.cache import FeatureCache

    return FeatureCache(cache)


def _plain(info: SpaceInfo) -> dict[str, Any]:
    return {
        "key": info.key,
        "rows": info.rows,
        "bytes": info.nbytes,
        "last_used": info.last_used,
        "in_use": info.in_use,
        "problem": info.problem,
        "features": _summary(info),
    }


def _summary(info: SpaceInfo) -> str:
    """Say in a few words what the rows are: model, cut, input size, precision."""
    backbone = info.description.get("backbone", {})
    size = info.description.get("preprocessing", {}).get("size", [])
    words = [
        str(backbone.get("class", "stored rows")),
        str(backbone.get("layer") or ""),
        str(backbone.get("pooling") or "").replace("none", ""),
        "×".join(map(str, size)),
        str(info.description.get("precision", "")).replace("float32", ""),
    ]
    return " ".join(word for word in words if word)


def _ago(then: float) -> str:
    import time

    seconds = max(0.0, time.time() - then)
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = int(seconds // length)
        if count:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def format_size(count: float) -> str:
    """Write a number of bytes with a decimal unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


_UNITS = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
          "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}  # fmt: skip
_AGES = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_size(text: str) -> int:
    """Read "20GB" or "512 MiB" as bytes."""
    match = re.fullmatch(r"\s*([0-9.]+)\s*([a-zA-Z]*)\s*", text)
    unit = _UNITS.get(match.group(2).lower()) if match else None
    if match is None or unit is None or match.group(1).count(".") > 1:
        raise ConfigError((f"--max-size takes a size such as 20GB, not '{text}'",))
    return int(float(match.group(1)) * unit)


def parse_age(text: str) -> float:
    """Read "30d" or "12h" as seconds."""
    match = re.fullmatch(r"\s*([0-9]+)\s*([smhdw])\s*", text.lower())
    if match is None:
        raise ConfigError((f"--older-than takes an age such as 30d or 12h, not '{text}'",))
    return float(match.group(1)) * _AGES[match.group(2)]
