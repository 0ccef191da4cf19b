"""The verdict of a contest: pooled differences, corrected intervals, and what may be claimed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from stored import Stored

from analysis.contest.arenas import read_confirmed
from analysis.contest.forest import draw_contest, forest_plot
from analysis.contest.tables import arena_table, pooled_table, to_json
from analysis.contest.verdict import Verdict, judge
from analysis.findings.paired import Paired, crossed_mean
from analysis.report.report import ReportOptions, write_report
from mpt.config import UpstreamConfig
from mpt.errors import DataError, UsageError
from mpt.store.database import open_results
from mpt.study.contest.frozen import Entry, Frozen, freeze, keep
from mpt.study.contest.part import ContestPart
from mpt.study.specs import UpstreamSpec
from tools.recompute_contest import recompute

SEEDS = tuple(range(501, 509))
CONFIGS = {
    "mtl": UpstreamConfig(method="multitask", outer_lr=0.1),
    "mtl_soup": UpstreamConfig(method="multitask", outer_lr=0.1, soup=2),
    "path": UpstreamConfig(method="path", outer_lr=0.1),
}


def _pair(by_seed: tuple[float, ...], deviations: tuple[float, ...] = ()) -> Paired:
    values = np.array(by_seed)
    return Paired(
        value=float(values.mean()),
        deviations=np.array(deviations),
        seed_variance=float(values.var(ddof=1)) / len(values),
        seed_freedom=len(values) - 1,
        tasks=("t",),
        of=1,
        data_seeds=2,
        upstream_seeds=len(values),
        by_seed=by_seed,
    )


def test_settings_that_share_a_seeds_prompt_are_not_taken_for_independent() -> None:
    one = _pair((1.0, 4.0, 7.0))
    both = crossed_mean([one, one])
    assert both.interval == pytest.approx(one.interval)
    # what one setting gains with a seed and another loses is no spread between seeds
    assert crossed_mean([one, _pair((7.0, 4.0, 1.0))]).seed_variance == pytest.approx(0.0)


def test_interval_and_p_are_those_of_the_t_test_where_data_seeds_add_nothing() -> None:
    values = (1.0, 4.0, 7.0, 2.0)
    one, reference = _pair(values), stats.ttest_1samp(values, 0)
    expected = reference.confidence_interval(0.975)
    assert one.p == pytest.approx(reference.pvalue)
    assert one.ends(0.975) == pytest.approx((expected.low, expected.high))


def test_pairs_of_different_seeds_have_no_crossed_mean() -> None:
    with pytest.raises(ValueError, match=r"\[2, 3\] upstream seeds, but must have the same"):
        crossed_mean([_pair((1.0, 2.0)), _pair((1.0, 2.0, 3.0))])


# --- a confirmation that is written by hand ---


@pytest.fixture
def frozen(tmp_path: Path) -> Path:
    entries = {
        name: Entry(
            start="learned", upstream=UpstreamSpec(config=config, rungs=(5,)), arg=0.0, tried=2
        )
        for name, config in CONFIGS.items()
    }
    path = tmp_path / "frozen.toml"
    freeze(
        Frozen(
            contest="c", row_passes=20.0, backbone="embedded", search_seeds=(42,), entries=entries
        ),
        path,
    )
    return path


def _judged(results: Path, frozen: Path) -> Verdict:
    """Judge a confirmation that began with the frozen file."""
    with open_results(results) as database:
        keep(database, frozen)
    return judge(read_confirmed(results, None, frozen))


def _write(results: Path, args: Mapping[str, Mapping[str, float]], **changes: Any) -> None:
    """Store a point an upstream seed: partition → contestant → ARG, ± 1 between seeds."""
    stored = Stored(results)
    for partition, row in args.items():
        study = stored.study(role="target", partition=partition, tasks=("v", "w"))
        for name, arg in row.items():
            for place, seed in enumerate(changes.get("seeds", SEEDS)):
                config = dataclasses.replace(CONFIGS[name], seed=seed)
                stored.point(study, config, 5, arg + (-1) ** place * (1 + len(name) / 10))


def test_what_beats_the_best_multitask_learning_everywhere_is_consistently_better(
    tmp_path: Path, frozen: Path
) -> None:
    row = {"mtl": 2.0, "mtl_soup": 8.0, "path": 20.0}
    _write(tmp_path / "r", {"cls_to_cls": row, "qa_to_qa": row})
    verdict = _judged(tmp_path / "r", frozen)
    assert verdict.best_pooled == "mtl_soup"
    assert [one.name for one in verdict.against] == ["path", "mtl"]
    first = verdict.against[0]
    assert first.pooled.value == pytest.approx(12.0)
    assert first.won == len(SEEDS)
    assert first.interval is not None
    assert first.pooled.interval is not None
    assert first.interval[0] < first.pooled.interval[0]  # corrected for two comparisons
    assert "consistently better" in verdict.sentences[0]
    assert "worse than mtl_soup" in verdict.sentences[1]
    assert "path" in {cell.text for row in pooled_table(verdict).rows for cell in row}
    assert len(arena_table(verdict).rows) == 2
    assert draw_contest(verdict).axes


def test_a_partition_that_is_clearly_lost_forbids_the_claim(tmp_path: Path, frozen: Path) -> None:
    won = {"mtl": 2.0, "mtl_soup": 8.0, "path": 90.0}
    lost = {"mtl": 30.0, "mtl_soup": 8.0, "path": 10.0}  # lost to the other multitask there
    _write(tmp_path / "r", {"cls_to_cls": won, "qa_to_qa": won, "nonpara_to_para": lost})
    verdict = _judged(tmp_path / "r", frozen)
    path = next(one for one in verdict.against if one.name == "path")
    assert path.clear == 1
    assert path.partitions_of(-1) == ["NP→P"]
    sentence = next(line for line in verdict.sentences if line.startswith("path "))
    assert "in the mean, not consistently" in sentence
    assert "clearly lost: NP→P" in sentence


@pytest.mark.parametrize(
    ("seeds", "kept", "said"),
    [
        (SEEDS[1:], True, "7 upstream seeds, and a claim needs 8"),
        (SEEDS, False, "not those that the confirmation began with"),
    ],
)
def test_few_seeds_and_settings_that_were_not_kept_forbid_the_claim(
    seeds: tuple[int, ...], kept: bool, said: str, tmp_path: Path, frozen: Path
) -> None:
    row = {"mtl": 2.0, "mtl_soup": 8.0, "path": 20.0}
    _write(tmp_path / "r", {"cls_to_cls": row}, seeds=seeds)
    confirmed = read_confirmed(tmp_path / "r", None, frozen)
    assert not confirmed.kept
    sentence = judge(dataclasses.replace(confirmed, kept=kept)).sentences[0]
    assert "not consistently" in sentence
    assert said in sentence


def test_a_missing_point_leaves_its_seed_out_and_is_named(tmp_path: Path, frozen: Path) -> None:
    row = {"mtl": 2.0, "mtl_soup": 8.0}
    _write(tmp_path / "r", {"cls_to_cls": row})
    _write(tmp_path / "r", {"cls_to_cls": {"path": 20.0}}, seeds=SEEDS[1:])
    confirmed = read_confirmed(tmp_path / "r", None, frozen)
    assert confirmed.seeds == SEEDS[1:]
    (line,) = confirmed.missing
    assert line.startswith("path on Cls→Cls, embedded")
    assert line.endswith("upstream seed 501: missing")
    told = judge(confirmed).sentences[0]
    assert "not consistently" in told
    assert "1 point missing" in told


def test_without_a_whole_seed_or_any_point_there_is_no_verdict(
    tmp_path: Path, frozen: Path
) -> None:
    stored = Stored(tmp_path / "r")
    stored.point(stored.study(role="target"), UpstreamConfig(method="reptile"), 5, 1.0)
    with pytest.raises(UsageError, match="holds no confirmatory point"):
        read_confirmed(tmp_path / "r", None, frozen)
    _write(tmp_path / "r", {"cls_to_cls": {"mtl": 2.0}}, seeds=(501,))
    _write(tmp_path / "r", {"cls_to_cls": {"path": 2.0}}, seeds=(502,))
    with pytest.raises(DataError, match="no upstream seed is complete"):
        read_confirmed(tmp_path / "r", None, frozen)


def test_a_part_is_judged_as_if_the_rest_were_not_there_and_says_what_it_is(
    tmp_path: Path, frozen: Path
) -> None:
    row = {"mtl": 2.0, "mtl_soup": 8.0, "path": 20.0}
    _write(tmp_path / "r", {"cls_to_cls": row, "qa_to_qa": dict.fromkeys(row, 30.0)})
    _write(tmp_path / "alone", {"cls_to_cls": row})
    confirmed = read_confirmed(
        tmp_path / "r", None, frozen, ContestPart(partitions=("cls_to_cls",))
    )
    verdict = judge(dataclasses.replace(confirmed, kept=True))
    alone = _judged(tmp_path / "alone", frozen)
    assert verdict.args == alone.args
    assert [one.interval for one in verdict.against] == [one.interval for one in alone.against]
    assert "consistently better" in alone.sentences[0]
    said = "1 of 2 partitions (cls_to_cls)"
    assert verdict.sentences[0] == f"A part of the results alone: {said}."
    assert "not consistently" in verdict.sentences[1]
    assert verdict.sentences[1].endswith("; a part of the results.")
    assert to_json(verdict)["left_out"] == [said]
    assert to_json(alone)["left_out"] == []


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"partitions": ("qa_to_qa",)}, "--partitions names qa_to_qa, .* they hold cls_to_cls"),
        ({"tuning_steps": (10,)}, "--budgets names 10, of which"),
        ({"upstream_seeds": (9,)}, "--upstream-seeds names 9, .* they hold 501, 502"),
        ({"contestants": ("path",)}, "contestants are path, but one must be multitask"),
    ],
)
def test_a_part_that_is_not_there_or_has_no_reference_is_refused(
    part: dict[str, Any], said: str, tmp_path: Path, frozen: Path
) -> None:
    _write(tmp_path / "r", {"cls_to_cls": {"mtl": 2.0, "path": 20.0}})
    with pytest.raises(UsageError, match=said):
        read_confirmed(tmp_path / "r", None, frozen, ContestPart(**part))


def test_all_names_are_no_restriction(tmp_path: Path, frozen: Path) -> None:
    _write(tmp_path / "r", {"cls_to_cls": {"mtl": 2.0, "path": 20.0}})
    every = ContestPart(partitions=("cls_to_cls",), upstream_seeds=SEEDS)
    assert read_confirmed(tmp_path / "r", None, frozen, every).left_out == ()


def test_budgets_are_read_from_the_records(tmp_path: Path, frozen: Path) -> None:
    _write(tmp_path / "r", {"cls_to_cls": {"mtl": 2.0, "mtl_soup": 8.0, "path": 20.0}})
    verdict = _judged(tmp_path / "r", frozen)
    assert math.isclose(verdict.passes["path"], 0.0)  # no examples are recorded by hand
    assert len(verdict.unequal) == 3


def test_a_report_shows_the_contest_that_a_database_began_with(
    tmp_path: Path, frozen: Path
) -> None:
    results, out = tmp_path / "r", tmp_path / "report"
    row = {"mtl": 2.0, "mtl_soup": 8.0}
    _write(results, {"cls_to_cls": row, "qa_to_qa": row})
    options = ReportOptions(contest=results, figures=False)
    with pytest.raises(UsageError, match="holds no confirmation of a contest"):
        write_report(results, out, options)
    _write(results, {"cls_to_cls": {"path": 20.0}, "qa_to_qa": {"path": 20.0}})
    _judged(results, frozen)
    frozen.unlink()  # it is read from the database
    write_report(results, out, options)
    page = (out / "report.md").read_text()
    assert page.count("### The paper's future work") == 2
    assert "consistently better than the best multitask learning" in page
    assert "future work" not in _plain_report(results, tmp_path / "plain")


def test_the_forest_plot_of_a_page_holds_the_differences_and_stands_by_their_table(
    tmp_path: Path, frozen: Path
) -> None:
    results, out = tmp_path / "r", tmp_path / "report"
    row = {"mtl": 2.0, "mtl_soup": 8.0, "path": 20.0}
    _write(results, {"cls_to_cls": row, "qa_to_qa": {**row, "path": 10.0}})
    verdict = _judged(results, frozen)
    plot = forest_plot(verdict)
    assert plot["layout"]["yaxis"]["ticktext"] == ["pooled", "Cls→Cls", "QA→QA"]
    shown = {one["name"]: one for one in plot["data"]}
    assert shown["path"]["x"] == pytest.approx([7.0, 12.0, 2.0])
    for one in verdict.against:
        trace = shown[one.name]
        ends = [one.interval, *(pair.interval for pair in one.partitions.values())]
        for x, up, down, (low, high) in zip(
            trace["x"], trace["error_x"]["array"], trace["error_x"]["arrayminus"],
            [pair for pair in ends if pair is not None], strict=True,
        ):  # fmt: skip
            assert (x - down, x + up) == pytest.approx((low, high))
    # contestants of one method share its colour, so their markers differ
    (_, symbol), (_, other) = (
        (one["marker"]["color"], one["marker"]["symbol"])
        for one in forest_plot(_swapped(verdict))["data"]
    )
    assert symbol != other
    write_report(results, out, ReportOptions(contest=results))
    page = (out / "index.html").read_text()
    assert page.index('id="contest-pooled"') < page.index('id="picture-contest"')
    assert page.index('id="picture-contest"') < page.index('id="contest-arenas"')
    assert (out / "figures" / "contest.svg").is_file()


def _swapped(verdict: Verdict) -> Verdict:
    """Return a verdict on two contestants of one method."""
    path = next(one for one in verdict.against if one.name == "path")
    return dataclasses.replace(verdict, against=(path, dataclasses.replace(path, name="path")))


def _plain_report(results: Path, out: Path) -> str:
    write_report(results, out, ReportOptions(figures=False))
    return (out / "report.md").read_text()


def test_of_many_missing_points_the_first_are_named_and_the_rest_counted(
    tmp_path: Path, frozen: Path
) -> None:
    row = {"mtl": 2.0, "mtl_soup": 8.0}
    _write(tmp_path / "r", {"cls_to_cls": row})
    _write(tmp_path / "r", {"cls_to_cls": {"path": 20.0}}, seeds=SEEDS[:1])
    notes = pooled_table(_judged(tmp_path / "r", frozen)).notes
    assert sum(note.startswith("Missing: ") for note in notes) == 5
    assert "And 2 more are missing." in notes


# --- starts ---


def test_contestants_that_differ_in_the_length_of_a_race_are_told_apart(tmp_path: Path) -> None:
    config, args = CONFIGS["mtl"], {None: 1.0, 1: 4.0, 2: 9.0}
    names = {None: "default", 1: "short", 2: "long"}
    stored, entries = Stored(tmp_path / "r"), {}
    for steps, arg in args.items():
        down = {"start": "raced"} | ({} if steps is None else {"race_steps": steps})
        study = stored.study(role="target", settings={"downstream": down})
        for seed in SEEDS:
            stored.point(study, dataclasses.replace(config, seed=seed), 5, arg)
        upstream = UpstreamSpec(config=config, rungs=(5,))
        entries[names[steps]] = Entry(start="raced", race_steps=steps, upstream=upstream, tried=1)
    own = Frozen(
        contest="c", row_passes=20.0, backbone="embedded", search_seeds=(), entries=entries
    )
    freeze(own, path := tmp_path / "frozen.toml")
    verdict = _judged(tmp_path / "r", path)
    (row,) = verdict.args.values()
    means = {name: float(np.mean(values)) for name, values in row.items()}
    assert means == pytest.approx({names[steps]: arg for steps, arg in args.items()})
    (again,) = recompute(tmp_path / "r" / "mpt.db", path)["arenas"].values()
    assert {name: float(np.mean([*of.values()])) for name, of in again.items()} == means
    notes = " ".join(pooled_table(verdict).notes)
    assert "short: start raced by the target for 1 step; long: start raced by the" in notes
    assert "default: " not in notes
    assert to_json(verdict)["race_steps"] == {"default": None, "short": 1, "long": 2}
