"""Best points: the argmax over a search's points, by method, backbone and setting."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from stored import Stored, compute

from mpt.config import PromptConfig, StudyConfig, UpstreamConfig
from mpt.errors import DataError, UsageError
from mpt.replay.best import Best, BestPoints, Searched
from mpt.replay.epochs import epoch_steps
from mpt.replay.replay import plan_replay
from mpt.replay.request import Request
from mpt.search.job import SearchJob
from mpt.store.database import open_results
from mpt.study.grids import source_rows
from mpt.study.study import StudyPlan, open_study, plan_study
from mpt.trial.store import TrialStore

MAML = UpstreamConfig(method="maml", inner_lr=0.1)
OTHER = UpstreamConfig(method="maml", inner_lr=0.2)


def _plan(**changes: Any) -> StudyPlan:
    return StudyPlan(config=StudyConfig(**changes), source=(), scored=(), partial=None)


def _best(results: Path, method: str = "maml", /, **changes: Any) -> Best | None:
    searched = {name: changes.pop(name) for name in tuple(changes) if name in FIELDS}
    found = BestPoints(Searched(results=results, **searched))
    return found.best(method, _plan(**changes))


FIELDS = {field.name for field in dataclasses.fields(Searched)} - {"backbone"}


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return Stored(tmp_path)


# --- a search that was really run ---


@pytest.fixture(scope="module")
def searched(
    toy_checkpoint: Path, toy_gym: Path, tmp_path_factory: pytest.TempPathFactory
) -> SearchJob:
    """A finished toy search of two trajectories with three rungs."""
    from search_toys import toy_job

    job = toy_job(toy_checkpoint, toy_gym, tmp_path_factory.mktemp("searched"))
    compute(job)
    return job


def test_the_best_point_is_the_argmax_with_its_steps_and_settings(searched: SearchJob) -> None:
    with open_results(searched.results, read_only=True) as database:
        points = [point for point in database.points() if point.method == "maml"]
        scores = TrialStore(database).scores([point.key for point in points])
        (study,) = database.studies()
    top = max(points, key=lambda point: scores[point.key].score)
    best = BestPoints(Searched(results=searched.results)).best("maml", searched.plans[0])
    assert best is not None
    assert best.upstream.rungs == (top.steps,)
    assert dataclasses.asdict(best.upstream.config) == {**top.settings, "extra": ()}
    assert best.origin.startswith(
        f"best of 6 points on random_to_random in {searched.results}, study {study.id}, "
        f"ARG {scores[top.key].score:+.2f} ["
    )


def test_a_local_backbone_is_known_by_its_absolute_path(
    searched: SearchJob, toy_checkpoint: Path, toy_gym: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from search_toys import toy_study

    monkeypatch.chdir(toy_checkpoint.parent)
    plan = plan_study(toy_study(Path(toy_checkpoint.name), toy_gym))
    assert BestPoints(Searched(results=searched.results)).best("maml", plan) is not None


# --- MAML's settings for others ---


def _adopting(stored: Stored, *methods: str, adopt: bool = True) -> Request:
    return Request(
        results=stored.results,
        searched=stored.results,
        adopt=adopt,
        partitions=("random_to_random",),
        methods=methods,
    )


def test_fomaml_and_reptile_adopt_the_three_settings_of_mamls_best_point(stored: Stored) -> None:
    maml = UpstreamConfig(method="maml", inner_lr=7.0, outer_lr=0.3, batch_size=2)
    own = UpstreamConfig(method="fomaml", inner_lr=0.5, outer_lr=0.7)
    study = stored.study()
    stored.point(study, maml, 30, 5.0)
    stored.point(study, OTHER, 60, 4.0)
    stored.point(study, own, 90, 9.0)
    replay = plan_replay(_adopting(stored, "fomaml", "reptile"))
    found = {trial.method: trial.upstream for trial in replay.job.trials}
    for method, inner_steps in (("fomaml", 1), ("reptile", 4)):
        config = found[method].config
        assert isinstance(config, UpstreamConfig)
        assert (config.inner_lr, config.outer_lr, found[method].rungs) == (7.0, 0.3, (30,))
        # all else is the method's own
        assert (config.inner_steps, config.batch_size) == (inner_steps, 4)
    assert "rates and steps adopted from maml, best of 2 points on random" in replay.notes[0]
    alone = plan_replay(_adopting(stored, "fomaml", adopt=False)).job.trials[0].upstream
    assert (alone.config, alone.rungs) == (own, (90,))


def test_adoption_needs_a_search_of_maml(stored: Stored) -> None:
    stored.point(stored.study(), UpstreamConfig(method="fomaml"), 90, 9.0)
    with pytest.raises(UsageError, match="holds no finished search of maml on embedded"):
        plan_replay(_adopting(stored, "fomaml"))
    with pytest.raises(UsageError, match="say with --from where they are"):
        dataclasses.replace(_adopting(stored, "fomaml"), searched=None)


# --- methods that were not searched ---


def test_what_was_searched_is_replayed_and_the_rest_is_named(stored: Stored) -> None:
    stored.point(stored.study(), MAML, 2, 5.0)
    request = Request(
        results=stored.results, searched=stored.results, partitions=("qa_to_qa", "cls_to_cls")
    )
    replay = plan_replay(request)
    methods = {trial.method for trial in replay.job.trials}
    assert methods == {"maml", "fine_tuning"}
    assert len(replay.job.trials) == 4
    (left,) = (note for note in replay.notes if note.startswith("left out"))
    assert left == (
        "left out, since no search of it is there: fomaml on embedded, reptile on embedded, "
        "multitask on embedded"
    )
    # a method that was asked for is not left out
    with pytest.raises(UsageError, match="holds no finished search of fomaml on embedded; search"):
        plan_replay(dataclasses.replace(request, methods=("maml", "fomaml")))
    # and neither is everything of a backbone that was
    with pytest.raises(UsageError, match="search of maml on embedded-bart, fomaml on embedded-b"):
        plan_replay(dataclasses.replace(request, backbones=("embedded", "embedded-bart")))


# --- which points count ---


def test_the_first_of_equal_points_by_key_is_taken(stored: Stored) -> None:
    study = stored.study()
    keys = {stored.point(study, config, 2, 5.0): config for config in (OTHER, MAML)}
    best = _best(stored.results)
    assert best is not None
    assert best.upstream.config == keys[min(keys)]


def test_another_method_or_backbone_has_no_best_point(stored: Stored) -> None:
    stored.point(stored.study(), MAML, 2, 5.0)
    assert _best(stored.results, "fomaml") is None
    assert _best(stored.results, backbone="embedded-bart") is None


def test_a_setting_that_was_searched_has_its_own_best_and_others_the_common_one(
    stored: Stored,
) -> None:
    stored.point(stored.study(), MAML, 2, 5.0)
    stored.point(stored.study(partition="qa_to_qa"), OTHER, 4, 1.0)

    def best(partition: str) -> tuple[Any, ...]:
        one = _best(stored.results, partition=partition)
        assert one is not None
        return one.upstream.config, one.upstream.rungs

    assert best("qa_to_qa") == (OTHER, (4,))
    assert best("cls_to_cls") == best("random_to_random") == (MAML, (2,))


@pytest.mark.parametrize(
    "changes",
    [
        {"role": "target"},
        {"source_set": "12"},
        {"source_shots": 32},
        {"target_shots": "all"},
        {"smoke": True, "partial": "partial: smoke, 3 source tasks"},
        {"partial": "partial: 1 of 3 source tasks missing"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_points_of_replays_sweeps_smoke_runs_and_partial_searches_do_not_count(
    stored: Stored, changes: dict[str, Any]
) -> None:
    stored.point(stored.study(), MAML, 2, 1.0)
    stored.point(stored.study(partition="qa_to_qa", **changes), OTHER, 4, 9.0)
    best = _best(stored.results, partition="qa_to_qa")
    assert best is not None
    assert best.upstream.config == MAML


def test_points_that_diverged_or_have_no_arg_do_not_count(stored: Stored) -> None:
    study = stored.study()
    stored.point(study, MAML, 2, None)
    stored.point(study, OTHER, 2, 5.0, runs=())  # without runs no task has a score
    assert _best(stored.results) is None


def test_smoke_points_serve_a_smoke_replay_and_partial_ones_a_partial_replay(
    stored: Stored,
) -> None:
    stored.point(stored.study(smoke=True, partial="partial: smoke"), MAML, 2, 1.0)
    stored.point(stored.study(partial="partial: 1 of 3 source tasks missing"), OTHER, 2, 1.0)
    for wanted, config in (("smoke", MAML), ("partial", OTHER)):
        best = _best(stored.results, "maml", **{wanted: True})
        assert best is not None
        assert best.upstream.config == config
        assert "; partial: " in best.origin
    assert _best(stored.results) is None


def test_a_refusal_says_which_searches_do_not_count(stored: Stored) -> None:
    study = stored.study(smoke=True, partial="partial: smoke")
    stored.point(study, MAML, 2, 1.0)
    request = Request(results=stored.results, searched=stored.results, methods=("maml",))
    with pytest.raises(
        UsageError,
        match=rf"no finished search of maml on embedded \(smoke runs and searches that left tasks "
        rf"out do not count: {study.id} \(smoke run\)\); search them first",
    ):
        plan_replay(request)


def test_what_differs_from_the_search_is_said(stored: Stored) -> None:
    study = stored.study(settings={"prompt": {"length": 3}})
    stored.point(study, MAML, 2, 1.0)
    best = _best(stored.results, prompt=PromptConfig(length=9))
    assert best is not None
    assert best.origin.endswith("searched with 3 prompt tokens, replayed with 9")


def test_settings_of_another_program_are_an_error_with_the_points_name(stored: Stored) -> None:
    settings = {**dataclasses.asdict(MAML), "momentum": 1}
    stored.point(stored.study(), MAML, 2, 1.0, settings=settings)
    with pytest.raises(DataError, match=r"point [0-9a-f]{64}: its settings .*momentum"):
        _best(stored.results)


def test_the_points_of_the_searched_backbone_serve_another_one_and_that_is_said(
    stored: Stored,
) -> None:
    stored.point(stored.study(), MAML, 2, 1.0)
    found = BestPoints(Searched(results=stored.results, backbone="embedded"))
    own = found.best("maml", _plan())
    served = found.best("maml", _plan(backbone="embedded-bart"))
    assert own is not None
    assert served is not None
    assert served.upstream == own.upstream
    assert served.origin == f"{own.origin}; searched on embedded"


def test_an_absent_results_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must be the results directory of a search"):
        _best(tmp_path / "absent")


def test_a_database_can_be_given_in_place_of_a_directory(stored: Stored, tmp_path: Path) -> None:
    stored.point(stored.study(), MAML, 2, 1.0)
    place = str(stored.results / "mpt.db")
    common: dict[str, Any] = {
        "results": tmp_path / "replay",
        "methods": ("maml",),
        "partitions": ("qa_to_qa",),
    }
    for searched in (place, f"sqlite:///{place}"):
        replay = plan_replay(Request(**common, searched=searched))
        assert [trial.upstream.config for trial in replay.job.trials] == [MAML]
        assert f"random_to_random in {place}" in replay.notes[0]
    # the database of the results serves their own directory
    (tmp_path / "replay").mkdir()
    own = Request(**common, searched=tmp_path / "replay", store=place)
    assert [trial.upstream.config for trial in plan_replay(own).job.trials] == [MAML]


# --- several studies ---

DIFFERENT: dict[str, dict[str, Any]] = {
    "gym": {"gym": "/data/other", "data": "e"},
    "train seed": {"train_seed": 43},
    "data seeds": {"seeds": (42, 87)},
    "precision": {"precision": "bfloat16"},
    "learning rates": {"lrs": (0.5, 0.3)},
    "prompt length": {"settings": {"prompt": {"length": 9}}},
    "score code": {"code": 0},
    "scored tasks v as of": {"data": "edited"},
    "weights": {"backbone_digest": "c" * 64},
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_two_studies_that_cannot_be_compared_are_listed_with_what_tells_them_apart(
    stored: Stored, what: str
) -> None:
    first, second = stored.study(), stored.study(**DIFFERENT[what])
    stored.point(first, MAML, 2, 1.0)
    stored.point(second, OTHER, 4, 9.0)
    with pytest.raises(UsageError) as caught:
        _best(stored.results)
    text = str(caught.value)
    assert "\n" not in text
    assert "holds 2 studies of maml on embedded that cannot be compared; choose wit" in text
    assert re.search(rf"{first.id} \([^)]*{what} [^)]*\), {second.id} \([^)]*{what} ", text)
    for wanted, config in ((first.id, MAML), (second.key, OTHER)):
        best = _best(stored.results, study=wanted)
        assert best is not None
        assert best.upstream.config == config


def test_a_protocol_stands_for_its_studies_of_all_partitions(stored: Stored) -> None:
    ours = [stored.study(partition=name) for name in ("random_to_random", "qa_to_qa")]
    other = stored.study(train_seed=43)
    for steps, study in enumerate((*ours, other), start=1):
        stored.point(study, MAML, steps, 1.0)
    with pytest.raises(UsageError, match=rf"protocol {ours[0].protocol[:8]} \(train seed 42\), "):
        _best(stored.results)
    for partition, steps in (("random_to_random", 1), ("qa_to_qa", 2)):
        best = _best(stored.results, study=ours[0].protocol[:8], partition=partition)
        assert best is not None
        assert best.upstream.rungs == (steps,)


@pytest.mark.parametrize("wanted", ["", "12345678", "{id}"])
def test_an_unknown_or_short_study_is_refused_with_those_that_there_are(
    stored: Stored, wanted: str
) -> None:
    study = stored.study()
    stored.point(study, MAML, 2, 1.0)
    short = wanted.format(id=study.id[:7])
    with pytest.raises(UsageError, match=rf"--study is '{short}', .*there are {study.id}"):
        _best(stored.results, study=short)


# --- multitask points that were searched in epochs ---


def test_epochs_stay_epochs_on_other_sources(toy_checkpoint: Path, toy_gym: Path) -> None:
    from search_toys import toy_study

    plan = plan_study(toy_study(toy_checkpoint, toy_gym))
    assert source_rows(plan) == 3 * 2 * 16
    fewer = dataclasses.replace(plan, source=plan.source[:1])
    # 96 rows in batches of 7 are 14 steps, 32 rows are 5
    assert epoch_steps(3, 7, plan) == 3 * 14
    assert epoch_steps(3, 7, fewer) == 3 * 5


@pytest.mark.parametrize(
    ("steps", "epochs", "why"),
    [
        ((28, 42), 2, "both points are whole epochs of 14 steps"),
        ((28, 43), None, "43 steps are no whole epochs, so steps were counted"),
    ],
)
def test_a_search_whose_every_point_is_whole_epochs_is_replayed_in_epochs(
    stored: Stored,
    toy_checkpoint: Path,
    toy_gym: Path,
    steps: tuple[int, int],
    epochs: int | None,
    why: str,
) -> None:
    from search_toys import toy_study

    plan = plan_study(toy_study(toy_checkpoint, toy_gym))
    items = open_study(plan).items
    study = stored.study(
        backbone=plan.config.backbone,
        gym=str(toy_gym),
        source=tuple((item.name, item.seed, item.digest) for item in items),
    )
    config = UpstreamConfig(method="multitask", batch_size=7)
    for number, arg in zip(steps, (9.0, 1.0), strict=True):
        stored.point(study, config, number, arg)
    found = BestPoints(Searched(results=stored.results))
    other = dataclasses.replace(plan, source=plan.source[:1])
    best = found.best("multitask", other)
    assert best is not None
    assert best.upstream.rungs == ((steps[0],) if epochs is None else (epochs * 5,)), why
    assert ("searched in epochs" in best.origin) == (epochs is not None)


def test_where_the_sources_files_have_changed_the_steps_stay(
    stored: Stored, toy_checkpoint: Path, toy_gym: Path
) -> None:
    from search_toys import toy_study

    plan = plan_study(toy_study(toy_checkpoint, toy_gym))
    source = tuple((item.name, item.seed, "another digest") for item in open_study(plan).items)
    study = stored.study(backbone=plan.config.backbone, gym=str(toy_gym), source=source)
    stored.point(study, UpstreamConfig(method="multitask", batch_size=7), 28, 9.0)
    fewer = dataclasses.replace(plan, source=plan.source[:1])
    best = BestPoints(Searched(results=stored.results)).best("multitask", fewer)
    assert best is not None
    assert best.upstream.rungs == (28,)
