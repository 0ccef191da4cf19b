"""A folder of synthetic files of scores; puts this folder on the path."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_tables import Synthetic, lines


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of two settings: MAML gains 30 % on 12 tasks and, in the other, on 4."""
    made = Synthetic(1)
    effects = {"maml": 0.3, "reptile": 0.0, "multitask": 0.02}
    where = tmp_path / "scores"
    where.mkdir()
    for name, tasks in (("qa_to_qa", 12), ("nonpara_to_para", 4)):
        content = lines(made.setting(effects, partition=name, tasks=tasks))
        (where / f"{name}.csv").write_text(content, encoding="utf-8")
    return where
