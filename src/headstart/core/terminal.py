"""The one place where text reaches a terminal: nothing that a name holds is acted upon.

Names of files and classes are other people's text. They may hold escape sequences that clear the
screen, retitle the window or write into the clipboard, characters that reorder the line around
them, and bytes that are no text at all. Whatever the package prints goes through here; a test of
the architecture keeps it so.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

from headstart.core.lazy import drawing_nothing
from headstart.core.wording import clean

if TYPE_CHECKING:
    from rich.console import Console

_RISKY = re.compile(
    "[\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def harmless(text: object) -> str:
    """Return a text, line by line, without anything that a terminal would act on."""
    return "\n".join(clean(line) for line in str(text).split("\n"))


def say(text: object, *, error: bool = False) -> None:
    """Print a text on standard output, or on standard error."""
    stream = sys.stderr if error else sys.stdout
    print(_encodable(harmless(text), stream), file=stream, flush=error)


def say_row(cells: Iterable[object]) -> None:
    """Print a line of cells with tabs between them, for a program to read."""
    line = "\t".join(clean(cell) for cell in cells)
    print(_encodable(line, sys.stdout))


def say_json(value: Any) -> None:
    """Print one JSON document on standard output; what is not harmless is escaped as in JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    text = _RISKY.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    if _encodable(text, sys.stdout) != text:
        text = json.dumps(value, indent=2)
    print(text)


def console(*, error: bool = False, width: int | None = None) -> Console:
    """Return a console of rich that prints nothing but harmless text, and reads no markup.

    Args:
        error: whether it writes to standard error.
        width: in columns; None: that of the terminal.
    """
    with drawing_nothing():
        from rich.console import Console, ConsoleOptions, RenderHook, RenderResult
        from rich.control import Control
        from rich.measure import Measurement
        from rich.segment import Segment

    class Harmless:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            for segment in console.render(self.inner, options):
                if segment.control:
                    yield segment
                else:
                    yield Segment(_encodable(harmless(segment.text), console.file), segment.style)

        def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
            return Measurement.get(console, options, self.inner)

    class Hook(RenderHook):
        def process_renderables(self, renderables: Iterable[Any]) -> list[Any]:
            return [each if isinstance(each, Control) else Harmless(each) for each in renderables]

    made = Console(stderr=error, highlight=False, markup=False, width=width)
    made.push_render_hook(Hook())
    return made


def _encodable(text: str, stream: TextIO | Any) -> str:
    """Return the text with what the stream has no bytes for replaced: an old locale ends no job."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        return text.encode(encoding, "replace").decode(encoding)
    except (LookupError, UnicodeError):
        return text


__all__ = ["console", "harmless", "say", "say_json", "say_row"]
