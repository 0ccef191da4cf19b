"""Unstable configurations: the mark, the reasons under a ranking, and in the document."""

from __future__ import annotations

import numpy as np
import pytest
from display_toys import Shown, maml_job, point_of

from mpt.api.results import summary_row
from mpt.metrics.choice import Reported
from mpt.metrics.replicates import Replicates, compare
from mpt.search.comparison import Configuration, Ranking
from mpt.search.display.configurations import UNSTABLE_SHOWN, summary_document

EVENT = "seed 1042: loss jumped to 9 at step 31, 6.0 times what it was before"


def _ranking(seeds: int, *events: str) -> Ranking:
    """Return a ranking of the job's points; the first configurations have one event each."""
    job, baseline = maml_job(), np.full((3, 2), 0.5)
    points = [point_of(trial, steps, 1.0) for trial in job.trials for steps in (2500, 5000)]
    rows = [
        Replicates(
            name=str(place),
            scores={seed: baseline * (1 + (place + seed) / 1e4) for seed in range(seeds)},
            events=events[place : place + 1],
        )
        for place in range(len(points))
    ]
    comparison = compare(rows, baseline, rng=np.random.default_rng(1), resamples=50)
    return Ranking(
        comparison=comparison,
        configurations=tuple(
            Configuration(summary=comparison.summaries[str(place)], entries={42: point})
            for place, point in enumerate(points)
        ),
        seeds=tuple(range(seeds)),
        reported=Reported(arg=None, how="a test"),
    )


def test_the_mark_and_the_reasons_of_an_unstable_configuration() -> None:
    show = Shown()
    show.display.configurations(_ranking(3, EVENT))
    assert show.text.count("3*") == 1
    assert any(line.startswith("note: 1 unstable (*): ") for line in show.lines)
    told = "unstable inner_lr 2e-05, outer_lr 0.5, steps 2500: " + EVENT
    assert told in show.lines


def test_without_any_nothing_is_said_of_it() -> None:
    show = Shown()
    show.display.configurations(_ranking(3))
    assert "unstable" not in show.text
    assert "3*" not in show.text


@pytest.mark.parametrize("seeds", [1, 3])
def test_of_one_seed_and_of_several_all_are_counted_and_some_told(seeds: int) -> None:
    ranking, show = _ranking(seeds, *(EVENT for _ in range(6))), Shown()
    entries = [one.first for one in ranking.configurations]
    show.display.ranking(entries, [ranking])
    assert sum(line.startswith("unstable inner_lr") for line in show.lines) == UNSTABLE_SHOWN
    assert "unstable … and 1 more" in show.lines
    assert any(line.startswith("note: 6 unstable (*): ") for line in show.lines)


def test_programs_get_the_reasons_and_the_spread() -> None:
    summary = _ranking(3, EVENT).configurations[0].summary
    document = summary_document(summary)
    assert (document["unstable"], document["reasons"]) == (True, [EVENT])
    assert document["spread"] == pytest.approx(0.01)
    row = summary_row(summary)
    assert (row["unstable"], row["reasons"]) == (True, EVENT)
