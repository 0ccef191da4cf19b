from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest
import torch
from tuning_toys import TEXT, P, limits, mixed_tasks

from mpt.allocator import keep_freed_memory
from mpt.backbones import Backbone
from mpt.backbones.input_cache import free_ram
from mpt.downstream import probe
from mpt.downstream.limits import MOST_RUNS, PackLimits, default_limits, measure_limits
from mpt.downstream.probe import Probe, enough, pass_cost, power_of_two
from mpt.errors import DataError, UsageError


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"runs": 0}, "runs is 0, but must be a whole number ≥ 1"),
        ({"tokens": 1.5}, "tokens is 1.5, but must be a whole number ≥ 1"),
        ({"pass_cost": -1}, "pass_cost is -1, but must be a whole number ≥ 0"),
        ({"evaluation_tokens": 0}, "evaluation is 0, but must be a whole number ≥ 1"),
    ],
)
def test_limits_that_mean_nothing_are_refused(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(UsageError, match=rule):
        limits(**change)


@pytest.mark.parametrize("evaluation", [None, 64])
def test_limits_come_back_from_json(evaluation: int | None) -> None:
    stored = limits(evaluation_tokens=evaluation)
    assert PackLimits.from_dict(json.loads(json.dumps(stored.to_dict()))) == stored
    assert stored.evaluation == (evaluation or stored.tokens)


@pytest.mark.parametrize("change", [{"runs": 0}, {"lanes": 3}])
def test_stored_limits_that_are_none_are_bad_data(change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"pack limits are \{.*: "):
        PackLimits.from_dict(limits().to_dict() | change)


def test_default_limits_depend_on_the_kind_of_device_only() -> None:
    assert default_limits("cpu") == default_limits(torch.device("cpu"))
    cpu, cuda = default_limits("cpu"), default_limits("cuda:0")
    assert cpu.pass_cost < cuda.pass_cost  # a GPU waits for launches
    assert cpu.tokens < cuda.tokens < cuda.evaluation


def test_limits_are_measured_in_powers_of_two(toy_backbone: Backbone) -> None:
    task = mixed_tasks()[2]
    rows = toy_backbone.encode_rows(task.name, task.train, TEXT)
    found = measure_limits(toy_backbone, rows, P)
    for value in (found.runs, found.tokens):
        assert value.bit_count() == 1
    longest = max(len(source) + len(target) for source, target in rows)
    assert found.tokens >= longest / 2
    assert found.runs <= MOST_RUNS
    assert f"measured on cpu: rows of {P + longest} tokens" in found.source
    assert PackLimits.from_dict(found.to_dict()) == found


def test_no_rows_and_too_long_rows_are_refused(
    toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="rows are empty"):
        measure_limits(toy_backbone, [], P)
    monkeypatch.setattr(probe, "_free_bytes", lambda _: 1000)
    with pytest.raises(UsageError, match=r"one row of 7 tokens .* does not fit"):
        measure_limits(toy_backbone, [([5, 1], [1])], P)


def test_saved_bytes_are_linear_in_the_rows(
    toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fits is predicted from passes of 1 and 2 rows: check it on larger ones."""
    measured = Probe(toy_backbone, ([5] * 20 + [1], [7, 1]), P)
    bytes_of = {rows: measured.bytes_of(rows) for rows in (1, 2, 16, 64)}
    each = bytes_of[2] - bytes_of[1]
    for rows in (16, 64):
        assert bytes_of[rows] == pytest.approx(bytes_of[1] + (rows - 1) * each, rel=0.05)
    monkeypatch.setattr(probe, "_free_bytes", lambda _: bytes_of[16] / probe.MEMORY_SHARE)
    assert measured.rows_that_fit() == pytest.approx(16, abs=1)


def test_a_pass_that_fails_while_probing_bounds_the_limit(
    toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Probe.run

    def small(self: Probe, rows: int) -> bool:
        if rows > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, rows)

    monkeypatch.setattr(Probe, "run", small)
    assert max(Probe(toy_backbone, ([5, 1], [1]), P).seconds(64)) <= 2


def test_throughput_that_no_longer_rises_ends_the_search() -> None:
    # t = 1 + rows: 2 rows in 3 s against 4 s is worth it, 16 in 17 against 18 (5.9 %) just so.
    linear = {rows: 1.0 + rows for rows in (1, 2, 4, 8, 16, 32)}
    assert enough(linear) == 16
    assert enough({1: 2.0}) == 1
    assert enough({1: 1.0, 2: 1.5, 4: 2.0}) == 4  # memory ended the search
    # The fixed part is as long as one row of 60 tokens; rounded down to a power of two.
    assert pass_cost(linear, 60) == 32
    assert pass_cost({1: 2.0}, 60) == 0
    assert pass_cost({1: 1.0, 2: 2.5}, 60) == 0  # larger passes are slower: nothing is fixed


@pytest.mark.parametrize(("value", "power"), [(0.2, 1), (1, 1), (3.9, 2), (4, 4), (1000, 512)])
def test_a_power_of_two_is_never_above_its_value(value: float, power: int) -> None:
    assert power_of_two(value) == power


def test_free_memory_knows_the_containers_limit(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  9000 kB\nMemAvailable:    4000 kB\n")
    assert free_ram(meminfo, tmp_path) == 4000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert free_ram(meminfo, tmp_path) == 4000 * 1024
    (tmp_path / "memory.max").write_text("2000000\n")
    (tmp_path / "memory.current").write_text("500000\n")
    assert free_ram(meminfo, tmp_path) == 1_500_000
    assert free_ram() > 0


def test_freed_memory_is_kept_on_a_cpu_only() -> None:
    assert not keep_freed_memory(torch.device("meta"))
    assert keep_freed_memory(torch.device("cpu")) == (platform.libc_ver()[0] == "glibc")
