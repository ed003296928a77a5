"""Random damage to every file of a store: never a wrong row, always a way out.

After each damage a fresh reader must either return the true rows, say that they are missing, or
raise a StoreError that names what is damaged and how to mend it. After ``verify(repair=True)`` and
computing what is missing, all rows must be as they were.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headstart.core.errors import StoreError
from headstart.store import Store
from tests.store.conftest import make_ids, make_rows

MINE, OTHER = {"space": "mine"}, {"space": "other"}
IDS = make_ids(60)
ROWS = make_rows(IDS)

Damage = Callable[[Path, Path, random.Random], None]
"""Takes the folder of the damaged space, the folder of the other, and a source of chance."""


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pristine") / "store"
    for description, scale in ((MINE, 1), (OTHER, -1)):
        space = Store(root).space(description)
        for start in range(0, 60, 15):
            part = slice(start, start + 15)
            space.append(IDS[part], {"features": scale * ROWS[part]})
    return root


def shards(folder: Path) -> list[Path]:
    return sorted((folder / "shards").iterdir())


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def sql(folder: Path, *statements: str) -> None:
    connection = sqlite3.connect(folder / "index.sqlite")
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def flip_shard(mine: Path, other: Path, rng: random.Random) -> None:
    flip(rng.choice(shards(mine)), rng)


def truncate_shard(mine: Path, other: Path, rng: random.Random) -> None:
    path = rng.choice(shards(mine))
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def extend_shard(mine: Path, other: Path, rng: random.Random) -> None:
    with rng.choice(shards(mine)).open("ab") as file:
        file.write(rng.randbytes(rng.randint(1, 100)))


def delete_shard(mine: Path, other: Path, rng: random.Random) -> None:
    rng.choice(shards(mine)).unlink()


def swap_shards(mine: Path, other: Path, rng: random.Random) -> None:
    a, b = rng.sample(shards(mine), 2)
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)


def another_space_under_my_name(mine: Path, other: Path, rng: random.Random) -> None:
    shutil.copy(rng.choice(shards(other)), rng.choice(shards(mine)))


def another_space_registered(mine: Path, other: Path, rng: random.Random) -> None:
    stranger, victim = rng.choice(shards(other)), rng.choice(shards(mine))
    shutil.copy(stranger, mine / "shards" / stranger.name)
    sql(
        mine,
        f"UPDATE shards SET name = '{stranger.stem}', bytes = {stranger.stat().st_size}"
        f" WHERE name = '{victim.stem}'",
    )


def symlink_shard(mine: Path, other: Path, rng: random.Random) -> None:
    path = rng.choice(shards(mine))
    aside = mine.parent / "aside"
    path.rename(aside)
    path.symlink_to(aside)


def folder_for_shard(mine: Path, other: Path, rng: random.Random) -> None:
    path = rng.choice(shards(mine))
    path.unlink()
    path.mkdir()


def unregistered_shard(mine: Path, other: Path, rng: random.Random) -> None:
    shutil.copy(rng.choice(shards(other)), mine / "shards" / f"{rng.randbytes(16).hex()}.arrow")


def flip_index(mine: Path, other: Path, rng: random.Random) -> None:
    flip(mine / "index.sqlite", rng)


def truncate_index(mine: Path, other: Path, rng: random.Random) -> None:
    path = mine / "index.sqlite"
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def delete_index(mine: Path, other: Path, rng: random.Random) -> None:
    (mine / "index.sqlite").unlink()


def another_index(mine: Path, other: Path, rng: random.Random) -> None:
    shutil.copy(other / "index.sqlite", mine / "index.sqlite")


def index_edits(mine: Path, other: Path, rng: random.Random) -> list[tuple[str, ...]]:
    name, second = (path.stem for path in rng.sample(shards(mine), 2))
    one = f"(SELECT number FROM shards WHERE name = '{name}')"
    two = f"(SELECT number FROM shards WHERE name = '{second}')"
    return [
        (f"UPDATE shards SET name = '../../../../etc/passwd' WHERE name = '{name}'",),
        (f"UPDATE shards SET name = x'00' || name WHERE name = '{name}'",),
        (
            f"UPDATE shards SET name = '{'0' * 32}' WHERE name = '{name}'",
            f"UPDATE shards SET name = '{name}' WHERE name = '{second}'",
            f"UPDATE shards SET name = '{second}' WHERE name = '{'0' * 32}'",
        ),
        (f"UPDATE rows SET position = (position + 1) % 15 WHERE shard = {one}",),
        (f"UPDATE rows SET position = 15 WHERE shard = {one}",),
        (f"UPDATE rows SET position = -1 WHERE shard = {one}",),
        (f"UPDATE rows SET position = 'x' WHERE shard = {one}",),
        (f"UPDATE rows SET position = 1e300 WHERE shard = {one}",),
        (f"UPDATE rows SET shard = {two} WHERE shard = {one}",),
        (f"UPDATE rows SET shard = 99 WHERE shard = {one}",),
        (f"UPDATE rows SET id = x'{'ab' * 16}' WHERE shard = {one} AND position = 3",),
        (f"UPDATE rows SET view = 1 WHERE shard = {one}",),
        (f"DELETE FROM rows WHERE shard = {one} AND position > 4",),
        (f"DELETE FROM shards WHERE name = '{name}'",),
        (f"UPDATE shards SET rows = 14 WHERE name = '{name}'",),
        (f"UPDATE shards SET bytes = bytes - 8 WHERE name = '{name}'",),
        (f"UPDATE shards SET columns = replace(columns, '[16]', '[8]') WHERE name = '{name}'",),
        (f"UPDATE shards SET columns = replace(columns, 't32', 't16') WHERE name = '{name}'",),
        (f"UPDATE shards SET columns = '[]' WHERE name = '{name}'",),
        ("UPDATE shards SET columns = replace(columns, 'features', 'feature')",),
        ("UPDATE meta SET value = '0' WHERE name = 'format'",),
        (f"UPDATE meta SET value = '{other.name}' WHERE name = 'key'",),
        ("DELETE FROM meta",),
        ("DROP TABLE rows",),
        ("DROP TABLE shards",),
    ]


def edit_index(mine: Path, other: Path, rng: random.Random) -> None:
    sql(mine, *rng.choice(index_edits(mine, other, rng)))


def flip_description(mine: Path, other: Path, rng: random.Random) -> None:
    flip(mine / "space.json", rng)


def another_description(mine: Path, other: Path, rng: random.Random) -> None:
    shutil.copy(other / "space.json", mine / "space.json")


DAMAGES: list[Damage] = [
    flip_shard,
    truncate_shard,
    extend_shard,
    delete_shard,
    swap_shards,
    another_space_under_my_name,
    another_space_registered,
    symlink_shard,
    folder_for_shard,
    unregistered_shard,
    flip_index,
    truncate_index,
    delete_index,
    another_index,
    edit_index,
    flip_description,
    another_description,
]
# A flipped bit here may mean nothing: unused space of a page, a letter case in white space, a time.
MAY_BE_HARMLESS = {"flip_index", "flip_description"}
# These may change nothing that a reader looks at (a cut may fall on a page that no read needs);
# verify must tell them nevertheless.
NOT_READ = {"unregistered_shard", "truncate_index"}


def use(root: Path) -> tuple[int, int, list[str]]:
    """Read all rows, five at a time; return how many were read and missing, and the errors.

    The errors themselves are let go: their tracebacks would keep the space in use.
    """
    read = missing = 0
    errors = []
    try:
        space = Store(root).space(MINE)
        absent = set(space.missing(IDS))
    except StoreError as error:
        return 0, 0, [str(error)]
    for start in range(0, 60, 5):
        wanted = [i for i in IDS[start : start + 5] if i not in absent]
        missing += 5 - len(wanted)
        truth = ROWS[[IDS.index(i) for i in wanted]]
        try:
            found = space.read(wanted)[np.arange(len(wanted))] if wanted else truth
        except StoreError as error:
            errors.append(str(error))
            continue
        np.testing.assert_array_equal(found, truth)
        read += len(wanted)
    # No row was ever written for view 1, whatever the index may say now.
    for item in set(IDS) - set(space.missing(IDS, view=1)):
        with pytest.raises(StoreError, match="than the index says"):
            space.read([item], view=1).array()
    return read, missing, errors


def attack(pristine: Path, folder: Path, damage: Damage, seed: int) -> None:
    root = folder / "store"
    shutil.copytree(pristine, root)
    mine = root / Store(root).space(MINE).key
    other = root / Store(root).space(OTHER).key
    damage(mine, other, random.Random(seed))

    read, missing, errors = use(root)
    for error in errors:
        assert "damaged" in error or "missing" in error or "than the index says" in error, error
        assert mine.name in error
        assert "verify --repair" in error
    report = Store(root).verify()
    if damage.__name__ not in MAY_BE_HARMLESS:
        assert not report.ok, "verify did not notice"
        if damage.__name__ not in NOT_READ:
            assert errors or missing, "the damage was used"
    elif report.faults == ():
        assert (read, errors) == (60, [])

    repaired = Store(root).verify(repair=True)
    assert repaired.ok, [str(fault) for fault in repaired.faults]
    space = Store(root).space(MINE)
    again = space.missing(IDS)
    if again:
        space.append(again, {"features": ROWS[[IDS.index(i) for i in again]]})
    np.testing.assert_array_equal(space.read(IDS).array(), ROWS)
    assert len(again) <= sum(fault.rows for fault in repaired.faults) + missing
    assert Store(root).verify().ok
    np.testing.assert_array_equal(Store(root).space(OTHER).read(IDS).array(), -ROWS)
    shutil.rmtree(folder)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_never_used(pristine: Path, tmp_path: Path, damage: Damage) -> None:
    for seed in range(3):
        attack(pristine, tmp_path / str(seed), damage, seed)


@pytest.mark.parametrize("which", range(25))
def test_no_edit_of_the_index_is_used(pristine: Path, tmp_path: Path, which: int) -> None:
    def one_edit(mine: Path, other: Path, rng: random.Random) -> None:
        edits = index_edits(mine, other, rng)
        assert len(edits) == 25
        sql(mine, *edits[which])

    attack(pristine, tmp_path / "attacked", one_edit, which)


@pytest.mark.slow
def test_a_thousand_damages(pristine: Path, tmp_path: Path) -> None:
    rng = random.Random(1)
    for seed in range(1000):
        attack(pristine, tmp_path / str(seed), rng.choice(DAMAGES), 1000 + seed)
