"""Digests and the canonical JSON are what is on users' disks: they never change."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.core.fingerprints import (
    canonical_json,
    fingerprint,
    sha256,
    sha256_of_file,
    stable_integer,
)

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)  # fmt: skip


def test_golden_values() -> None:
    assert sha256() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert fingerprint("ä", b"\x00") == "6dd76cc68d6ae1a95c406c9fa07aec64"
    assert stable_integer("headstart", n_bytes=7) == 4898194409114242
    assert canonical_json({"b": [1, 0.1], "a": "ä"}) == '{"a":"\\u00e4","b":[1,0.1]}'
    assert canonical_json({"b": [1, 2], "a": None}, compact=False) == '{"a": null, "b": [1, 2]}'


@given(st.lists(st.text() | st.binary()))
def test_parts_are_hashed_as_one(parts: list[str | bytes]) -> None:
    whole = b"".join(p.encode() if isinstance(p, str) else p for p in parts)
    digest = hashlib.sha256(whole)
    assert sha256(*parts) == digest.hexdigest()
    assert fingerprint(*parts) == digest.hexdigest()[:32]
    assert stable_integer(*parts, n_bytes=8) == int.from_bytes(digest.digest()[:8], "big")


def test_arrays_and_files_are_hashed_by_their_bytes(tmp_path: Path) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    (tmp_path / "rows").write_bytes(rows.tobytes())
    assert sha256(rows.data) == sha256_of_file(tmp_path / "rows")


@given(PLAIN)
def test_canonical_json_reads_back_and_does_not_depend_on_order(value: object) -> None:
    assert json.loads(canonical_json(value)) == value
    if isinstance(value, dict):
        assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


def test_what_json_lacks_is_refused_or_turned_into_what_it_has() -> None:
    with pytest.raises(ValueError):
        canonical_json(math.nan)
    with pytest.raises(TypeError):
        canonical_json({1, 2})
    assert canonical_json({1, 2}, default=sorted) == "[1,2]"
