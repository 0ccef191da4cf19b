"""Numbers on a heat map stand where they have room, as chromium draws them."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs

from analysis.figures.interactive.tables import heat_map
from analysis.report import page
from analysis.tables.table import Table, TableCell, text

WIDTHS = {"phone": 330, "desk": 1000}
"""Name of a picture → its width in pixels."""

TOLD = """
addEventListener("load", () => setTimeout(() => {
  const told = document.createElement("pre");
  told.id = "told";
  told.textContent = JSON.stringify(Object.fromEntries(
    [...document.querySelectorAll("[data-plot]")].map((div) => [div.dataset.plot,
      [...div.querySelectorAll(".textpoint text")].map((one) => one.textContent)])));
  document.body.append(told);
}, 3000));
"""


def _page() -> str:
    """The same heat map of ten columns at both widths; intervals of every second exclude 0."""
    cells = [
        TableCell(value=100.5 + n, digits=2, low=1.0 - 2 * (n % 2), high=200.0) for n in range(10)
    ]
    table = Table(
        name="t",
        title="t",
        columns=("method", *(f"Cls→{n}" for n in range(10))),
        rows=((text("MAML"), *cells), (text("MTL"), *cells)),
    )
    drawing = Path(page.__file__).with_name("templates") / "plots.js"
    packed = base64.b64encode(gzip.compress(get_plotlyjs().encode())).decode()
    plots = json.dumps(dict.fromkeys(WIDTHS, heat_map(table)))
    return "".join(
        (
            "<!doctype html><meta charset=utf-8>",
            *(
                f'<div data-plot="{n}" id="{n}" style="width:{w}px"></div>'
                for n, w in WIDTHS.items()
            ),
            f'<script type="text/plain" id="plotly">{packed}</script>',
            f'<script type="application/json" id="plots">{plots}</script>',
            f"<script>{drawing.read_text(encoding='utf-8')}</script>",
            f"<script>{TOLD}</script>",
        )
    )


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium on this machine")
def test_numbers_that_would_cover_each_other_leave_their_marks_alone(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(_page(), encoding="utf-8")
    shown = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,900",
         "--virtual-time-budget=5000", "--dump-dom", file.as_uri()],
        capture_output=True, text=True, timeout=600, check=True,
    ).stdout  # fmt: skip
    told = re.search(r'<pre id="told">(.*?)</pre>', shown, re.DOTALL)
    assert told is not None
    desk = [f"{100.5 + n:.1f}{' ●' if n % 2 == 0 else ''}" for n in range(10)] * 2
    found = {name: [one for one in of if one] for name, of in json.loads(told[1]).items()}
    assert found == {"phone": ["●"] * 10, "desk": desk}
