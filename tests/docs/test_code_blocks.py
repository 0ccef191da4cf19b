"""Every Python block of the documentation is run, page by page, as a reader would type it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from children import environment
from pages import DOCS, ROOT, Block, blocks, commands, name_of, pages, patched

ADD = DOCS / "add"
HANGS = 1800
"""Seconds after which a page counts as hanging; it takes half a minute on two quiet cores."""
WITH_PYTHON = [page for page in pages() if any(b.language == "python" for b in blocks(page))]

SLOW = ("docs/python.md", "docs/add/method.md")
"""Pages whose searches `make test` runs elsewhere: the README's lines, and a method of one's own
in tests/test_wheel.py."""
TOGETHER = ("README.md", "docs/add/gym.md", "docs/add/backbone.md")
"""Pages that are read in one process, in this order: to import what they need takes seconds.

The last one changes what its process knows of backbones.
"""

# Of these pages only the README's search is computed by Ray. The searches and replays that follow
# are computed where they stand, and what the page types finds all results there.
COMPUTED = """
import mpt.api.running
import mpt.cli.search
from stored import compute

def _compute_first(module, those):
    carry_out = module.carry_out
    def computed(job, *arguments, **options):
        if those(*arguments, **options):
            compute(job)
        return carry_out(job, *arguments, **options)
    module.carry_out = computed
_compute_first(mpt.cli.search, lambda execution, flags: not flags.dry_run)
_compute_first(mpt.api.running, lambda where, *, table, **_: table == "cells")
"""
RUN = """
import os, runpy, sys
for folder in sys.argv[1:]:
    os.chdir(folder)
    sys.path[0] = folder
    runpy.run_path("page.py", run_name="__main__")
"""

# The blocks stand as they are printed; only sizes are cut, so that a page takes seconds, and its
# searches and replays share one Ray.
SMALL = """
import dataclasses
import mpt
import mpt.api.running as running
import mpt.search.cost.probe as probe
from mpt.search.ray.session import one_ray

_as_it_was = mpt.Study, running.search, running.replay
def _smaller():
    study, search, replay = _as_it_was
    def small_study(**options):
        options.pop("tuning_steps", None)
        return study(**{**options, "smoke": True})
    def small_search(study, space, **options):
        if "num_samples" in options:
            options["num_samples"] = 1
        return search(study, dataclasses.replace(space, rungs=(1, 2)), **options)
    def small_replay(best, **options):
        if isinstance(best, mpt.ReplayRequest):
            best = dataclasses.replace(best, smoke=True, partitions=("cls_to_cls",))
            return replay(best, **options)
        return replay(best, **{**options, "partitions": "nonpara_to_para", "smoke": True})
    mpt.Study, running.search, running.replay = small_study, small_search, small_replay
    probe.PROBE_S = 0.2
_smaller()
_shared = one_ray()
_shared.__enter__()
"""
SMALL_END = """
_shared.__exit__(None, None, None)
mpt.Study, running.search, running.replay = _as_it_was
"""
# What a page types: its script does it where it stands. A command of `mpt` is called in its
# process, as each process takes seconds to import what a command needs.
TYPED = """
import shlex, subprocess, sys
import mpt.search.cost.probe as _probe
from mpt.cli.main import main as _mpt
_probe.PROBE_S = 0.2
def _typed(line):
    program, *words = shlex.split(line)
    if program == "mpt":
        code = _called(words)
    else:
        assert program == "python", line
        code = subprocess.run([sys.executable, *words]).returncode
    assert code == 0, f"{line}: exit code {code}"
def _called(words):
    try:
        return _mpt(words)
    except SystemExit as end:
        return end.code or 0
"""


SCRIPTS = [
    [page for name in TOGETHER for page in WITH_PYTHON if name_of(page) == name],
    *([page] for page in WITH_PYTHON if name_of(page) not in TOGETHER),
]


def script_of(page: Path) -> str:
    """Return one script that does what a page shows; commands only on the pages of docs/add."""
    parts = [TYPED] if page.parent == ADD else [SMALL]
    for block in blocks(page):
        if block.language == "python" and not block.title:
            parts.append(f"# {name_of(page)}:{block.line}\n{block.text}")
        elif block.language == "sh" and page.parent == ADD:
            parts += [f"_typed({line!r})\n" for line in commands(block.text)]
    return "\n".join([*parts, *([] if page.parent == ADD else [SMALL_END])])


def lay_out(page: Path, folder: Path) -> Path:
    """Write the script of a page and the files that it names; return whose package it imports.

    A page that changes the package gets a copy of it.
    """
    folder.mkdir()
    (folder / "page.py").write_text(script_of(page), encoding="utf-8")
    source = ROOT
    named = [block for block in blocks(page) if block.title]
    for block in named:
        if block.language == "diff":
            source = folder / "checkout"
            _copied(source)
            _apply(block, source)
        else:
            path = folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
    return source


def _copied(folder: Path) -> None:
    for part in ("mpt", "search_spaces"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, folder / part, ignore=ignored, dirs_exist_ok=True)


def _apply(block: Block, checkout: Path) -> None:
    (name,) = (
        line.removeprefix("+++ b/") for line in block.text.splitlines() if line.startswith("+++ ")
    )
    path = checkout / name
    path.write_text(patched(path.read_text(encoding="utf-8"), block.text), encoding="utf-8")


def _script_param(pages: list[Path]) -> Any:
    names = [name_of(page) for page in pages]
    return pytest.param(pages, id=" ".join(names), marks=[pytest.mark.slow] * (names[0] in SLOW))


@pytest.mark.timeout(HANGS)
@pytest.mark.parametrize("pages", [*map(_script_param, SCRIPTS)])
def test_the_blocks_of_a_page_run_in_their_order(pages: list[Path], tmp_path: Path) -> None:
    sources = [lay_out(page, tmp_path / str(number)) for number, page in enumerate(pages)]
    folders = [str(tmp_path / str(number)) for number in range(len(pages))]
    assert len(set(sources)) == 1
    done = subprocess.run(
        [sys.executable, "-c", COMPUTED * (len(pages) > 1) + RUN, *folders],
        cwd=tmp_path,
        env=environment(sources[0], ROOT / "tests", OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=HANGS - 20,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_a_hunk_that_does_not_fit_is_an_error() -> None:
    diff = "--- a/x\n+++ b/x\n@@ -1,2 +1,3 @@\n one\n+new\n two\n"
    assert patched("one\ntwo\nthree\n", diff) == "one\nnew\ntwo\nthree\n"
    with pytest.raises(AssertionError, match="0 places fit"):
        patched("one\nthree\n", diff)
    with pytest.raises(AssertionError, match=r"\[2, 3\] lines"):
        patched("one\ntwo\n", diff.replace("1,2", "1,3"))
