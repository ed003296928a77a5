"""Addresses of files that lie elsewhere: ``s3://bucket/photos``, ``https://host/x.parquet``.

They are opened through fsspec, which knows a file system for each protocol; it and they are extras.
Credentials are those that the service's own tools use (environment variables, profiles, roles).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from headstart.core.errors import HeadstartError, MissingExtraError

_ADDRESS = re.compile(r"^[A-Za-z][\w+.-]+(::[A-Za-z][\w+.-]+)*://")
_EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), ("s3fs", "s3")),
    **dict.fromkeys(("gs", "gcs"), ("gcsfs", "gcs")),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), ("adlfs", "azure")),
    **dict.fromkeys(("http", "https"), ("aiohttp", "remote")),
}
"""The package that knows a protocol, and the extra that installs it."""
_VERSIONS = (
    "ETag", "etag", "md5Hash", "crc32c", "checksum", "mtime", "LastModified", "last_modified",
    "updated", "modified", "created",
)  # fmt: skip
"""What file systems call that which changes with the content of a file, the surest first."""


@dataclass(frozen=True, slots=True)
class FarFile:
    """One file that lies elsewhere.

    Attributes:
        address: with its protocol.
        path: as its file system takes it.
        size: in bytes; −1 where that is not known.
        version: what changes with its content (an ETag, a time); empty where nothing says so.
    """

    address: str
    path: str
    size: int = -1
    version: str = ""


def is_address(source: object) -> TypeGuard[str]:
    """Return whether this is text that begins with a protocol, and so is no path."""
    return isinstance(source, str) and _ADDRESS.match(source) is not None


def open_file_system(
    url: str,
    options: Mapping[str, Any] | None = None,
    *,
    what: str,
    kind: type[HeadstartError],
) -> tuple[Any, str]:
    """Return the fsspec file system of an address, and the path in it.

    Args:
        url: the address.
        options: passed to the file system (credentials, endpoint).
        what: what it is the address of, for messages ("a remote store").
        kind: the error to raise.

    Raises:
        MissingExtraError: a package is not installed.
        HeadstartError: the address has an unknown protocol, or its file system cannot be opened.
    """
    try:
        import fsspec
    except ImportError:
        raise MissingExtraError("fsspec", "remote", what) from None
    try:
        files, path = fsspec.core.url_to_fs(url, **dict(options or {}))
    except ImportError as error:
        if (known := _EXTRAS.get(url.partition(":")[0].lower())) is not None:
            raise MissingExtraError(*known, f"{what} at {url}") from error
        said = " ".join(str(error).split())
        raise kind(f"{what} at {url} needs a package that is not installed", hint=said) from error
    except ValueError as error:
        raise kind(f"'{url}' is not the URL of {what}: {error}") from error
    return files, str(path)


def far_file(files: Any, path: str, info: Mapping[str, Any]) -> FarFile:
    """Return a file as the listing of its file system describes it."""
    size = info.get("size")
    version = next((str(info[name]) for name in _VERSIONS if info.get(name)), "")
    return FarFile(
        str(files.unstrip_protocol(path)), path, size if isinstance(size, int) else -1, version
    )


def why(error: BaseException) -> tuple[str, str]:
    """Return in one line why a service refuses, and what to do about it."""
    text = " ".join(str(error).split())[:300] or type(error).__name__
    low = text.casefold()
    if "expired" in low:
        return f"the credentials have expired ({text})", "renew them and run again"
    if "unable to locate credentials" in low or "no credentials" in low:
        return (
            "there are no credentials",
            "give them as the service's own tools take them; for a public bucket of S3 set"
            " FSSPEC_S3_ANON=true",
        )
    if "bucket does not exist" in low or "nosuchbucket" in low:
        return "the bucket does not exist", "check its name, and the endpoint and region"
    if isinstance(error, FileNotFoundError):
        return "it does not exist", "check the address"
    if isinstance(error, PermissionError) or "forbidden" in low or "403" in low:
        return f"permission is denied ({text})", "check the credentials and what they may read"
    return text, "check the address and the network, and run again"


__all__ = ["FarFile", "far_file", "is_address", "open_file_system", "why"]
