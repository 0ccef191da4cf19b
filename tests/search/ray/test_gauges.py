"""The gauges of trials, read from Ray's metrics page by HTTP."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import metrics_cluster
import pytest
from ray_processes import run_ray_script

import mpt
from mpt.search.ray import gauges
from mpt.search.ray.gauges import GAUGES, Gauges

ROOT = Path(mpt.__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def metrics_page() -> str:
    """What a local Ray with two reporting actors serves."""
    return run_ray_script(metrics_cluster.__file__, source=lambda _: ROOT, timeout_s=500)


def series(page: str, name: str) -> dict[str, float]:
    """Trial → value of one gauge."""
    rows = re.findall(rf'^ray_{name}{{.*\btrial="([^"]*)".*}} (\S+)$', page, re.MULTILINE)
    assert len(dict(rows)) == len(rows), "a trial has several series"
    return {trial: float(value) for trial, value in rows}


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("mpt_arg", 4.25, -1.5),
        ("mpt_runs_done", 4.0, 4.0),  # the last report counts
        ("mpt_runs_running", 3.0, 3.0),  # and keeps what it does not name
        ("mpt_runs_waiting", 5.0, 5.0),
        ("mpt_steps_per_second", 7.5, 7.5),
    ],
)
def test_every_trial_has_its_own_value_on_the_metrics_page(
    metrics_page: str, name: str, first: float, second: float
) -> None:
    values = {"maml-inner0.1-outer0.3": first, "reptile-inner1": second}
    assert series(metrics_page, name) == values
    assert f"# HELP ray_{name} {GAUGES[name]}" in metrics_page


def test_a_value_that_is_not_a_number_or_not_there_is_not_served(metrics_page: str) -> None:
    assert not series(metrics_page, "mpt_tokens_per_second")  # NaN was reported
    assert not series(metrics_page, "mpt_gpu_bytes")  # there is no GPU


def test_the_trial_is_the_only_tag_of_ours(metrics_page: str) -> None:
    (row, *_) = [line for line in metrics_page.splitlines() if line.startswith("ray_mpt_arg{")]
    tags = set(re.findall(r'[{,](\w+)="', row))
    assert {tag for tag in tags if tag.islower() and not tag.startswith("otel_")} == {"trial"}


def test_without_ray_a_report_imports_nothing() -> None:
    code = (
        "import sys; from mpt.search.ray.gauges import Gauges; Gauges('t').report(arg=1.0);"
        "print([name for name in ('ray', 'torch') if name in sys.modules])"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "[]\n"


class Recorded:
    """Stands in for ray.util.metrics.Gauge."""

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self.values: list[tuple[float, dict[str, str]]] = []

    def set(self, value: float, tags: dict[str, str]) -> None:
        self.values.append((value, tags))


def initialized(answer: Any) -> types.SimpleNamespace:
    return types.SimpleNamespace(is_initialized=lambda: answer)


def test_before_ray_starts_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.util.metrics.Gauge", Recorded)
    monkeypatch.setitem(sys.modules, "ray", initialized(False))
    one = Gauges("t")
    one.report(arg=1.0)
    assert not one._gauges
    monkeypatch.setitem(sys.modules, "ray", initialized(True))
    one.report(arg=1.0)
    assert list(one._gauges) == ["mpt_arg"]


def test_nan_and_infinity_leave_a_gauge_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.util.metrics.Gauge", Recorded)
    monkeypatch.setitem(sys.modules, "ray", initialized(True))
    one = Gauges("t")
    for value in (2.0, math.nan, math.inf, None):
        one.report(arg=value)
    assert one._gauges["mpt_arg"].values == [(2.0, {"trial": "t"})]


def test_every_value_reaches_its_gauge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.util.metrics.Gauge", Recorded)
    monkeypatch.setattr(gauges, "_gpu_bytes", lambda: 7.0)
    monkeypatch.setitem(sys.modules, "ray", initialized(True))
    one = Gauges("t")
    one.report(
        arg=1,
        runs_done=2,
        runs_running=3,
        runs_waiting=4,
        steps_per_second=5,
        tokens_per_second=6,
    )
    assert {name: gauge.values for name, gauge in one._gauges.items()} == {
        name: [(value, {"trial": "t"})] for value, name in enumerate(GAUGES, start=1)
    }


def test_metrics_that_fail_do_not_reach_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **options: Any) -> None:
        raise RuntimeError("no metrics today")

    monkeypatch.setattr("ray.util.metrics.Gauge", broken)
    monkeypatch.setitem(sys.modules, "ray", initialized(True))
    Gauges("t").report(arg=1.0)
