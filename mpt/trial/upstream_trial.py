"""The trial of a method that learns a prompt upstream and tunes it at every rung."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mpt.store.records import JUMP
from mpt.trial.learning import Learning, RungStore
from mpt.trial.run_queue import RunQueue
from mpt.trial.runs import RunPack, chosen_packs, keys_of, learned_packs
from mpt.trial.score import PlannedScore
from mpt.trial.starts.choice import StartChoice, summary, words
from mpt.trial.trial import Cell, Stopped, Trial
from mpt.upstream.jumps import as_record

if TYPE_CHECKING:
    from mpt.trial.files import Rung


class UpstreamTrial(Trial):
    """Learns a prompt upstream and tunes it at every rung."""

    _queue: RunQueue | None = None
    _saved_queue: dict[str, Any] | None = None
    _choosing: tuple[str, StartChoice] | None = None
    _saved_choice: dict[str, Any] | None = None

    @cached_property
    def _learning(self) -> Learning:
        config = self._cells[0].spec.upstream.learned
        assert config is not None
        rung_store = RungStore(self._cells[0].study, self._store, self._artifacts, self._problem)
        return Learning(rung_store, config)

    def state(self) -> dict[str, Any]:
        """Return the states of upstream learning, the queue of runs and a choice of starts."""
        state = {
            "upstream": self._learning.state(),
            "queue": self._saved_queue if self._queue is None else self._queue.state(),
        }
        choosing = self._choosing
        choice = self._saved_choice if choosing is None else choosing[1].state()
        return state if choice is None else {**state, "choice": choice}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state of this trial; it is looked at when it is needed."""
        self._learning.load_state(state.get("upstream"))
        self._saved_queue = state.get("queue")
        self._saved_choice = state.get("choice")

    def _work(self, cell: Cell, rung: int) -> None:
        start = self._learning.rung(rung)
        if start is None:
            start = self._learn(rung)
        if start is None:
            return
        self.progress.steps = max(self.progress.steps, rung)
        packs = self._packs(cell, start)
        if packs is None:
            return
        if self._queue is None:
            if self._given_up(cell, rung, packs):
                return
            stage = self._stage(cell, packs)
            self._queue, ready = self._open_queue(cell.study, stage, self._saved_queue)
            self._saved_queue = None
            if not ready:
                return
        if not self._queue.done:
            self._work_on(self._queue)
        if not self._queue.done:
            return
        self._queue = None
        told = self._told(cell, start)
        self._put(cell, rung, runs=tuple(keys_of(packs)), cost=start.cost, **told)

    def _learn(self, rung: int) -> Rung | None:
        """Learn for a while towards a rung; return it if it is reached."""
        from mpt.upstream.engine import Diverged

        reached = None
        try:
            reached = self._learning.learn(rung, self._options.chunk_s)
        except Diverged as error:
            self._record_divergence(rung, str(error))
        self.progress.steps = self._learning.steps
        return reached

    def _packs(self, cell: Cell, rung: Rung) -> list[RunPack] | None:
        """Return the packs of a rung; None while its targets are choosing their starts."""
        if cell.study.config.downstream.start == "learned":
            return learned_packs(cell.study, rung.prompt)
        choice = self._choice(cell, rung.steps)
        if choice is None or not self._choose(choice):
            return None
        return chosen_packs(cell.study, choice)

    def _choose(self, choice: StartChoice) -> bool:
        """Go on with a choice of starts; return whether it is made."""
        if choice.record is not None:
            return True
        progress, (steps, rows) = self.progress, choice.done
        made = choice.advance(self._options.chunk_s)
        progress.choice_steps += choice.done[0] - steps
        progress.choice_rows += choice.done[1] - rows
        progress.choosing = choice.status
        return made

    def _choice(self, cell: Cell, steps: int) -> StartChoice | None:
        """Return the choice among the starts at a rung; None while a lost one is learned again."""
        point = self._point(cell, steps)
        if self._choosing is None or self._choosing[0] != point:
            starts = self._learning.starts(steps)
            if starts is None:
                self._learn(steps)
                return None
            choice = StartChoice(cell.study, starts, self._store, point, self._problem)
            if self._saved_choice is not None:
                choice.load_state(self._saved_choice)
                self._saved_choice = None
            self._choosing = point, choice
        return self._choosing[1]

    def _told(self, cell: Cell, rung: Rung) -> dict[str, Any]:
        """Return what a point says of its starts, and of a loss that has jumped."""
        notes, origin = [], {}
        if rung.jump is not None:
            notes, origin = [rung.jump.text], {JUMP: as_record(rung.jump)}
        if cell.study.config.downstream.start == "learned":
            return {"prompt": rung.digest, "note": "; ".join(notes), "origin": origin}
        choice = self._choice(cell, rung.steps)
        assert choice is not None
        assert choice.record is not None
        note = "; ".join([words(choice.record), *notes])
        origin["starts"] = summary(choice.record)
        return {"prompt": None, "note": note, "origin": origin}

    def _stage(self, cell: Cell, packs: list[RunPack]) -> list[RunPack]:
        """Return what is tuned side by side: everything, or in a race the next data seed."""
        if not self._options.racing:
            return packs
        stored_keys = self._store.present(keys_of(packs))
        for seed in cell.study.config.data_seeds:
            stage = [pack.of_seed(seed) for pack in packs]
            if any(pack.missing(stored_keys) for pack in stage):
                return stage
        return packs

    def _given_up(self, cell: Cell, rung: int, packs: Sequence[RunPack]) -> bool:
        """Return whether the point at a rung cannot reach the leader any more; note why."""
        if not self._options.racing:
            return False
        runs = [
            PlannedScore(
                run.key, run.task.name, run.task.seed, float(run.lr), run.identity.train_seed
            )
            for pack in packs
            for run in pack.runs
        ]
        reason = self._store.racing_reason(cell.key, cell.spec.method, runs)
        if reason is not None:
            self.progress.stopped = Stopped(rung, reason)
        return reason is not None

    def _record_divergence(self, rung: int, note: str) -> None:
        """Record this rung and all later ones as diverged: a trajectory has no more states."""
        cost = self._learning.cost
        for cell in self._cells:
            for later in cell.rungs:
                if later >= rung and self._point(cell, later) not in self._stored:
                    self._put(
                        cell, later, prompt=None, runs=(), cost=cost, status="diverged", note=note
                    )
