"""The closing tables of jobs over many settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from display_toys import console_of, job_of, missing_of, point_of, rows_of, stop_of, trial_of

from mpt.config import StudyConfig, UpstreamConfig
from mpt.search.display.setting_display import CellDisplay, SettingDisplay
from mpt.search.leaderboard import PointStatus
from mpt.trial.score import BAD_SCORE

LOW, HIGH = (trial_of(UpstreamConfig(inner_lr=lr)) for lr in (2e-5, 3e-5))
REPTILE = trial_of(UpstreamConfig(method="reptile"))
QA = trial_of(study=StudyConfig(partition="qa_to_qa"))
BASE = trial_of(study=StudyConfig(backbone="google/t5-base-lm-adapt"))
SUMMARY = "best point of every setting and method"


def _printed(
    kind: type[SettingDisplay], points: Sequence[PointStatus], partial: str | None = None
) -> str:
    """Return what is printed at the end of a job of these points."""
    console, text = console_of(130)
    trials = dict.fromkeys(point.trial for point in points)
    more = [] if partial is None else [trial_of(partial=partial)]
    kind(job_of(*trials, *more), console=console).ranking(points)
    return text()


def _sections(text: str) -> dict[str, list[str]]:
    """Return title → the lines under it."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if (" on " in line and ", backbone " in line) or line == SUMMARY:
            assert line not in found
            lines = found[line] = []
        lines.append(line)
    return found


def _summary(text: str) -> list[list[str]]:
    """Return the words of the last table's rows."""
    lines = _sections(text)[SUMMARY]
    rule = next(place for place, line in enumerate(lines) if set(line) == {" ", "─"})
    return [line.split() for line in lines[rule + 1 :] if line.strip()]


def test_every_setting_and_method_is_ranked_by_itself_in_the_jobs_order() -> None:
    scored = ((LOW, 1.0), (REPTILE, 9.0), (HIGH, 2.0), (QA, 5.0), (BASE, 7.0))
    text = _printed(SettingDisplay, [point_of(trial, 2500, arg) for trial, arg in scored])
    sections = _sections(text)
    assert list(sections) == [
        "MAML on random_to_random, backbone embedded",
        "REPTILE on random_to_random, backbone embedded",
        "MAML on qa_to_qa, backbone embedded",
        "MAML on random_to_random, backbone google/t5-base-lm-adapt",
        SUMMARY,
    ]
    first, *others, _ = ("\n".join(lines) for lines in sections.values())
    assert [(row[0], row[7]) for row in rows_of(first)] == [("1", "+2.00"), ("2", "+1.00")]
    assert [[row[7] for row in rows_of(part)] for part in others] == [
        ["+9.00"],
        ["+5.00"],
        ["+7.00"],
    ]
    for part in (first, *others):
        assert part.count("\nbest     ") == part.count("\nworst    ") == 1


def test_the_best_of_each_are_listed_in_the_end_and_not_ranked() -> None:
    points = [point_of(trial, 2500, 1.0) for trial in (LOW, REPTILE)]
    points += [point_of(HIGH, 2500, -4.0), point_of(HIGH, 5000, 2.0), point_of(QA, 2500, 5.0)]
    text = _printed(SettingDisplay, points)
    assert [row[:6] for row in _summary(text)] == [
        ["maml", "random_to_random", "3e-05", "0.5", "5000", "+2.00"],
        ["reptile", "random_to_random", "3e-05", "0.5", "2500", "+1.00"],
        ["maml", "qa_to_qa", "3e-05", "0.5", "2500", "+5.00"],
    ]
    assert "rank" not in "\n".join(_sections(text)[SUMMARY])


def test_a_setting_without_a_point_says_so_and_is_not_in_the_list() -> None:
    text = _printed(SettingDisplay, [point_of(LOW, 2500, 1.0), missing_of(QA, 2500)])
    lines = _sections(text)["MAML on qa_to_qa, backbone embedded"]
    assert [line for line in lines[1:] if line] == ["no point so far"]
    assert [row[0] for row in _summary(text)] == ["random_to_random"]


def test_a_setting_whose_points_have_no_arg_is_listed_with_the_reason() -> None:
    changes: dict[str, Any] = {"gain": None, "score": BAD_SCORE, "note": "diverged at step 7"}
    points = [point_of(LOW, 2500, 1.0), point_of(QA, 2500, 1.0, **changes)]
    text = _printed(SettingDisplay, points)
    lines = _sections(text)["MAML on qa_to_qa, backbone embedded"]
    assert "no point has an ARG: there is no best one" in lines
    assert "note: diverged at step 7" in lines
    assert [row[4] for row in _summary(text)] == ["+1.00", "diverged"]


def test_a_stop_stands_under_the_ranking_of_its_own_setting() -> None:
    points = [point_of(LOW, 2500, 1.0), point_of(QA, 2500, 1.0)]
    points.append(missing_of(QA, 5000, stopped=stop_of(QA.name)))
    sections = _sections(_printed(SettingDisplay, points))
    told = [name for name, lines in sections.items() if any("stopped" in line for line in lines)]
    assert told == ["MAML on qa_to_qa, backbone embedded"]


def test_cells_are_listed_in_the_jobs_order_without_ranks() -> None:
    scored = ((LOW, 1.0), (REPTILE, 9.0), (QA, 5.0))
    points = [point_of(trial, 2500, arg) for trial, arg in scored]
    text = _printed(CellDisplay, [*points, missing_of(BASE, 2500)])
    assert "3 of 4 cells" in text.splitlines()
    rows = [line.split() for line in text.splitlines() if " 2500 " in line]
    assert [row[:4] for row in rows] == [
        ["maml", "random_to_random", "embedded", "2500"],
        ["reptile", "random_to_random", "embedded", "2500"],
        ["maml", "qa_to_qa", "embedded", "2500"],
    ]
    for word in ("rank", "best", "worst", "inner_lr", "outer_lr"):
        assert word not in text


def test_cells_of_one_row_differ_by_what_the_study_says_not_by_settings() -> None:
    """A replay takes the best settings of each cell: they were said when they were found."""
    text = _printed(CellDisplay, [point_of(LOW, 2500, 1.0), point_of(HIGH, 5000, 2.0)])
    head = next(line.split() for line in text.splitlines() if "steps" in line)
    assert head[0] == "steps"


def test_what_cells_lack_is_explained_once_under_them() -> None:
    note = "* ARG over 1 of 2 tasks"
    points = [point_of(LOW, 2500, None), point_of(QA, 2500, None), point_of(BASE, 2500, 1.0)]
    points.append(point_of(REPTILE, 2500, 1.0, note=note))
    lines = _printed(CellDisplay, points, partial="partial: 2 of 9 tasks").splitlines()
    assert lines.count("note: no relative gain on a: the baseline scores 0") == 1
    assert lines.count(f"note: {note}") == 1
    assert lines.count("partial: 2 of 9 tasks") == 1


def test_what_a_setting_left_out_stands_under_its_own_ranking_only() -> None:
    label = "partial: 1 of 22 source tasks missing"
    lacking = trial_of(study=StudyConfig(partition="qa_to_qa"), partial=label)
    text = _printed(SettingDisplay, [point_of(LOW, 2500, 1.0), point_of(lacking, 2500, 2.0)])
    where = {title for title, lines in _sections(text).items() if label in lines}
    assert where == {"MAML on qa_to_qa, backbone embedded"}
