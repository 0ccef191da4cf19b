"""What axe-core says of the page, in light and dark colours, on a desk and on a phone.

It runs where there are a chromium and axe-core, whose file the environment names:
``AXE_CORE=…/node_modules/axe-core/axe.min.js`` (``npm install axe-core``).
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from results_factory import Results, flat

from analysis.__main__ import main

AXE = os.environ.get("AXE_CORE", "")
REPORT = """
addEventListener("load", () => setTimeout(async () => {
  for (const one of document.querySelectorAll("details")) one.open = true;
  const found = await axe.run(document, { resultTypes: ["violations"] });
  const serious = found.violations.filter((one) => ["serious", "critical"].includes(one.impact));
  const said = serious.map((one) => [one.id, ...one.nodes.map((node) => node.html.slice(0, 200))]);
  const pre = document.createElement("pre");
  pre.id = "faults";
  pre.className = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  pre.textContent = JSON.stringify(said);
  document.body.append(pre);
}, 5000));
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The index page of a small report, with axe-core in it and without its policy."""
    results = Results(tmp_path_factory.mktemp("results"))
    for method, gain in (("maml", 1.2), ("multitask", 1.1)):
        scores = flat({"a": 0.5 * gain, "b": 0.4 * gain})
        results.point(method, "cls_to_cls", scores, flat({"a": 0.5, "b": 0.4}))
    for rate, gain in ((0.1, 1.1), (1.0, 1.3)):
        point = {"trajectory": f"t{rate}", "settings": {"inner_lr": rate, "outer_lr": 0.1}}
        place = ("maml", "random_to_random", flat({"v": 0.5 * gain}), flat({"v": 0.5}))
        results.point(*place, role="validation", point=point)
    out = tmp_path_factory.mktemp("out") / "report"
    assert main(["report", "--results", str(results.root), "--out", str(out)]) == 0
    text = (out / "index.html").read_text()
    text, count = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    assert count == 1
    axe = Path(AXE).read_text(encoding="utf-8")
    return text.replace("</head>", f"<script>{axe}</script><script>{REPORT}</script></head>")


@pytest.mark.skipif(
    not (shutil.which("chromium") and AXE and Path(AXE).is_file()),
    reason="no chromium, or no axe-core named by AXE_CORE",
)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 500])  # chromium has no narrower window
def test_axe_finds_no_serious_fault(page: str, width: int, dark: bool, tmp_path: Path) -> None:
    file = tmp_path / "index.html"
    file.write_text(page)
    colours = [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    shown = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", *colours,
         f"--window-size={width},6000", "--virtual-time-budget=60000", "--dump-dom",
         file.as_uri()],
        capture_output=True, text=True, timeout=1700, check=True,
    )  # fmt: skip
    found = re.search(r'<pre id="faults" class="(\w+)">(.*?)</pre>', shown.stdout, re.DOTALL)
    assert found is not None, "axe-core has not answered"
    assert found[1] == ("dark" if dark else "light")
    assert shown.stdout.count("main-svg") >= 3, "the pictures are drawn when it looks"
    assert json.loads(html.unescape(found[2])) == []
