"""The 160 rows against an independent interpreter of the published builders and real MD5 sums."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import gym_rows
import pytest
import spec_interpreter

from mpt.config import DATA_SEEDS
from mpt.gym.crossfit import lines as lines_module
from mpt.gym.crossfit import sampling
from mpt.gym.crossfit.build import Plan, build_task
from mpt.gym.crossfit.lines import Line, lines_of
from mpt.gym.crossfit.sampling import pools, sample, short_classes
from mpt.gym.crossfit.sources import Mirror
from mpt.gym.crossfit.tasks import TaskRow, load_rows
from mpt.gym.crossfit.verify import compare

HERE = Path(__file__).parent
SHARED = HERE.parents[1].parent / "shared"
GOLDEN: dict[str, str] = json.loads((HERE / "golden_digests.json").read_text(encoding="utf-8"))
TASKS = sorted(load_rows())


def encoded(lines: Iterable[Line]) -> bytes:
    return "".join(f"{source}\t{output}\n" for source, output in lines).encode()


def digest(task: TaskRow, seeds: Iterable[int] = DATA_SEEDS) -> str:
    """Build the task from its synthetic rows and hash all its files."""
    made = load_rows()[task.name]  # the rows come from the true row, whatever `task` became
    lines = {
        split: lines_of(task, split, enumerate(gym_rows.rows(made, split), start=1))
        for split in task.splits.names
    }
    found = pools(task, lines)
    short_classes(task, found.train, task.shots)
    whole = hashlib.sha256()
    for seed in seeds:
        drawn = sample(task, found.train, task.shots, seed)
        for part in (drawn.train, drawn.dev, found.test):
            whole.update(encoded(part))
    return whole.hexdigest()[:16]


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_built_byte_for_byte_as_the_published_script_builds_it(name: str) -> None:
    assert digest(load_rows()[name]) == GOLDEN[name]


def test_the_golden_digests_are_those_of_the_independent_interpreter() -> None:
    facts = SHARED / "gym_spec" / "crossfit_tasks.json"
    if not facts.is_file():
        pytest.skip("the facts on the published builders are not beside the checkout")
    tasks: list[dict[str, Any]] = json.loads(facts.read_text(encoding="utf-8"))["tasks"]
    assert len(tasks) == len(GOLDEN) == 160
    for facts_of_task in tasks:
        row = load_rows()[facts_of_task["task"]]
        files = spec_interpreter.digestible(facts_of_task, partial(gym_rows.rows, row))
        assert hashlib.sha256(b"".join(files)).hexdigest()[:16] == GOLDEN[row.name], row.name


@pytest.mark.parametrize("name", TASKS)
def test_a_perturbed_template_is_noticed(name: str) -> None:
    row = load_rows()[name]
    assert digest(dataclasses.replace(row, input=row.input + ".")) != GOLDEN[name]


@pytest.mark.parametrize("name", [name for name in TASKS if load_rows()[name].label])
def test_a_perturbed_label_order_is_noticed(name: str) -> None:
    row = load_rows()[name]
    assert row.label is not None
    first, second, *rest = row.label.words
    label = dataclasses.replace(row.label, words=(second, first, *rest))
    assert digest(dataclasses.replace(row, label=label)) != GOLDEN[name]


@pytest.mark.parametrize("name", TASKS)
def test_a_perturbed_data_seed_is_noticed(name: str) -> None:
    assert digest(load_rows()[name], (13, 21, 42, 87, 101)) != GOLDEN[name]


@pytest.mark.parametrize("name", ["blimp-ellipsis_n_bar_1", "sciq", "trec", "eli5-asks"])
def test_a_perturbed_seed_of_the_other_draws_is_noticed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (lines_module, sampling):
        monkeypatch.setattr(module, "DRAW_SEED", 43)
    assert digest(load_rows()[name]) != GOLDEN[name]


def test_real_raw_rows_give_the_published_sums(tmp_path: Path) -> None:
    raw = SHARED / "raw_rows"
    if not raw.is_dir():
        pytest.skip("no real raw rows beside the checkout")
    names = Mirror(raw).names()
    assert len(names) >= 40
    plan = Plan(Mirror(raw), tmp_path, 16, DATA_SEEDS)
    for name in names:
        build_task(load_rows()[name], plan)
        found = compare(tmp_path, name)
        assert (len(found.same), found.different) == (15, ()), name
