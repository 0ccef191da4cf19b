from __future__ import annotations

from mpt.words import counted


def test_one_has_the_singular_and_every_other_number_the_plural() -> None:
    assert [counted(n, "task") for n in (0, 1, 2)] == ["0 tasks", "1 task", "2 tasks"]
    assert [counted(n, "study", "studies") for n in (1, 3)] == ["1 study", "3 studies"]
