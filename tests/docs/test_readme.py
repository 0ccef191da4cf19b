"""The README keeps its promises: short, two commands at once, links that lead somewhere."""

from __future__ import annotations

import re

from pages import ROOT, blocks, commands

README = ROOT / "README.md"
LINES = README.read_text(encoding="utf-8").splitlines()


def test_it_is_short_and_its_first_line_is_one_sentence() -> None:
    assert len(LINES) <= 120
    assert LINES[0].startswith("# mpt: ")
    assert "." not in LINES[0]


def test_search_and_test_are_shown_within_fifteen_lines() -> None:
    first = blocks(README)[0]
    assert first.line + len(first.text.splitlines()) + 1 <= 15
    assert commands(first.text) == ["make search", "make test"]


def test_every_link_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)#]+)", "\n".join(LINES))
    assert len(links) > 15
    absent = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert absent == []


def test_the_number_of_protocol_rows_is_the_protocols() -> None:
    (claimed,) = re.findall(r"\[(\d+) rows\]\(docs/recipe\.md\)", "\n".join(LINES))
    rows = re.findall(r"^\| \d+ \|", (ROOT / "docs" / "recipe.md").read_text(), re.MULTILINE)
    assert int(claimed) == len(rows)


def test_the_versions_of_the_comparison_are_those_that_are_pinned() -> None:
    (ray, optuna, peft) = re.findall(
        r"Of Ray Tune ([\d.]+), Optuna ([\d.]+) and PEFT ([\d.]+),", "\n".join(LINES)
    )[0]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for package, version in (("ray[default,tune]", ray), ("optuna", optuna), ("peft", peft)):
        assert f'"{package}=={version}.' in project


def test_it_says_what_was_never_tried() -> None:
    limits = "\n".join(LINES).partition("## Limits, plainly")[2]
    assert "GPU" in limits
    assert "macOS" in limits
    assert "embedded" in limits


def test_files_that_it_names_are_there() -> None:
    tree = "\n".join(LINES).partition("## Where things are")[2]
    for folder in re.findall(r"(?:^|     )(\w+)/ ", tree, re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder
