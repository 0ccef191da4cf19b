"""Every table of a report is LaTeX that compiles, without a package."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from results_factory import Results, flat

from analysis.__main__ import main
from analysis.tables.render import escape_latex
from analysis.tables.table import FLAGS

LETTERS = re.compile(r"[A-Za-zÀ-ž]")
"""What LaTeX sets as it stands, of what is not ASCII: letters of European names."""


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The tables of a small report: a search, and a replay with two upstream seeds."""
    results = Results(tmp_path_factory.mktemp("results"))
    for seed in (42, 1042):
        for method, gain in (("maml", 1.2), ("multitask", 1.1)):
            point = {"settings": {"seed": seed}, "trajectory": f"{method} {seed}"}
            scores = flat({"a": 0.5 * gain, "b": 0.4 * gain})
            base = flat({"a": 0.5, "b": 0.04})
            results.point(method, "cls_to_cls", scores, base, point=point)
    for rate, gain in ((0.1, 1.1), (1.0, 1.3)):
        point = {"trajectory": f"t{rate}", "settings": {"inner_lr": rate, "outer_lr": 0.1}}
        place = ("maml", "random_to_random", flat({"v": 0.5 * gain}), flat({"v": 0.5}))
        results.point(*place, role="validation", point=point)
    out = tmp_path_factory.mktemp("out") / "report"
    words = ["--results", str(results.root), "--out", str(out), "--no-figures"]
    assert main(["report", *words]) == 0
    return sorted((out / "tables").glob("*.tex"))


def test_no_table_has_a_letter_that_latex_does_not_know(tables: list[Path]) -> None:
    """The mark of several upstream seeds was one, and no table that had it compiled."""
    assert len(tables) > 5
    texts = [path.read_text(encoding="utf-8") for path in tables]
    assert any("$^{n}$" in text for text in texts)
    strange = {one for text in texts for one in text if not one.isascii()}
    assert [one for one in strange if not LETTERS.match(one)] == []
    for flag in FLAGS.values():
        assert escape_latex(flag.mark).isascii()
    assert escape_latex("Nis\u030cova\u0301") == "Nišová"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_every_table_compiles(tables: list[Path], tmp_path: Path) -> None:
    body = "\n".join(rf"\input{{{path}}}\clearpage" for path in tables)
    text = rf"\documentclass{{article}}\begin{{document}}{body}\end{{document}}"
    (tmp_path / "all.tex").write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        cwd=tmp_path,
        capture_output=True,
        encoding="latin-1",
        check=False,
    )
    assert done.returncode == 0, "\n".join(
        line for line in done.stdout.splitlines() if line.startswith(("!", "l."))
    )
    assert (tmp_path / "all.pdf").stat().st_size > 10_000
