"""``--simulate RECORDS``: what a search would have found and cost, from recorded results."""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpt.arguments import whole
from mpt.cli.flags import (
    Parser,
)
from mpt.errors import UsageError
from mpt.search.cost.time_left import clock_text
from mpt.search.job import SearchJob
from mpt.search.ray.session import prepare_environment
from mpt.seeds import numpy_generator

if TYPE_CHECKING:
    from mpt.search.display.display import Display
    from mpt.search.simulation import Outcome, Recorded

WORKERS = 2
"""Simulated workers unless told otherwise."""


def add_simulation(parser: Parser) -> None:
    """Add the flags of a simulation."""
    add = parser.add_argument_group("simulation").add_argument
    add(
        "--simulate",
        metavar="DIR",
        help="results directory: search its records instead, in simulated time",
    )
    add("--study", metavar="ID", help="with --simulate: the study, if there are several")
    add(
        "--simulate-seeds",
        type=whole(1),
        metavar="N",
        default=1,
        help="seeds of a simulation",
    )
    add(
        "--simulate-workers",
        type=whole(1),
        metavar="N",
        default=WORKERS,
        help="workers of a simulation",
    )


def simulate_search(
    flags: argparse.Namespace, job_of: Callable[[int], SearchJob], console: Any = None
) -> int:
    """Simulate a search and print what came of it; nothing is written.

    Args:
        flags: of `add_simulation` and `add_common`.
        job_of: number of the seed, from 0 → the job with that seed.
        console: where to print; None: as a search does.

    Raises:
        UsageError: the directory does not hold what the search would try (named), or holds
            several studies that fit (listed).
    """
    prepare_environment("local")  # Ray's scheduler is imported below
    from mpt.search.display.display import Display
    from mpt.search.simulation import Recorded, check_recorded, simulate

    results = Path(flags.simulate).expanduser()
    if not results.is_dir():
        raise UsageError(f"--simulate is {flags.simulate!r}, but there is no such directory")
    job = job_of(0)
    if job.suggestions is not None and job.suggestions.space.size is None:
        raise UsageError(
            f"--simulate needs a search among recorded points, but space "
            f"{job.suggestions.space.name!r} holds ranges; use --space with a grid"
        )
    recorded = Recorded(results, job.trials[0], store=flags.store, study=flags.study)
    if job.suggestions is None:
        for number in range(flags.simulate_seeds):
            check_recorded(recorded, job_of(number).trials)
    outcomes = simulate(
        recorded,
        lambda number: _reordered(job_of(number), number),
        flags.simulate_seeds,
        flags.simulate_workers,
    )
    _show(Display(job, console, as_json=flags.json), flags, job, recorded, outcomes)
    return 0


def _reordered(job: SearchJob, number: int) -> SearchJob:
    """Return a job whose list is gone through in another order where the number is not 0."""
    if job.suggestions is not None or number == 0:
        return job
    first, *rest = job.trials
    seed = first.plan.config.train_seed
    order = numpy_generator(seed, "simulated order", number).permutation(len(rest))
    return dataclasses.replace(job, trials=(first, *(rest[int(position)] for position in order)))


def _show(
    show: Display,
    flags: argparse.Namespace,
    job: SearchJob,
    recorded: Recorded,
    outcomes: Sequence[Outcome],
) -> None:
    stoppers = " and ".join(sorted(job.stoppers)) or "nobody stops"
    show.say(
        f"simulated search · {flags.searcher} · {stoppers} · {flags.simulate_workers} workers · "
        f"study {recorded.study.id} in {flags.simulate}"
    )
    show.say(f"  space    {job.title}")
    first = outcomes[0]
    for trial in first.trials:
        rungs = ", ".join(f"{steps}: {score:+.2f}" for steps, score in trial.scores.items())
        show.say(
            f"{clock_text(trial.began):>9} – {clock_text(trial.ended):<9} {trial.spec.name}  "
            f"{rungs or 'no rung'}"
        )
        if trial.stopped is not None:
            steps, by, reason = trial.stopped
            show.say(f"{'':>22}stopped by {by} at rung {steps}: {reason}")
    spec, steps, score = first.winner
    show.say(
        f"winner   {spec.name}, steps {steps}: ARG {score:+.2f}; regret {first.regret:.2f}, "
        f"{100 * first.saved:.0f} % of the cost saved, simulated time {clock_text(first.seconds)}"
    )
    if len(outcomes) > 1:
        show.say(f"over {len(outcomes)} seeds, mean [least, most]:")
        for name, values in _summary(outcomes).items():
            mean, least, most = statistics.fmean(values), min(values), max(values)
            show.say(f"  {name:<8} {mean:.2f} [{least:.2f}, {most:.2f}]")
    show.document(lambda: {"simulations": [_document(outcome) for outcome in outcomes]})


def _summary(outcomes: Sequence[Outcome]) -> dict[str, list[float]]:
    return {
        "regret": [outcome.regret for outcome in outcomes],
        "saved %": [100 * outcome.saved for outcome in outcomes],
        "time s": [outcome.seconds for outcome in outcomes],
    }


def _document(outcome: Outcome) -> dict[str, Any]:
    spec, steps, score = outcome.winner
    return {
        "winner": {"trial": spec.name, "steps": steps, "score": score},
        "regret": outcome.regret,
        "saved": outcome.saved,
        "seconds": outcome.seconds,
        "trials": [
            {
                "trial": trial.spec.name,
                "settings": dataclasses.asdict(trial.spec.upstream.config),
                "began": trial.began,
                "ended": trial.ended,
                "busy": trial.busy,
                "scores": {str(rung): value for rung, value in trial.scores.items()},
                "stopped": None if trial.stopped is None else trial.stopped._asdict(),
            }
            for trial in outcome.trials
        ],
    }
