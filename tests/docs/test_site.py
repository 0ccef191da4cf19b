"""The site of the documentation: built strictly, with every public name in its reference."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from pages import DOCS, ROOT

import mpt

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. Any warning, such as a link into nowhere, ends the build."""
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1700
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def test_every_page_is_in_the_site(site: Path) -> None:
    sources = {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")}
    assert sources
    assert [path for path in sources if not (site / path).is_file()] == []


def test_the_reference_shows_the_docstring_of_every_public_name(site: Path) -> None:
    """By its address, and by the first words of what it says."""
    page = (site / "reference.html").read_text(encoding="utf-8")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page))
    for name in mpt.__all__:
        module, _, attribute = mpt._WHERE[name].partition(":")
        thing = getattr(importlib.import_module(module), attribute)
        assert f'id="{module}.{attribute}"' in page, name
        words = re.sub(r"[`*<>]", "", thing.__doc__.splitlines()[0])
        assert words[:30] in text, (name, words)


def test_a_page_asks_no_other_machine_for_anything(site: Path) -> None:
    page = (site / "index.html").read_text(encoding="utf-8")
    loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', page)
    assert loaded == []


def test_the_extra_for_documentation_is_pinned_and_part_of_the_one_for_developers() -> None:
    assert EXTRAS["docs"]
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", row) for row in EXTRAS["docs"])
    assert set(EXTRAS["docs"]) <= set(EXTRAS["dev"])
