"""Extraction: backbone + items → batches of rows. Knows no disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headstart.core.lazy import contents

if TYPE_CHECKING:
    from headstart.extraction.extractor import TOLERANCE as TOLERANCE
    from headstart.extraction.extractor import Extractor as Extractor
    from headstart.extraction.extractor import Rows as Rows
    from headstart.extraction.extractor import extract as extract
    from headstart.extraction.extractor import running_mode as running_mode
    from headstart.extraction.settings import Extraction as Extraction
    from headstart.extraction.settings import Precision as Precision
    from headstart.extraction.settings import Storage as Storage

__getattr__, __dir__, __all__ = contents(
    __name__,
    {
        "extractor": ("TOLERANCE", "Extractor", "Rows", "extract", "running_mode"),
        "settings": ("Extraction", "Precision", "Storage"),
    },
)
