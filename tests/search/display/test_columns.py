"""Which settings have a column, and how their values are written."""

from __future__ import annotations

import dataclasses

import pytest
from display_toys import PLAN, job_of, maml_job, trial_of

from mpt.config import DownstreamConfig, StudyConfig, UpstreamConfig
from mpt.search.display.columns import Columns
from mpt.search.job import SearchJob, Suggestions
from mpt.study.domains import Domain
from mpt.study.spaces import Space, load_space
from mpt.study.specs import FineTuningConfig


def _maml(**changes: object) -> UpstreamConfig:
    return dataclasses.replace(UpstreamConfig(method="maml"), **changes)  # type: ignore[arg-type]


def test_the_learning_rates_stand_there_even_if_all_trials_have_the_same() -> None:
    columns = Columns(job_of(trial_of(), trial_of(rungs=(1,))))
    assert columns.names == ["inner_lr", "outer_lr"]
    assert columns.of(trial_of()) == ["3e-05", "0.5"]


def test_multitask_learning_has_no_inner_rate_to_show() -> None:
    many = [trial_of(UpstreamConfig(method="multitask", batch_size=n)) for n in (4, 8)]
    assert Columns(job_of(*many)).names == ["outer_lr", "batch_size"]


def test_a_method_without_an_inner_loop_shows_none_of_its_settings_beside_one_with() -> None:
    learned = trial_of(UpstreamConfig(method="multitask", inner_lr=0.7, inner_steps=9))
    columns = Columns(job_of(trial_of(), trial_of(_maml(inner_steps=3)), learned))
    assert columns.names == ["method", "inner_lr", "outer_lr", "inner_steps"]
    assert columns.of(learned) == ["multitask", "–", "0.5", "–"]


def test_fine_tuning_has_no_upstream_settings_at_all() -> None:
    tuned = trial_of(FineTuningConfig(downstream=DownstreamConfig()), rungs=(0,))
    columns = Columns(job_of(trial_of(), tuned))
    assert columns.of(tuned)[0] == "fine_tuning"
    assert set(columns.of(tuned)[1:]) == {"–"}
    alone = Columns(job_of(tuned))
    assert alone.names == []
    assert alone.of(tuned) == []


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        (
            "partition",
            {"study": StudyConfig(partition="qa_to_qa")},
            ("random_to_random", "qa_to_qa"),
        ),
        ("backbone", {"study": StudyConfig(backbone="google/t5-base")}, ("embedded", "t5-base")),
        ("backbone", {"study": StudyConfig(backbone="/models/mine/")}, ("embedded", "mine")),
        ("sources", {"source_set": "12"}, ("all", "12")),
        ("source_shots", {"source_shots": 32}, ("own", "32")),
        ("source_shots", {"source_shots": 0}, ("own", "all")),
        ("target_shots", {"target_shots": 64}, ("own", "64")),
    ],
)
def test_what_differs_between_studies_has_a_column_of_its_own(
    name: str, changes: dict[str, object], words: tuple[str, str]
) -> None:
    first, second = trial_of(), trial_of(**changes)
    columns = Columns(job_of(first, second))
    assert columns.names == [name, "inner_lr", "outer_lr"]
    assert (columns.of(first)[0], columns.of(second)[0]) == words
    assert name not in Columns(job_of(second)).names


@pytest.mark.parametrize("name", ["inner_steps", "batch_size", "items_per_step"])
def test_what_differs_between_trials_has_a_column_of_its_own(name: str) -> None:
    first, second = trial_of(_maml(**{name: 2})), trial_of(_maml(**{name: 5}))
    columns = Columns(job_of(first, second))
    assert columns.names == ["inner_lr", "outer_lr", name]
    assert (columns.of(first)[2], columns.of(second)[2]) == ("2", "5")


def test_settings_of_a_registered_method_have_columns_too() -> None:
    """Two of its settings, of which one is the same in all trials."""
    extra = [(("damping", value), ("warmth", 2.0)) for value in (0.25, 1e-7)]
    trials = [trial_of(_maml(extra=pair)) for pair in extra]
    columns = Columns(job_of(*trials))
    assert columns.names == ["inner_lr", "outer_lr", "damping"]
    assert [columns.of(trial)[2] for trial in trials] == ["0.25", "1e-07"]


def test_without_settings_only_studies_and_methods_are_told_apart() -> None:
    job = job_of(trial_of(), trial_of(_maml(outer_lr=9.0)), trial_of(source_set="12"))
    assert Columns(job, settings=False).names == ["sources"]


def _searching(space: Space) -> SearchJob:
    search = Suggestions(space=space, plan=PLAN, count=7, seed=0)
    return dataclasses.replace(maml_job(), trials=(search.first,), suggestions=search)


def test_a_search_that_chooses_has_columns_for_what_it_searches() -> None:
    wide = _searching(load_space("reptile", "wide"))
    assert Columns(wide).names == ["inner_lr", "outer_lr", "inner_steps"]
    space = Space(
        name="toy",
        method="maml",
        title="batches",
        source="",
        domains=(Domain(name="batch_size", values=(2, 4)),),
        rungs=(2,),
        fixed={},
        first={"batch_size": 2},
    )
    assert Columns(_searching(space)).names == ["inner_lr", "outer_lr", "batch_size"]


def test_numbers_are_written_with_four_digits() -> None:
    trial = trial_of(_maml(inner_lr=0.123456, outer_lr=1e-9))
    assert Columns(job_of(trial)).of(trial) == ["0.1235", "1e-09"]


def test_columns_are_as_wide_as_their_longest_word() -> None:
    name = "a-backbone-with-a-very-long-name"
    trials = trial_of(), trial_of(study=StudyConfig(backbone=f"google/{name}"))
    columns = Columns(job_of(*trials))
    lines = [columns.line(words) for words in (columns.names, *map(columns.of, trials))]
    assert {len(line) for line in lines} == {len(name) + 2 + 11 + 11}
    assert [line.split() for line in lines] == [columns.names, *map(columns.of, trials)]
    # flush right: every word ends where its head does
    assert lines[1].index("embedded") + len("embedded") == lines[2].index(name) + len(name)


def test_a_line_needs_a_word_for_every_column() -> None:
    columns = Columns(maml_job())
    assert columns.line(["x", "y"]) == f"{'x':>11}{'y':>11}"
    with pytest.raises(ValueError, match="zip"):
        columns.line(["x"])
