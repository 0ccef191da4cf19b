"""Who chooses trials: the list, Optuna's TPE with its study in the database, any searcher."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from mpt.config import StudyConfig
from mpt.errors import UsageError
from mpt.search.job import SearchJob, Suggestions
from mpt.search.ray.searchers import Counted, OptunaSearcher, TrialQueue
from mpt.search.ray.tuning import searcher_of
from mpt.search.suggested import open_optuna_study, study_name, suggested_before
from mpt.store.database import Database, database_url, open_results
from mpt.study.spaces import load_space
from mpt.study.specs import settings_of
from mpt.study.study import StudyPlan
from mpt.trial.score import BAD_SCORE

PLAN = StudyPlan(config=StudyConfig(), source=("s",), scored=("v",), partial=None)
FINISHED: Any = Searcher.FINISHED
Point = dict[str, Any]


def asked(name: str = "wide", count: int = 12, seed: int = 42, **changes: Any) -> Suggestions:
    space = load_space("maml", name)
    return Suggestions(space=space, plan=PLAN, count=count, seed=seed, **changes)


def score(point: Point) -> float:
    """A hill in log space with its top at inner 1e-2, outer 0.1."""
    inner, outer = math.log10(point["inner_lr"] / 1e-2), math.log10(point["outer_lr"] / 0.1)
    return 20.0 - inner**2 - 4 * outer**2


def rung(steps: int, value: float, **changes: Any) -> dict[str, Any]:
    common = {"score": value, "best": value, "training_iteration": 1}
    return {**common, "rung_steps": steps, **changes}


def run(searcher: Searcher, steps: int = 10**6) -> list[Point]:
    """Try what is suggested, one after the other."""
    done: list[Point] = []
    while len(done) < steps:
        name = f"trial-{len(done)}"
        point = searcher.suggest(name)
        if point is None or point == FINISHED:
            break
        searcher.on_trial_result(name, rung(2500, score(point) - 1))
        searcher.on_trial_complete(name, rung(5000, score(point)))
        done.append(dict(point))
    return done


# --- TPE ----------------------------------------------------------------------------------------


def test_tpe_starts_with_the_papers_best_point_and_stays_inside_the_ranges() -> None:
    of = asked()
    points = run(OptunaSearcher(of, None))
    assert len(points) == 12
    assert all(point not in points[:place] for place, point in enumerate(points))
    assert points[0] == {"inner_lr": 3e-5, "outer_lr": 0.5}
    assert of.space.trajectory(points[0]) == of.first.upstream
    for point in points:
        assert all(domain.holds(point[domain.name]) for domain in of.space.domains)


def test_tpe_finds_a_better_place_than_random_draws_do() -> None:
    # mean over seeds of what is tried after the start: TPE must go where the scores are
    learned, drawn = [], []
    for seed in range(4):
        of = asked(count=25, seed=seed)
        learned += [score(point) for point in run(OptunaSearcher(of, None))[10:]]
        drawn += [score(of.space.settings(one)) for one in of.space.sample(25, seed)[10:]]
    assert np.mean(learned) > np.mean(drawn) + 3


def test_a_listed_space_is_gone_through_once_and_then_there_is_nothing_more() -> None:
    of = asked("paper", count=12)
    points = run(OptunaSearcher(of, None))
    assert len(points) == 9
    assert {of.space.trajectory(point) for point in points} == set(of.space.grid())


def test_a_range_of_whole_numbers_is_gone_through_once_too() -> None:
    space = load_space("reptile", "wide")
    steps = next(domain for domain in space.domains if domain.name == "inner_steps")
    fixed = {**space.fixed, "inner_lr": 1.0, "outer_lr": 0.1}
    small = dataclasses.replace(space, domains=(steps,), first={}, fixed=fixed)
    searcher = OptunaSearcher(Suggestions(space=small, plan=PLAN, count=20, seed=0), None)
    found: list[Any] = []
    while (point := searcher.suggest(f"{len(found)}")) != FINISHED:
        assert point is not None
        searcher.on_trial_complete(f"{len(found)}", rung(1, 0.0))
        found.append(point["inner_steps"])
    assert sorted(found) == list(range(2, 11))


def test_the_seed_acts_and_the_same_seed_repeats() -> None:
    points = run(OptunaSearcher(asked(seed=1), None))
    assert points == run(OptunaSearcher(asked(seed=1), None))
    assert points[1:] != run(OptunaSearcher(asked(seed=2), None))[1:]


def test_the_best_rung_of_a_trial_that_ended_is_what_tpe_learns_from() -> None:
    def last(sign: float, *, ends: bool, best: bool = True) -> Point:
        searcher = OptunaSearcher(asked(count=20), None)
        for number in range(19):
            point = searcher.suggest(f"{number}")
            assert point is not None
            value = sign * score(point)
            result = rung(5000, value if best else 0.0, score=0.0 if best else value)
            (searcher.on_trial_complete if ends else searcher.on_trial_result)(f"{number}", result)
        point = searcher.suggest("last")
        assert point is not None
        return point

    assert last(1.0, ends=True) != last(-1.0, ends=True)
    assert last(1.0, ends=True, best=False) == last(-1.0, ends=True, best=False)
    assert last(1.0, ends=False) == last(-1.0, ends=False)


def test_a_diverged_trial_is_a_bad_one_and_a_failed_one_teaches_nothing() -> None:
    searcher = OptunaSearcher(asked(count=10), None)
    for number in range(10):
        name = f"{number}"
        assert searcher.suggest(name) != FINISHED
        if number % 2:
            searcher.on_trial_complete(name, rung(2500, BAD_SCORE))
        else:
            searcher.on_trial_complete(name, None, error=True)
        searcher.on_trial_complete(name, rung(2500, 50.0))  # it has ended: nothing more counts
    values = [trial.value for trial in searcher._study.trials if trial.value is not None]
    assert values == [BAD_SCORE] * 5


@pytest.mark.parametrize("method", ["fomaml", "reptile", "multitask"])
def test_every_method_can_be_searched_by_tpe(method: str) -> None:
    space = load_space(method, "wide").on_rows(1000)
    searcher = OptunaSearcher(Suggestions(space=space, plan=PLAN, count=8, seed=0), None)
    found: list[Any] = []
    while (point := searcher.suggest(f"{len(found)}")) != FINISHED:
        assert point is not None
        searcher.on_trial_complete(f"{len(found)}", rung(1, 0.0))
        found.append(space.trajectory(point))
    assert len(set(found)) == 8


# --- its study in the database ------------------------------------------------------------------


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A database with our tables in it, in use."""
    with open_results(tmp_path, read_only=False) as database:
        yield database.url


def test_a_search_that_was_cut_off_goes_on_as_if_it_had_not_been(url: str) -> None:
    whole = run(OptunaSearcher(asked(), None))
    first = OptunaSearcher(asked(), url)
    before = run(first, 7)
    assert before == whole[:7]
    cut_off = first.suggest("a")  # handed out, but its end was never told

    again = OptunaSearcher(asked(), url)
    rest = run(again)
    assert rest[0] == cut_off, "an unfinished suggestion comes first"
    assert [*before, *rest] == whole
    assert run(OptunaSearcher(asked(), url)) == []


def test_a_larger_count_goes_on_and_a_smaller_one_takes_the_first(url: str) -> None:
    few = OptunaSearcher(asked(count=5), url)
    first = run(few, 4)
    assert few.suggest("cut off") is not None
    smaller = OptunaSearcher(asked(count=3), url)
    assert smaller.suggest("x") == FINISHED
    more = run(OptunaSearcher(asked(count=7), url))
    assert len(more) == 3
    assert all(point not in first for point in more)


def test_optunas_study_and_our_tables_live_in_one_database(tmp_path: Path, url: str) -> None:
    points = run(OptunaSearcher(asked(count=3), url))
    with Database(url) as database:  # our migrations are not disturbed
        assert database.has_table("studies")
        assert database.points() == []
    with open_results(tmp_path, read_only=False) as database:
        assert suggested_before(asked(), database) == points


def test_the_study_is_what_optunas_dashboard_shows(url: str) -> None:
    points = run(OptunaSearcher(asked(count=3), url))
    (name,) = optuna.get_all_study_names(storage=url)
    assert name.startswith("maml on random_to_random (wide, ")
    study = optuna.load_study(study_name=name, storage=url)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE"]
    done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert len(study.trials) == len(points), "what was only drawn would be shown as failed"
    assert [trial.params for trial in done] == points
    assert [trial.value for trial in done] == [score(point) for point in points]
    assert done[1].intermediate_values == {2500: score(points[1]) - 1}
    assert study.best_params == max(points, key=score)
    inner = done[0].distributions["inner_lr"]
    assert isinstance(inner, optuna.distributions.FloatDistribution)
    assert inner.log


def test_the_study_is_named_by_what_the_suggestions_depend_on() -> None:
    of = asked()
    longer = dataclasses.replace(of.space, rungs=(2500, 5000, 10000, 20000))
    for same in ({"count": 99}, {"space": longer}):
        assert study_name(dataclasses.replace(of, **same)) == study_name(of)
    other_plan = dataclasses.replace(PLAN, config=StudyConfig(partition="cls_to_cls"))
    for other in ({"seed": 43}, {"space": load_space("maml", "paper")}, {"plan": other_plan}):
        assert study_name(dataclasses.replace(of, **other)) != study_name(of)


def test_foreign_trials_of_the_study_are_left_out(tmp_path: Path, url: str) -> None:
    of = asked()
    good = {"inner_lr": 0.1, "outer_lr": 0.2}
    study = open_optuna_study(study_name(of), url)
    wide = optuna.distributions.FloatDistribution(1e-9, 1e9)
    for params, tried in (
        (good, True),
        (good, True),  # twice
        ({"inner_lr": 0.3, "outer_lr": 0.2}, False),  # only drawn
        ({"inner_lr": 0.1}, True),
        ({"inner_lr": 0.1, "outer_lr": 1e9}, True),  # outside of the range
        ({**good, "other": 1.0}, True),
    ):
        study.add_trial(
            optuna.trial.create_trial(
                params=params,
                distributions=dict.fromkeys(params, wide),
                value=1.0,
                user_attrs={"tried": True} if tried else {},
            )
        )
    with open_results(tmp_path, read_only=True) as database:
        assert suggested_before(of, database) == [good]


def test_looking_writes_nothing(tmp_path: Path, url: str) -> None:
    with open_results(tmp_path, read_only=True) as database:
        assert suggested_before(asked(), database) == []
        assert not database.has_table("studies")
    OptunaSearcher(asked(), url).suggest("a")
    with open_results(tmp_path, read_only=True) as database:
        for _ in range(2):
            assert suggested_before(asked(), database) == [{"inner_lr": 3e-5, "outer_lr": 0.5}]
    (other,) = optuna.load_study(study_name=study_name(asked()), storage=url).trials
    assert other.state.name == "RUNNING"  # the session that runs it goes on


def test_a_job_has_the_searcher_that_it_asks_for(tmp_path: Path) -> None:
    of = asked()
    job = SearchJob(trials=(of.first,), results=tmp_path, title="t")
    assert searcher_of(job) is None
    assert isinstance(searcher_of(dataclasses.replace(job, suggestions=of)), OptunaSearcher)
    own = dataclasses.replace(of, searcher=Lister([]))
    assert isinstance(searcher_of(dataclasses.replace(job, suggestions=own)), Counted)
    assert database_url(tmp_path) in job.url


# --- any searcher -------------------------------------------------------------------------------


class Lister(Searcher):
    """Suggests what it is given, and notes what it hears."""

    def __init__(self, points: list[Any]) -> None:
        super().__init__()
        self.points = points
        self.heard: list[tuple[Any, ...]] = []
        self.space: dict[str, Any] = {}

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        self._metric, self._mode, self.space = metric, mode, config
        return True

    def suggest(self, trial_id: str) -> Any:
        return self.points.pop(0) if self.points else FINISHED

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self.heard.append(("result", trial_id, result["score"]))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self.heard.append(("complete", trial_id, result and result["score"], error))

    def save(self, checkpoint_path: str) -> None:
        raise AssertionError("nothing is saved by Tune")

    restore = save


def points_of(count: int) -> list[Point]:
    return [{"inner_lr": 0.01 * (place + 1), "outer_lr": 0.1} for place in range(count)]


def test_any_searcher_is_counted_and_told_what_is_searched() -> None:
    lister = Lister(points_of(5))
    counted = Counted(asked(count=3, searcher=lister))
    assert (lister.metric, lister.mode) == ("score", "max")
    assert list(lister.space) == ["inner_lr", "outer_lr"]
    assert counted.suggest("a") == points_of(1)[0]
    counted.on_trial_result("a", rung(2500, 1.0))
    counted.on_trial_complete("a", rung(5000, 2.0))
    assert lister.heard == [("result", "a", 1.0), ("complete", "a", 2.0, False)]
    assert len(run(counted)) == 2


def test_a_searcher_that_has_nothing_for_now_is_asked_again_and_not_counted() -> None:
    lister = Lister([None, points_of(1)[0], FINISHED, *points_of(5)])
    counted = Counted(asked(count=3, searcher=lister))
    assert counted.suggest("a") is None
    assert counted.suggest("b") == points_of(1)[0]
    assert counted.suggest("c") == FINISHED


def test_numbers_of_numpy_become_plain_ones() -> None:
    space = load_space("reptile", "wide")
    strange = {
        "inner_lr": np.float64(1.0),
        "outer_lr": np.float32(0.5),
        "inner_steps": np.int64(3),
    }
    of = Suggestions(space=space, plan=PLAN, count=1, seed=0, searcher=Lister([strange]))
    point = Counted(of).suggest("a")
    assert point is not None
    assert {name: type(value) for name, value in point.items()} == {
        "inner_lr": float,
        "outer_lr": float,
        "inner_steps": int,
    }
    assert settings_of(space.trajectory(point).config)["inner_steps"] == 3


@pytest.mark.parametrize(
    ("point", "named"),
    [
        ({"inner_lr": 0.1}, "suggests inner_lr, but must suggest inner_lr, outer_lr"),
        ({}, "suggests nothing, but"),
        (
            {"inner_lr": 0.1, "outer_lr": 0.1, "steps": 5},
            "suggests inner_lr, outer_lr, steps, but",
        ),
    ],
)
def test_other_settings_than_those_that_are_searched_are_refused(point: Point, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        Counted(asked(searcher=Lister([point]))).suggest("a")


def test_a_searcher_of_rays_own_is_given_the_space() -> None:
    of = asked(count=4, searcher=OptunaSearch(seed=1))
    points = run(Counted(of))
    assert len(points) == 4
    for point in points:
        assert all(domain.holds(point[domain.name]) for domain in of.space.domains)


# --- what Tune sees -----------------------------------------------------------------------------


class Board:
    """Stands in for the leaderboard: which settings are over, and with what last report."""

    def __init__(self, over: dict[float, float] | None = None) -> None:
        self.over = over or {}
        self.problems: list[str] = []

    def accept(self, settings: Point) -> Point | None:
        return None if settings["inner_lr"] in self.over else {**settings, "trial": 7}

    def recorded(self, settings: Point) -> dict[str, Any] | None:
        return rung(100, self.over[settings["inner_lr"]])

    @contextlib.contextmanager
    def shield(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.problems.append(f"{what} failed: {error!r}")

    def queue(self, listed: list[Point], searcher: Searcher | None) -> TrialQueue:
        return TrialQueue(listed, searcher, self.accept, self.recorded, self.shield)


def test_the_list_is_handed_out_in_its_order_and_then_there_is_no_more() -> None:
    listed = [{"trial": number} for number in range(3)]
    queue = Board().queue(listed, None)
    assert [queue.suggest(f"{n}") for n in range(3)] == listed
    assert not queue.exhausted
    assert queue.suggest("x") == FINISHED
    assert queue.exhausted


def test_suggestions_come_after_the_list_and_hear_of_their_own_trials_only() -> None:
    lister = Lister(points_of(1))
    queue = Board().queue([{"trial": 0}], lister)
    queue.suggest("base")
    queue.on_trial_result("base", rung(100, 1.0))
    queue.on_trial_complete("base", rung(100, 1.0))
    config = queue.suggest("own")
    assert config == {**points_of(1)[0], "trial": 7}
    queue.on_trial_result("own", rung(0, float("nan")))  # no score yet
    for _ in range(2):
        queue.on_trial_result("own", rung(25, 2.0))
    queue.on_trial_result("own", rung(50, 3.0))
    queue.on_trial_complete("own", rung(100, 4.0))
    name = "suggestion-1"
    assert lister.heard == [
        ("result", name, 2.0),
        ("result", name, 3.0),
        ("complete", name, 4.0, False),
    ]


def test_what_is_over_is_answered_from_the_record_and_not_run() -> None:
    first, second, third = points_of(3)
    lister = Lister([first, second, third])
    queue = Board({first["inner_lr"]: 5.0, second["inner_lr"]: 6.0}).queue([], lister)
    assert queue.suggest("a") == {**third, "trial": 7}
    assert [heard[2] for heard in lister.heard] == [5.0, 6.0]
    assert not queue.exhausted
    assert queue.suggest("b") == FINISHED
    assert queue.exhausted


@pytest.mark.parametrize("result", [None, {}, rung(0, float("nan"))])
def test_a_trial_without_any_score_is_told_as_an_error(result: dict[str, Any] | None) -> None:
    lister = Lister(points_of(1))
    queue = Board().queue([], lister)
    queue.suggest("a")
    queue.on_trial_complete("a", result, error=result is None)
    assert lister.heard == [("complete", "suggestion-1", None, True)]


def test_a_searcher_with_nothing_for_now_does_not_end_the_search() -> None:
    queue = Board().queue([], Lister([None, *points_of(1)]))
    assert queue.suggest("a") is None
    assert not queue.exhausted
    assert queue.suggest("b") == {**points_of(1)[0], "trial": 7}


def test_a_searcher_that_raises_ends_the_supply_and_not_the_search() -> None:
    class Broken(Lister):
        def suggest(self, trial_id: str) -> Any:
            raise RuntimeError("no idea")

        def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
            raise RuntimeError("no ear")

    board, broken = Board(), Broken([])
    queue = board.queue([{"trial": 0}], broken)
    assert queue.suggest("a") == {"trial": 0}
    assert queue.suggest("b") == FINISHED
    assert not queue.exhausted, "what is missing is said at the end"
    queue._names["c"] = "suggestion-9"
    queue.on_trial_result("c", rung(25, 1.0))
    said = "the choice of the next trial failed: RuntimeError"
    assert board.problems == [f"{said}('no idea')", f"{said}('no ear')"]


def test_tune_can_pickle_the_queue_and_has_nothing_to_save(tmp_path: Path) -> None:
    queue = Board().queue([], Lister([]))
    assert pickle.loads(pickle.dumps(queue)) is not None
    queue.save(str(tmp_path / "x"))
    queue.restore(str(tmp_path / "x"))
    assert list(tmp_path.iterdir()) == []
