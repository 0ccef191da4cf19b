"""The benchmark of the database runs; its numbers are for people."""

from __future__ import annotations

from pathlib import Path

from scaling.store import measure


def test_the_benchmark_of_the_database_measures_what_it_says(tmp_path: Path) -> None:
    found = measure(tmp_path, 2500)
    assert found["runs"] == 2500
    assert found["points"] == 25
    # of this size no more than a few empty pages are added to what 100 000 runs take each
    assert found["bytes a run on disk"] <= 1200
    assert all(value is None or value >= 0 for value in found.values())
