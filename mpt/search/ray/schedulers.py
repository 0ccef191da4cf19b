"""Who stops trials: ASHA at the rungs, racing, or any scheduler of Ray Tune's.

`RungScheduler` stands between Tune and the scheduler that decides. That one sees the trials of the
search only (not plain prompt tuning), and one result a rung, whose metrics are all finite; so any
scheduler works, also one that takes a NaN badly. Tune's state is never used: what earlier sessions
have computed is told again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from mpt.store.records import BASELINE

if TYPE_CHECKING:
    from ray.tune.experiment import Trial as TuneTrial

CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


class StopDecision(NamedTuple):
    """Why a trial is stopped."""

    steps: int
    """The rung."""
    by: str
    """A scheduler's name, or "racing"."""
    reason: str
    """With the numbers that decided."""


class Unsaved:
    """What Tune is given and pickles; nobody reads that, so it holds nothing."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


@dataclass(eq=False)
class RecordedTrial:
    """A trial of an earlier session, as far as a scheduler looks at one."""

    trial_id: str
    config: Mapping[str, Any]
    last_result: Mapping[str, Any]
    status: str = "RUNNING"


class NoTrials:
    """Tune's controller as a scheduler sees it while records are told: nothing runs."""

    def get_trials(self) -> list[Any]:
        """Return no trials."""
        return []

    get_live_trials = get_trials


def _settings(config: Mapping[str, Any]) -> object:
    """Return what is the same in every session of a trial's configuration."""
    return frozenset((name, config[name]) for name in config if name not in ("trial", "gpus"))


def asha(rungs: Sequence[int]) -> ASHAScheduler:
    """Return Tune's ASHA over the rungs of a trial (they have one ratio).

    It counts in `rung`, which grows by the ratio from 1 on: so trials whose rungs are other steps
    (multitask learning counts epochs) are compared rung by rung.
    """
    ratio = rungs[1] / rungs[0]
    last: Any = ratio ** (len(rungs) - 1)  # Tune says int and takes any number
    return ASHAScheduler(
        time_attr="rung",
        metric="score",
        mode="max",
        max_t=last,
        grace_period=1,
        reduction_factor=ratio,
    )


def rivals_of(config: Mapping[str, Any]) -> object:
    """Return what is the same of all trials that one races with: method and study."""
    return config["method"], config["study"]


class Racing:
    """Stops a trial at a rung whose interval ends below the leader's.

    The leader is the point with the highest score so far; trials compete with those of their own
    method and study.
    """

    def __init__(self) -> None:
        self._leaders: dict[object, tuple[float, float]] = {}

    def decide(self, group: object, result: Mapping[str, Any]) -> str | None:
        """Take in a rung; return why its trial cannot win any more, or None."""
        score, low = float(result["score"]), float(result["arg_low"])
        leader = self._leaders.get(group)
        if leader is None or score > leader[0]:
            self._leaders[group] = (score, low)
            return None
        ends = [float(result[name]) for name in ("arg_high", "arg")]
        bound = max((end for end in ends if end == end), default=float("nan"))
        if not bound < leader[1]:  # also where one of them is not known
            return None
        return (
            f"its interval ends at ARG {bound:+.2f}, below the lower end of the leader's "
            f"interval, {leader[1]:+.2f}"
        )


class RungScheduler(Unsaved, FIFOScheduler):
    """The scheduler that Tune sees; see the text of this module.

    Args:
        inner: decides at rungs; None: nobody does.
        name: what a stop by it is called.
        racing: stop trials that cannot reach the leader.
        group_of: configuration → what its trial competes within.
        on_stop: called with a trial's number and the decision before the trial ends.
        on_problem: called with one line if the scheduler fails; its trial goes on then.
    """

    def __init__(
        self,
        inner: TrialScheduler | None,
        name: str,
        *,
        racing: bool,
        group_of: Callable[[Mapping[str, Any]], object],
        on_stop: Callable[[int, StopDecision], None],
        on_problem: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._inner, self._name = inner, name
        self._racing = Racing() if racing else None
        self._group_of, self._on_stop, self._on_problem = group_of, on_stop, on_problem
        self._rungs: dict[str, int] = {}
        self._added: set[str] = set()
        self._recorded: dict[object, list[dict[str, Any]]] = {}

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Hand on what is searched for."""
        super().set_search_properties(metric, mode, **spec)
        if self._inner is not None:
            with contextlib.suppress(Exception):  # one that has a metric refuses another
                self._inner.set_search_properties(metric, mode, **spec)
        return True

    def replay(
        self,
        config: Mapping[str, Any],
        results: Sequence[Mapping[str, Any]],
        *,
        over: bool = True,
    ) -> None:
        """Take in what is on record of a trial of an earlier session; nothing is decided.

        A trial that is `over` does not run again; another is taken in as the trial that goes on.
        """
        if not over:
            self._recorded[_settings(config)] = [dict(result) for result in results]
            return
        trial: Any = RecordedTrial(f"recorded-{config['trial']}", config, {})
        for result in results:
            trial.last_result = result
            if result.get("done"):
                self.on_trial_complete(NoTrials(), trial, dict(result))
            else:
                self._decide(NoTrials(), trial, dict(result))

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Tell the scheduler of a trial of the search."""
        if not self._searched(trial) or trial.trial_id in self._added:
            return
        self._added.add(trial.trial_id)
        if self._inner is not None:
            with self._shielded():
                self._inner.on_trial_add(tune_controller, trial)
        for result in self._recorded.pop(_settings(trial.config), ()):
            self._decide(NoTrials(), trial, result)

    def on_trial_result(
        self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]
    ) -> str:
        """Return what is to become of a trial after a report."""
        answer, decision = self._decide(tune_controller, trial, result)
        if decision is not None:
            self._on_stop(int(trial.config["trial"]), decision)
        return answer

    def _decide(
        self, tune_controller: Any, trial: Any, result: dict[str, Any]
    ) -> tuple[str, StopDecision | None]:
        steps = int(result.get("rung_steps") or 0)
        if not self._searched(trial) or not steps:
            return CONTINUE, None
        self.on_trial_add(tune_controller, trial)
        if self._rungs.get(trial.trial_id) == steps:  # it was told before, or is on record
            return CONTINUE, None
        self._rungs[trial.trial_id] = steps
        answer, reasons = CONTINUE, []
        with self._shielded():
            if self._inner is not None:
                answer = self._inner.on_trial_result(tune_controller, trial, result)
                if answer == STOP:
                    text = f"score {float(result['score']):+.4g} fell behind those at this rung"
                    reasons.append((self._name, text))
        reason = self._race(trial, result)
        if reason is not None:
            reasons.append(("racing", reason))
        if result.get("done") or not reasons:  # nobody is stopped at the end
            return (CONTINUE if answer == STOP else answer), None
        by, reason = reasons[0]
        return STOP, StopDecision(steps, by, reason)

    def _race(self, trial: Any, result: Mapping[str, Any]) -> str | None:
        """Let a rung take part in the race; return why its trial cannot win, or None."""
        with self._shielded():
            if self._racing is not None:
                return self._racing.decide(self._group_of(trial.config), result)
        return None

    def on_trial_complete(
        self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]
    ) -> None:
        """Take in the last report of a trial, which `on_trial_result` is not asked about.

        One that ends without a further rung (it failed, or was given up on the way) is told as an
        error: its report has no score, or one that the scheduler has seen.
        """
        steps = int((result or {}).get("rung_steps") or 0)
        if not self._searched(trial) or not steps or self._rungs.get(trial.trial_id) == steps:
            self._tell("on_trial_error", tune_controller, trial)
            return
        self.on_trial_add(tune_controller, trial)
        if self._rungs.get(trial.trial_id) != steps:
            self._rungs[trial.trial_id] = steps
            self._race(trial, result)
        self._tell("on_trial_complete", tune_controller, trial, result)

    def on_trial_error(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Hand on that a trial failed; if it is started again, it is added again."""
        self._tell("on_trial_error", tune_controller, trial)
        self._added.discard(trial.trial_id)

    def on_trial_remove(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Hand on that a trial was taken out."""
        self._tell("on_trial_remove", tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """Return plain prompt tuning first, then what the scheduler would run."""
        trials = tune_controller.get_trials()
        baseline_waits = any(
            trial.status == "PENDING" and not self._searched(trial) for trial in trials
        )
        chosen: TuneTrial | None
        if self._inner is not None and not baseline_waits:
            with self._shielded():
                chosen = self._inner.choose_trial_to_run(tune_controller)
                return chosen
        chosen = super().choose_trial_to_run(tune_controller)
        return chosen

    def _tell(self, name: str, tune_controller: Any, trial: TuneTrial, *more: Any) -> None:
        if self._inner is not None and trial.trial_id in self._added:
            with self._shielded():
                getattr(self._inner, name)(tune_controller, trial, *more)

    def _searched(self, trial: Any) -> bool:
        return bool(trial.config.get("method") != BASELINE)

    @contextlib.contextmanager
    def _shielded(self) -> Iterator[None]:
        """Give an error to `on_problem`: Tune would end the experiment."""
        try:
            yield
        except Exception as error:
            with contextlib.suppress(Exception):
                self._on_problem(f"the scheduler failed: {error!r}; the trial goes on")
