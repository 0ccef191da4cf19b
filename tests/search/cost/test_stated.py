"""Plans from a stated throughput: operations, work and rates, each counted by hand."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
from search_toys import toy_study

from benchmarks.flops import Shape, shared_flops, step_flops
from mpt.backbones.flops import row_flops, shared_row_flops
from mpt.backbones.memory import GIB
from mpt.config import DownstreamConfig, PromptConfig, StudyConfig, UpstreamConfig
from mpt.errors import UsageError
from mpt.search.cost.gpu_share import smallest
from mpt.search.cost.plan import TrialWork
from mpt.search.cost.planner import Planning, stated_lines
from mpt.search.cost.stated import (
    Rows,
    Throughput,
    parse_throughput,
    rows_in_files,
    stated_rates,
    stated_work,
    upstream_passes,
)
from mpt.search.job import SearchJob
from mpt.study.specs import TrialSpec, UpstreamSpec, ZeroShotConfig
from mpt.study.study import StudyPlan, plan_study

ROWS = Rows(train=16, dev=10, test=100, inputs=20, targets=4, test_file="f")


def _rows(plan: StudyPlan, task: str, seed: int) -> Rows:
    return dataclasses.replace(ROWS, test_file=f"{task} {seed}")


def _trial(lr: float = 0.1, rungs: tuple[int, ...] = (10, 20), **study: object) -> TrialSpec:
    down = DownstreamConfig(lrs=(0.5, 0.4), batch_size=8, steps=30, eval_every=10, max_test=40)
    config = StudyConfig(data_seeds=(13, 21), downstream=down, prompt=PromptConfig(length=20))
    config = dataclasses.replace(config, **study)  # type: ignore[arg-type]
    plan = StudyPlan(config=config, source=("s",), scored=("a", "b", "c"), partial=None)
    upstream = UpstreamConfig(method="fomaml", inner_lr=lr)
    return TrialSpec(plan=plan, upstream=UpstreamSpec(config=upstream, rungs=rungs))


@pytest.mark.parametrize(
    ("name", "shape", "positions"),
    [
        (
            "google/t5-base-lm-adapt",
            Shape(d=768, k=768, f=2048, m=3, layers=12, decoder_layers=12, vocabulary=32128),
            (228, 8),
        ),
        (
            "openai-community/gpt2-large",
            Shape(d=1280, k=1280, f=5120, m=2, layers=36, decoder_layers=0, vocabulary=50257),
            (236, 0),
        ),
    ],
)
def test_operations_counted_on_shapes_are_those_of_the_formula(
    name: str, shape: Shape, positions: tuple[int, int]
) -> None:
    found = row_flops(name, 100, 128, 8)
    assert found.tuning == pytest.approx(step_flops(shape, 1, *positions, tokens=8), rel=1e-3)
    assert found.fine_tuning == found.tuning + found.forward


def test_a_causal_model_reads_a_prompt_that_stands_first_once_a_pass() -> None:
    name = "openai-community/gpt2-large"
    shape = Shape(d=1280, k=1280, f=5120, m=2, layers=36, decoder_layers=0, vocabulary=50257)
    own = shared_row_flops(name, 100, 128, 8, 8).tuning
    # counted too much: attention of the prompt's places to those behind them, and the gradient
    # that words of the first of 36 layers do not need
    whole_pass = shared_flops(shape, runs=1, p=100, rows=8, s=136, tokens=64)
    assert 8 * own == pytest.approx(whole_pass, rel=0.03)
    assert own < 0.7 * row_flops(name, 100, 128, 8).tuning
    assert shared_row_flops(name, 100, 128, 8, 1) == row_flops(name, 100, 128, 8)
    t5 = "google/t5-base-lm-adapt"
    assert shared_row_flops(t5, 100, 128, 8, 8) == row_flops(t5, 100, 128, 8)


@pytest.mark.parametrize(
    ("changed", "together"),
    [
        ({}, (8, 32, 2)),
        ({"prompt": PromptConfig(length=20, position="append")}, (1, 1, 1)),
        ({"upstream": UpstreamConfig(method="fomaml", dropout=0.1)}, (8, 32, 1)),
        ({"upstream": UpstreamConfig(method="maml", second_order="exact")}, (8, 32, 1)),
    ],
)
def test_rates_of_a_causal_model_share_its_prompt_where_its_passes_do(
    changed: dict[str, Any], together: tuple[int, int, int]
) -> None:
    study = {name: value for name, value in changed.items() if name != "upstream"}
    trial = _trial(backbone="embedded-gpt2", **study)
    if upstream := changed.get("upstream"):
        spec = dataclasses.replace(trial.upstream, config=upstream)
        trial = dataclasses.replace(trial, upstream=spec)
    rates = stated_rates([trial], Throughput(bfloat16=1.0, float32=1.0), _rows)
    tuned, evaluated, learned = (
        shared_row_flops("embedded-gpt2", 20, 20, 4, rows) for rows in together
    )
    (run,) = rates.runs.values()
    assert run.step_s == pytest.approx(8 * tuned.tuning / 1e12)
    assert run.row_s == pytest.approx(evaluated.forward / 1e12)
    (step,) = rates.steps.values()
    own = trial.upstream.config
    assert isinstance(own, UpstreamConfig)
    passes = upstream_passes(own, trial.plan.config)
    assert step == pytest.approx(passes * 4 * learned.tuning / 1e12)


def test_work_is_that_of_a_search_from_nothing_and_shared_runs_count_once() -> None:
    work = stated_work([_trial(0.1), _trial(0.2)], _rows)
    # 3 tasks × 2 seeds × 2 rates, for the baseline once and at 2 rungs of 2 trajectories
    assert (work.shared, work.runs, work.points) == (12, 2 * 2 * 12, 4)
    assert [part.steps for part in work.trials] == [20, 20]
    (run, *_) = (part.runs for part in work.trials)
    assert run.steps == 24 * 30
    assert run.rows == 24 * (3 * 10 + 40)  # three evaluations on dev, one test
    # two downstream starts: twice the runs, the same upstream steps
    two = stated_work([_trial(0.1, starts=2), _trial(0.2, starts=2)], _rows)
    assert (two.shared, two.runs, two.points) == (24, 2 * 2 * 24, 4)
    assert [part.steps for part in two.trials] == [20, 20]
    # a longer trial over the same trajectory adds its further steps alone
    longer = stated_work([_trial(), _trial(rungs=(10, 20, 50))], _rows)
    assert [part.steps for part in longer.trials] == [20, 30]


def test_choosing_and_racing_starts_are_stated_beside_the_runs() -> None:
    plain = _trial()
    down = plain.plan.config.downstream

    def work_of(soup: int, starts: int = 1, **start: Any) -> TrialWork:
        trial = _trial(downstream=dataclasses.replace(down, **start), starts=starts)
        config = UpstreamConfig(method="fomaml", inner_lr=0.1, soup=soup)
        upstream = dataclasses.replace(trial.upstream, config=config)
        whole = stated_work([plain, dataclasses.replace(trial, upstream=upstream)], _rows)
        # plain prompt tuning is the same however starts are taken, and counted once
        assert whole.shared == (12 if starts == 1 and "max_dev" not in start else 12 + 12 * starts)
        return whole.trials[1]

    points, targets = 2, 6
    own = work_of(1, start="learned").runs
    chosen = work_of(1, start="chosen").runs
    assert (chosen.runs, chosen.steps) == (own.runs, own.steps)
    assert chosen.rows == own.rows + points * targets * 2 * (16 + 10)
    # a soup of 4: its members, their mean and the plain start, at two rates, for a third of 30
    # steps, with one evaluation
    raced = work_of(4, start="raced").runs
    assert (raced.runs, raced.steps) == (own.runs, own.steps + points * targets * 6 * 2 * 10)
    assert raced.rows == own.rows + points * targets * 6 * 2 * 10
    short = work_of(1, start="raced", race_steps=11, max_dev=7).runs
    tested = points * targets * 2 * (3 * 7 + 40)
    assert short.steps == own.steps + points * targets * 2 * 2 * 11
    assert short.rows == tested + points * targets * 2 * 2 * 2 * 7
    two = work_of(1, starts=2, start="raced").runs
    assert two.steps == 2 * (own.steps + points * targets * 2 * 2 * 10)


def test_zero_shot_is_evaluated_rows_alone_of_one_run_a_data_seed() -> None:
    spec = UpstreamSpec(config=ZeroShotConfig())
    trial = dataclasses.replace(_trial(), upstream=spec)
    (part,) = stated_work([trial], _rows).trials
    assert (part.steps, part.runs.runs, part.runs.steps) == (0, 3 * 2, 0)
    assert part.runs.rows == 6 * (10 + 40)
    # the worker scores a test file that seeds of a task share once, and every dev file
    (shared,) = stated_work([trial], lambda *_: ROWS).trials
    assert (shared.runs.runs, shared.runs.rows) == (6, 6 * 10 + 3 * 40)
    tuned = stated_work([_trial()], lambda *_: ROWS).trials[0]
    assert tuned.runs == stated_work([_trial()], _rows).trials[0].runs
    rates = stated_rates([trial], Throughput(bfloat16=8.0, float32=2.0), _rows)
    rate = rates.runs[part.runs.kind]
    row = row_flops("embedded", 0, 20, 4)
    assert (rate.step_s, rate.row_s) == (0.0, pytest.approx(row.forward / 2e12))


@pytest.mark.parametrize(("more", "files"), [("", 1), ("more\tyes\n", 2)])
def test_equal_test_files_are_known_by_their_rows(
    more: str, files: int, toy_checkpoint: Path, toy_gym: Path, tmp_path: Path
) -> None:
    gym = shutil.copytree(toy_gym, tmp_path / "gym")
    plan = plan_study(toy_study(toy_checkpoint, gym))
    task, seeds = plan.scored[0], plan.config.data_seeds[:2]
    own, other = (next(gym.glob(f"{task}/*_{seed}_test.tsv")) for seed in seeds)
    other.write_text(own.read_text(encoding="utf-8") + more, encoding="utf-8")
    assert len({rows_in_files(plan, task, seed).test_file for seed in seeds}) == files


def test_rates_are_operations_over_the_stated_throughput() -> None:
    row = row_flops("embedded", 20, 20, 4)
    speed = Throughput(bfloat16=8.0, float32=2.0)
    trial = _trial(precision="bfloat16", upstream_precision="float32")
    rates = stated_rates([trial], speed, _rows)
    (run,) = rates.runs.values()
    assert run.step_s == pytest.approx(8 * row.tuning / 8e12)
    assert run.row_s == pytest.approx(row.forward / 8e12)
    # FoMAML: support and query pass of 2 items of 2 rows, in float32
    (step,) = rates.steps.values()
    assert step == pytest.approx(2 * 4 * row.tuning / 2e12)


@pytest.mark.parametrize(
    ("method", "inner", "passes"),
    [("maml", 1, 4.0), ("fomaml", 1, 2.0), ("reptile", 10, 10.0), ("multitask", 1, 1.0)],
)
def test_passes_of_an_episode(method: str, inner: int, passes: float) -> None:
    config = UpstreamConfig(method=method, inner_steps=inner)
    assert upstream_passes(config, StudyConfig()) == passes


def test_a_throughput_is_one_number_or_two() -> None:
    assert parse_throughput("200") == Throughput(bfloat16=200.0, float32=25.0)
    assert parse_throughput("200,50") == Throughput(bfloat16=200.0, float32=50.0)
    for text in ("", "fast", "0", "-1", "inf", "1,2,3"):
        with pytest.raises(UsageError, match="--throughput is"):
            parse_throughput(text)


def test_a_cluster_is_planned_without_a_gpu_and_without_weights(
    toy_checkpoint: Path, toy_gym: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mpt.study.study.backbone_of", lambda *_: pytest.fail("loaded weights"))
    plan = plan_study(toy_study(toy_checkpoint, toy_gym))
    spec = UpstreamSpec(config=UpstreamConfig(), rungs=(2, 4))
    job = SearchJob(trials=(TrialSpec(plan=plan, upstream=spec),), results=tmp_path, title="t")
    speed = Throughput(bfloat16=8.0, float32=1.0)
    lines = stated_lines(job, 0.5, Planning(gpus=3, throughput=speed, price=2.0))
    text = "\n".join(lines)
    assert "on 6 workers (rates follow from 8 TFLOP/s in bfloat16 and 1 in float32" in text
    assert "GPU-hours" in text
    assert "A10G (g5.2xlarge), alone on it" in text
    with pytest.raises(UsageError, match="say of how many GPUs with --plan-gpus"):
        stated_lines(job, 1.0, Planning(throughput=speed))


def test_the_smallest_gpu_leaves_a_tenth_and_room_for_the_process() -> None:
    names = [getattr(smallest(int(gib * GIB)), "name", None) for gib in (18.7, 18.9, 49, 71, 200)]
    assert names == ["A10G", "L40S", "H100", "H200", None]
