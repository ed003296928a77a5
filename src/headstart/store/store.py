"""A folder of feature spaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headstart.core.errors import StoreError
from headstart.core.files import clear_errors, existing_parent, is_writable
from headstart.core.progress import Reporter, SilentReporter
from headstart.store.catalog import (
    GcReport,
    SpaceInfo,
    collect,
    inspect,
    layouts,
    remove,
)
from headstart.store.describe import Difference, differences
from headstart.store.folder import check_description
from headstart.store.kept import Leftover, kept_files, results_by_kind, verify_kept
from headstart.store.layout import MEMO, RESULTS, Layout
from headstart.store.memo import Memo
from headstart.store.repair import verify_space
from headstart.store.results import ResultInfo, Results
from headstart.store.space import Space
from headstart.store.verify import VerifyReport


class Store:
    """A folder of spaces, one per description.

    Args:
        root: the folder. Nothing is created before the first append.
        remote: URL of a store shared through fsspec, such as ``s3://bucket/features``. The folder
            is then its mirror: rows are published to both, and shards are fetched when they are
            first read.
        remote_options: passed to the remote file system (credentials, endpoint).
        spare: returns another folder, which takes what this user cannot write to ``root``: rows of
            a space, and results, are then looked for in both. None: such writes are refused.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        remote: str | None = None,
        remote_options: Mapping[str, Any] | None = None,
        spare: Callable[[], Path] | None = None,
    ) -> None:
        self.root = Path(root).expanduser()
        self.remote, self._remote_options = remote, remote_options
        self._spare = spare

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def space(self, description: Mapping[str, Any]) -> Space:
        """Return the space of a description.

        Args:
            description: everything that the rows depend on, as plain JSON values.

        Raises:
            StoreError: a value is not a plain JSON value; the message names its path.
        """
        space = Space(self.root, description, self.remote, self._remote_options)
        if self._spare is None or self.remote is not None or space.is_writable():
            return space
        return Space(self._spare(), description, below=space)

    def results(self, kind: str) -> Results:
        """Return the small results of one kind, such as ``heads``.

        Args:
            kind: a plain name; results are in the folder ``results/KIND`` of the store.
        """
        found = Results(self.root / RESULTS / kind)
        if self._spare is None or self._is_writable(found.folder):
            return found
        return Results(self._spare() / RESULTS / kind, below=found)

    def _is_writable(self, folder: Path) -> bool:
        if folder.exists():
            return is_writable(folder)
        return is_writable(existing_parent(folder)) if self.root.exists() else True

    def kept(self) -> list[tuple[str, ResultInfo]]:
        """Return all small results: their kind, and what is on disk."""
        return list(results_by_kind(self.root))

    def files(self) -> list[Leftover]:
        """Return what is there beside the spaces: small results, the memo of file digests."""
        with clear_errors(f"read the results in {self.root}", StoreError):
            return list(kept_files(self.root))

    def memo(self) -> Memo:
        """Return the memo of file digests, a context to be left after use."""
        path = self.root / MEMO
        if self._spare is not None and not self._is_writable(path):
            path = self._spare() / MEMO
        return Memo(path)

    def find(self, key: str) -> Space:
        """Return an existing space by its key or an unambiguous prefix of it.

        Raises:
            StoreError: no space or more than one matches, or its description is damaged.
        """
        layout = self._layout(key)
        return Space(self.root, check_description(layout), self.remote, self._remote_options)

    def spaces(self) -> list[SpaceInfo]:
        """Return all spaces, damaged ones included, the most recently used first."""
        found = [inspect(layout) for layout in layouts(self.root)]
        return sorted(found, key=lambda info: -info.last_used)

    def explain(
        self, a: Space | Mapping[str, Any] | str, b: Space | Mapping[str, Any] | str
    ) -> tuple[Difference, ...]:
        """Return where two descriptions differ, such as ``preprocessing.resize: 256 → 232``.

        Args:
            a, b: spaces, descriptions, or keys (or prefixes of keys) of this store.
        """
        return differences(self._description(a), self._description(b))

    def verify(self, repair: bool = False, *, reporter: Reporter | None = None) -> VerifyReport:
        """Read every byte and compare it with its digest: spaces, results, the memo of files.

        Args:
            repair: drop what is damaged, adopt what a kill left behind, rebuild a broken index.
                Dropped rows are missing afterwards and computed again when they are needed.
            reporter: receives the progress.
        """
        reporter = reporter or SilentReporter()
        reports = [
            verify_space(layout, repair=repair, reporter=reporter) for layout in layouts(self.root)
        ]
        kept, faults = verify_kept(self.root, repair=repair)
        return VerifyReport(
            kept=kept,
            spaces=len(reports),
            shards=sum(report.shards for report in reports),
            rows=sum(report.rows for report in reports),
            nbytes=sum(report.nbytes for report in reports),
            faults=(*(fault for report in reports for fault in report.faults), *faults),
        )

    def gc(
        self,
        max_size: int | None = None,
        older_than: float | None = None,
        *,
        dry_run: bool = False,
    ) -> GcReport:
        """Remove what is old or exceeds a size; spaces in use stay.

        Args:
            max_size: bytes that may remain; what was not used for longest is removed first.
            older_than: seconds since the last use after which a space or a result is removed.
            dry_run: only report what would be removed.
        """
        return collect(self.root, max_size=max_size, older_than=older_than, dry_run=dry_run)

    def info(self, key: str) -> SpaceInfo:
        """Return one space, damaged or not, by its key or an unambiguous prefix of it.

        Raises:
            StoreError: no space or more than one matches.
        """
        return inspect(self._layout(key))

    def remove(self, key: str) -> None:
        """Remove one space by its key or an unambiguous prefix of it.

        A space that is a link to a folder elsewhere loses the link; the folder stays.

        Raises:
            StoreError: there is no such space, or a running process uses it.
        """
        layout = self._layout(key)
        if not remove(layout):
            raise StoreError(
                f"the space {layout.folder} is in use", hint="end the process that uses it first"
            )

    def _layout(self, key: str) -> Layout:
        keys = [layout.key for layout in layouts(self.root)]
        fitting = [known for known in keys if key and known.startswith(key)]
        if len(fitting) != 1:
            what = "no space" if not fitting else f"{len(fitting)} spaces"
            have = ", ".join(known[:12] for known in (fitting or keys)[:8]) or "none"
            raise StoreError(f"{what} in {self.root} begin with {key!r:.80}; there are: {have}")
        return Layout(self.root, fitting[0])

    def _description(self, which: Space | Mapping[str, Any] | str) -> Mapping[str, Any]:
        if isinstance(which, Space):
            return which.description
        if isinstance(which, str):
            return check_description(self._layout(which))
        return which
