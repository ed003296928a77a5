"""A page in a real browser: what does not fit, and what lies on top of what.

Chromium runs without a window and prints the document after a script of ours has measured it. The
script is added to a copy of the page, whose content policy is taken out for it.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_DARK = "@media screen and (prefers-color-scheme: dark)"

_MEASURE = "<script>" + (Path(__file__).with_name("measure.js")).read_text() + "</script>"

_FRAME = """<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">
<pre id="found"></pre>
<script>addEventListener("message", (e) => {
  document.getElementById("found").textContent = "MEASURED" + e.data + "END";
});</script>
<iframe src="{page}" style="border:0;width:{width}px;height:3000px"></iframe>
"""


def browser() -> str | None:
    """Return where Chromium is; None where it is not."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def measure(
    page: Path, folder: Path, width: int, *, dark: bool = False, opened: bool = False,
    whole: bool = False,
) -> dict[str, object]:  # fmt: skip
    """Open a page at a width, and return what is wrong with it.

    Args:
        page: the report.
        folder: for what the browser opens.
        width: in CSS pixels.
        dark: whether in dark colours.
        opened: whether folded parts are opened.
        whole: whether nothing may have to be scrolled sideways.
    """
    text = page.read_text(encoding="utf-8")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    text = (
        text.replace(_DARK, "@media screen") if dark else text.replace(_DARK, "@media (width < 0)")
    )
    script = _MEASURE.replace("OPENED", json.dumps(opened)).replace("WHOLE", json.dumps(whole))
    (folder / "page.html").write_text(text.replace("</body>", f"{script}</body>"), encoding="utf-8")
    frame = folder / "frame.html"
    frame.write_text(_FRAME.replace("{page}", "page.html").replace("{width}", str(width)))
    found = browser()
    assert found is not None
    printed = subprocess.run(
        [found, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000",
         f"--window-size={max(width, 500)},3000", "--dump-dom", frame.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
        env={**os.environ, "HOME": str(folder)},
    ).stdout  # fmt: skip
    said = re.search(r'<pre id="found">MEASURED(.*?)END</pre>', printed, re.DOTALL)
    assert said is not None, printed[:2000]
    measured: dict[str, object] = json.loads(html.unescape(said[1]))
    return measured
