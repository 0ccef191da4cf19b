"""`mpt studies`: a row a study, notes below, at 80 columns."""

from __future__ import annotations

from pathlib import Path

import pytest
from stored import Stored

from mpt.cli.main import main


def test_notes_stand_below_the_table_in_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    partial = "partial: 8 of 20 target tasks chosen; 14 of 114 source tasks missing"
    stored = Stored(tmp_path)
    studies = [
        stored.study(partition="random_to_random", partial=partial),
        stored.study(partition="noncls_to_noncls", role="target", partial=partial),
        stored.study(partition="cls_to_cls"),
    ]
    assert main(["studies", str(tmp_path)]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0].split() == ["study", "what", "partition", "backbone", "seed", "points"]
    rows = [line.split()[0] for line in lines[2:5]]
    assert sorted(rows) == sorted(one.id for one in studies)
    # said once, of both, and not a word a line
    ids = [row for row in rows if row != studies[2].id]
    assert " ".join(lines[5:]) == f"{', '.join(ids)}: {partial}"
    assert len(lines) == 7
