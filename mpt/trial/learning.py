"""What a trial learns upstream: one trajectory, or the members of a soup.

The members of a soup are ordinary trajectories. They are learned one after the other inside the
trial, each up to the next rung, and each is kept at its rungs under its own key: so a soup takes
what a search of single runs (or a smaller soup) has left, and leaves its members to others. Member
trials and a trial of their mean would have to wait for each other; here a checkpoint is that of
all members, and whatever was killed, each is the same bit for bit, and so is their mean.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mpt.errors import DataError
from mpt.store.records import Cost
from mpt.trial.files import Rung, keep_file, load_rung
from mpt.trial.runs import member_keys
from mpt.trial.starts import LEARNED
from mpt.upstream.jumps import Jump, as_record, largest_of
from mpt.upstream.soup import mean_prompt, members_of, soup_key

if TYPE_CHECKING:
    from torch import Tensor

    from mpt.config import UpstreamConfig
    from mpt.store.artifacts import Artifacts
    from mpt.study.study import OpenStudy
    from mpt.trial.store import TrialStore
    from mpt.upstream.engine import UpstreamRun


@dataclasses.dataclass(frozen=True)
class RungStore:
    """Where trajectories are learned and kept."""

    study: OpenStudy
    store: TrialStore
    artifacts: Artifacts
    problem: Callable[[str], None]
    """Called with what was found broken."""

    def rung(self, upstream: str, steps: int) -> Rung | None:
        """Return a stored rung; None if there is none, or it is broken."""
        device = self.study.backbone.device
        try:
            return load_rung(self.store, self.artifacts, upstream, steps, device)
        except DataError as error:
            self.problem(f"{error}; the rung is computed again")
            return None

    def keep(self, upstream: str, steps: int, prompt: Any, cost: Cost, jump: Jump | None) -> Rung:
        """Keep a prompt [P, d], copied, at a rung of a trajectory or soup; return it.

        `cost` and the largest `jump` of the loss are from step 0 on.
        """
        from mpt.prompts import prompt_bytes, prompt_digest

        rung = Rung(steps, prompt.detach().clone(), prompt_digest(prompt), cost, jump)
        name = f"rungs/{upstream}/{steps}.safetensors"
        meta = {"digest": rung.digest, **dataclasses.asdict(cost)}
        if jump is not None:
            meta["jump"] = as_record(jump)
        data = prompt_bytes(rung.prompt, {"upstream": upstream, "steps": str(steps)})
        keep_file(self.store, self.artifacts, "rung", upstream, steps, name, data, meta)
        return rung


class Trajectory:
    """One upstream trajectory: learned in chunks, kept at its rungs."""

    def __init__(self, rung_store: RungStore, config: UpstreamConfig, key: str) -> None:
        self.key = key
        self._rung_store, self._config = rung_store, config
        self._run: UpstreamRun | None = None
        self._rung: Rung | None = None
        self._saved: dict[str, Any] | None = None
        self._step_s: float | None = None

    @property
    def steps(self) -> int:
        """Steps taken, as far as is known here."""
        taken = 0 if self._run is None else self._run.step_count
        return max(taken, 0 if self._rung is None else self._rung.steps)

    @property
    def cost(self) -> Cost:
        """What it has cost so far."""
        if self._run is not None and self._run.step_count >= self.steps:
            return Cost(**dataclasses.asdict(self._run.cost))
        return Cost() if self._rung is None else self._rung.cost

    def state(self) -> dict[str, Any] | None:
        """Return what a checkpoint holds; None before any step."""
        return self._saved if self._run is None else self._run.state_dict()

    def load_state(self, state: dict[str, Any] | None) -> None:
        """Go on from a state; it is looked at when it is needed."""
        self._saved = state

    def rung(self, steps: int) -> Rung | None:
        """Return the prompt at a rung, if it has been learned."""
        if self._rung is None or self._rung.steps != steps:
            self._rung = self._rung_store.rung(self.key, steps)
        return self._rung

    def learn(self, rung: int, chunk_s: float) -> Rung | None:
        """Take steps for about `chunk_s` seconds, at most up to a rung; return it if reached.

        How many steps make a chunk depends on the clock; the state after n steps does not.

        Raises:
            Diverged: the trajectory has no more states.
        """
        run = self._upstream(rung)
        chunk = 1 if self._step_s is None else max(1, int(chunk_s / self._step_s))
        steps = min(rung - run.step_count, chunk)
        started = time.perf_counter()
        run.advance(steps)
        if steps:
            self._step_s = (time.perf_counter() - started) / steps
        if run.step_count != rung:
            return None
        self._rung = self._rung_store.keep(self.key, rung, run.prompt, self.cost, run.jump)
        return self._rung

    def _upstream(self, rung: int) -> UpstreamRun:
        """Return the upstream run, at the saved state if that is not beyond the rung."""
        from mpt.upstream.engine import UpstreamRun

        if self._run is not None and self._run.step_count <= rung:
            return self._run
        study = self._rung_store.study
        self._run = UpstreamRun(
            study.upstream_backbone(self._config.method),
            study.items,
            self._config,
            study.config.prompt,
            study.config.upstream_text,
            study.config.train_seed,
        )
        if self._saved is not None and self._saved["meta"]["step_count"] <= rung:
            try:
                self._run.load_state_dict(self._saved)
            except DataError as error:  # it leaves the run as it was: at step 0
                self._rung_store.problem(str(error))
        self._saved = None
        return self._run


class Learning:
    """The trajectory of a trial, or the trajectories of its soup."""

    def __init__(self, rung_store: RungStore, config: UpstreamConfig) -> None:
        self._rung_store = rung_store
        configs = members_of(config, rung_store.study.config.train_seed)
        keys = member_keys(rung_store.study, config)
        self.members = [Trajectory(rung_store, *one) for one in zip(configs, keys, strict=True)]
        self.key = soup_key(keys)
        self._rung: Rung | None = None

    @property
    def steps(self) -> int:
        """Steps taken, in a soup the mean of its members', rounded down."""
        return sum(member.steps for member in self.members) // len(self.members)

    @property
    def cost(self) -> Cost:
        """What all members have cost so far."""
        return total_cost([member.cost for member in self.members])

    def state(self) -> dict[str, Any] | None:
        """Return what a checkpoint holds."""
        if len(self.members) == 1:
            return self.members[0].state()
        return {member.key: member.state() for member in self.members}

    def load_state(self, state: dict[str, Any] | None) -> None:
        """Go on from a state; one that is of other trajectories is passed over."""
        if len(self.members) == 1:
            self.members[0].load_state(state)
            return
        for member in self.members:
            member.load_state((state or {}).get(member.key))

    def starts(self, steps: int) -> dict[str, Tensor] | None:
        """Return the prompts [P, d] at a rung by their names: the one learned, and members.

        None if a member's is lost.
        """
        rungs = {LEARNED: self.rung(steps)}
        if len(self.members) > 1:
            numbered = enumerate(self.members, start=1)
            rungs |= {f"member {number}": member.rung(steps) for number, member in numbered}
        prompts = {name: rung.prompt for name, rung in rungs.items() if rung is not None}
        return prompts if len(prompts) == len(rungs) else None

    def rung(self, steps: int) -> Rung | None:
        """Return the prompt at a rung, if it has been learned."""
        if len(self.members) == 1:
            return self.members[0].rung(steps)
        if self._rung is None or self._rung.steps != steps:
            self._rung = self._rung_store.rung(self.key, steps)
        return self._rung

    def learn(self, rung: int, chunk_s: float) -> Rung | None:
        """Learn for about `chunk_s` seconds towards a rung; return it if it is reached.

        Raises:
            Diverged: a trajectory has no more states.
        """
        for number, member in enumerate(self.members, start=1):
            if member.rung(rung) is None and self._learn(number, member, rung, chunk_s) is None:
                return None
        if len(self.members) == 1:
            return self.members[0].rung(rung)
        rungs = [reached for member in self.members if (reached := member.rung(rung)) is not None]
        prompt = mean_prompt([one.prompt for one in rungs])
        cost = total_cost([one.cost for one in rungs])
        jump = largest_of([one.jump for one in rungs])
        self._rung = self._rung_store.keep(self.key, rung, prompt, cost, jump)
        return self._rung

    def _learn(self, number: int, member: Trajectory, rung: int, chunk_s: float) -> Rung | None:
        from mpt.upstream.engine import Diverged

        try:
            return member.learn(rung, chunk_s)
        except Diverged as error:
            if len(self.members) == 1:
                raise
            whose = f"{error.reason} (member {number} of {len(self.members)})"
            raise Diverged(error.step, whose) from None


def total_cost(costs: list[Cost]) -> Cost:
    """Return the sum of some costs; that of one is itself."""
    if len(costs) == 1:
        return costs[0]
    names = [field.name for field in dataclasses.fields(Cost)]
    return Cost(**{name: sum(getattr(one, name) for one in costs) for name in names})
