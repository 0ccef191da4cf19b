"""Who chooses the next trial: a list, Optuna's TPE, or any searcher of Ray Tune's.

Tune sees one searcher (`TrialQueue`). It hands out the listed trials first (plain prompt tuning
among them), then what the job's own searcher suggests; that one hears of its own trials only, once
a rung.
Tune ends the experiment if a searcher raises; an error here ends the supply of trials, and what
is missing then is said at the end.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ray.tune.search import Searcher

from mpt.errors import UsageError
from mpt.search.ray.schedulers import Unsaved
from mpt.search.suggested import open_optuna_study, study_name, suggested_points
from mpt.seeds import derive, numpy_generator
from mpt.study.domains import to_optuna, to_ray

if TYPE_CHECKING:
    import optuna

    from mpt.search.job import Suggestions

STARTUP = 5
"""Suggestions that TPE draws at random before it models anything: searches here are tens long."""
_TRIES = 50
"""Suggestions that are asked for until one is new."""

Shield = Callable[[str], contextlib.AbstractContextManager[None]]


class TrialQueue(Unsaved, Searcher):
    """The searcher that Tune sees; see the text of this module.

    Args:
        listed: configurations of the listed trials, in their order.
        searcher: the job's own; suggests the settings of further trials; None: there are none.
        accept: takes in suggested settings; returns the trial's configuration, or None if nothing
            is left to do on it, and then how it ended is told to the job's searcher.
        recorded: settings → the last report of a trial that is over.
        shield: turns an error into a note.
        more: configurations to go on with once all listed trials have ended, none: there are no
            more. Those of a searcher have no such rounds.
    """

    def __init__(
        self,
        listed: Sequence[Mapping[str, Any]],
        searcher: Searcher | None,
        accept: Callable[[dict[str, Any]], dict[str, Any] | None],
        recorded: Callable[[dict[str, Any]], dict[str, Any] | None],
        shield: Shield,
        more: Callable[[], Sequence[Mapping[str, Any]]] | None = None,
    ) -> None:
        super().__init__(metric="score", mode="max")
        self._listed, self._searcher, self._more = list(listed), searcher, more
        self._running: set[str] = set()
        self._accept, self._recorded, self._shield = accept, recorded, shield
        self._names: dict[str, str] = {}
        self._rungs: dict[str, int] = {}
        self._count = 0
        self.exhausted = False
        """Whether every trial has been handed out."""

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Accept that there is no space of Tune's; the job's searcher has its own."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the configuration of the next trial, or that there is none (any more)."""
        finished: Any = Searcher.FINISHED
        if not self._listed and self._more is not None:
            if self._running:
                return None
            with self._shield("the choice of the next trials"):
                self._listed = list(self._more())
        if self._listed:
            self._running.add(trial_id)
            return dict(self._listed.pop(0))
        with self._shield("the choice of the next trial"):
            while self._searcher is not None:
                self._count += 1
                name = f"suggestion-{self._count}"
                settings = self._searcher.suggest(name)
                if settings is None or settings == finished:
                    self.exhausted = settings is not None
                    return settings
                config = self._accept(dict(settings))
                if config is not None:
                    self._names[trial_id] = name
                    return config
                self._searcher.on_trial_complete(name, self._recorded(dict(settings)))
            self.exhausted = True
        return finished

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tell the job's searcher of a rung."""
        name, steps = self._names.get(trial_id), int(result.get("rung_steps") or 0)
        if name is None or self._searcher is None or not steps or self._rungs.get(name) == steps:
            return
        self._rungs[name] = steps
        with self._shield("the choice of the next trial"):
            self._searcher.on_trial_result(name, result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the job's searcher how a trial ended; one without any score failed."""
        self._running.discard(trial_id)
        name = self._names.get(trial_id)
        if name is None or self._searcher is None:
            return
        scored = result is not None and bool(result.get("rung_steps"))
        with self._shield("the choice of the next trial"):
            self._searcher.on_trial_complete(name, result if scored else None, error or not scored)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the queue is made from the database."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


class Counted(Searcher):
    """Any searcher of Tune's, until it has suggested as many trials as there are to be.

    A searcher that can take a space of Tune's, and has none of its own, is given it.
    """

    def __init__(self, suggestions: Suggestions) -> None:
        super().__init__(metric="score", mode="max")
        self._inner: Searcher = suggestions.searcher
        self._remaining = suggestions.count
        space = {domain.name: to_ray(domain) for domain in suggestions.space.domains}
        self._names = list(space)
        self._inner.set_search_properties("score", "max", space)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the searcher's suggestion, or that there is none any more.

        Raises:
            UsageError: it suggests other settings than those that are searched.
        """
        finished: Any = Searcher.FINISHED
        if self._remaining < 1:
            return finished
        settings = self._inner.suggest(trial_id)
        if settings is None or settings == finished:
            return settings
        self._remaining -= 1
        if set(settings) != set(self._names):
            raise UsageError(
                f"the searcher suggests {', '.join(sorted(settings)) or 'nothing'}, but must "
                f"suggest {', '.join(self._names)}"
            )
        return {name: _plain(settings[name]) for name in self._names}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Hand on."""
        self._inner.on_trial_result(trial_id, result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Hand on."""
        self._inner.on_trial_complete(trial_id, result, error)


def _plain(value: Any) -> Any:
    """Return a number of Python's in the place of one of NumPy's."""
    return value.item() if hasattr(value, "item") else value


class OptunaSearcher(Searcher):
    """Optuna's TPE, with its study in the database of the results: a later session goes on there.

    The value of a trial is its best score over its rungs. Suggestion n is drawn with a generator
    of its own, named by the seed and n, from what has been told until then. No settings are
    suggested twice; trials that an earlier session did not end are suggested first.

    In a simulation `storage`, the URL of Optuna's, is None: the study is in memory.
    """

    def __init__(self, suggestions: Suggestions, storage: str | None) -> None:
        super().__init__(metric="best", mode="max")
        self._of, self._space = suggestions, suggestions.space
        self._domains = {domain.name: to_optuna(domain) for domain in self._space.domains}
        self._study = open_optuna_study(study_name(suggestions), storage)
        self._trials: dict[str, optuna.trial.Trial] = {}
        self._take_in()

    def _take_in(self) -> None:
        """Take in what earlier sessions suggested; what they left running is suggested again."""
        from optuna.trial import TrialState

        self._known = suggested_points(self._study, self._space)
        ended = suggested_points(self._study, self._space, TrialState.COMPLETE)
        self._left_over = [p for p in self._known[: self._of.count] if p not in ended]
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._study.tell(trial.number, state=TrialState.FAIL)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return settings of an earlier session that did not end, or new ones."""
        finished: Any = Searcher.FINISHED
        trial: optuna.trial.Trial | None = None
        if self._left_over:
            trial = self._fixed(self._left_over.pop(0))
        elif len(self._known) < self._of.count and (trial := self._new_trial()) is not None:
            self._known.append(dict(trial.params))
        if trial is None:
            return finished
        trial.set_user_attr("tried", True)
        self._trials[trial_id] = trial
        return dict(trial.params)

    def _fixed(self, point: dict[str, Any]) -> optuna.trial.Trial:
        """Return a trial of these settings."""
        self._study.enqueue_trial(point)
        return self._study.ask(self._domains)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the sampler how a trial ended."""
        import optuna

        trial = self._trials.pop(trial_id, None)
        if trial is None:
            return
        if result is None or error:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, float(result["best"]))

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Show a rung in Optuna's own dashboard."""
        trial = self._trials.get(trial_id)
        if trial is not None:
            trial.report(float(result["score"]), int(result["rung_steps"]))

    def _new_trial(self) -> optuna.trial.Trial | None:
        """Return a trial of settings that were not suggested before; None if there are no more."""
        import optuna

        seed, number = self._of.seed, len(self._known)
        if number == 0:
            return self._fixed(self._space.settings(self._of.first.upstream))
        for attempt in range(_TRIES):
            self._study.sampler = _sampler(derive(seed, "tpe", number, attempt))
            trial = self._study.ask(self._domains)
            if trial.params not in self._known:
                return trial
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        # TPE insists on what it has: draw among the rest
        rng = numpy_generator(seed, "tpe rest", number)
        rest = [point for point in self._space.every_point() if point not in self._known]
        return self._fixed(rest[int(rng.integers(len(rest)))]) if rest else None


def _sampler(seed: int) -> optuna.samplers.BaseSampler:
    """Return a sampler that takes searched settings together, and running trials as bad ones."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=seed % 2**32, multivariate=True, constant_liar=True, n_startup_trials=STARTUP
        )
