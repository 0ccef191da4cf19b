"""No table of results scrolls sideways on a page of 1280 pixels, as chromium lays it out."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from results_factory import Results

from analysis.__main__ import main
from analysis.results.names import PARTITION_LABELS

WIDTHS = """
addEventListener("load", () => {
  const told = document.createElement("pre");
  told.id = "widths";
  told.textContent = JSON.stringify([...document.querySelectorAll(".wide")].map(
    (one) => [one.getAttribute("aria-label"), one.scrollWidth - one.clientWidth]));
  document.body.append(told);
});
"""


def _report(root: Path) -> Path:
    """Four methods on all ten partitions with long numbers, and no figures."""
    made = Results(root / "results")
    baseline = {"a": {13: 0.2, 21: 0.3}, "b": {13: 0.02, 21: 0.03}}
    for partition in PARTITION_LABELS:
        for at, method in enumerate(("maml", "fomaml", "reptile", "multitask")):
            scores = {"a": {13: 0.6 - 0.1 * at, 21: 0.1}, "b": {13: 0.1, 21: 0.01}}
            made.point(method, partition, scores, baseline)
    out = root / "report"
    words = ("--results", str(made.root), "--out", str(out), "--no-figures")
    assert main(["report", *words]) == 0
    return out / "index.html"


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium on this machine")
def test_no_table_of_results_scrolls_sideways_on_a_desk(tmp_path: Path) -> None:
    text = _report(tmp_path).read_text(encoding="utf-8")
    text, count = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    assert count == 1
    file = tmp_path / "index.html"
    file.write_text(text.replace("</head>", f"<script>{WIDTHS}</script></head>"), encoding="utf-8")
    shown = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,900",
         "--virtual-time-budget=5000", "--dump-dom", file.as_uri()],
        capture_output=True, text=True, timeout=1700, check=True,
    )  # fmt: skip
    found = re.search(r'<pre id="widths">(.*?)</pre>', shown.stdout, re.DOTALL)
    assert found is not None
    beyond = dict(json.loads(html.unescape(found[1])))
    for title in ("Cost beside score", "Table 2. ARG"):
        assert any(one.startswith(title) for one in beyond)
    assert {title: over for title, over in beyond.items() if over > 0} == {}
