"""The loop that all upstream methods share: episodes in, one Adafactor step out, state saved.

A trajectory is a pure function of what its key holds: nothing in it depends on how many steps are
planned, on the clock, or on a global generator. So the state after n steps is the same, bit for
bit, whether it was reached at once, in chunks or after a resume, and one trajectory serves every
smaller number of steps (rungs). An average of the iterates depends on their number alone, so it
keeps this; a learning rate that decays towards a horizon does not: the horizon is in the key.

The episodes of a step go through the model one after the other, or several in shared passes
(`UpstreamConfig.items_per_pass`): their prompts stand in a stack, and every row is read with that
of its own episode. Their numbers are then the same up to rounding, but for dropout's draws. On one
thread of a CPU a FoMAML step of 2 to 8 episodes of four rows took .87 to .78 times the seconds on
the embedded model, and .97 to .94 times on the shapes of t5-small and t5-base
(benchmarks/sides/shared_passes.py); on a GPU it has not been measured.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mpt.allocator import keep_freed_memory
from mpt.backbones.base import Backbone
from mpt.config import PromptConfig, TextConfig, UpstreamConfig
from mpt.errors import DataError, MptError, UsageError
from mpt.gym.episodes import Episode
from mpt.gym.fewshot import with_answers_apart
from mpt.keys import changed, key_of
from mpt.optim import Adafactor
from mpt.prompts import init_upstream
from mpt.seeds import derive, numpy_generator
from mpt.upstream.jumps import Jump, LossWatch
from mpt.upstream.losses import Cost, ItemsLoss
from mpt.upstream.one_episode import on_stacks
from mpt.upstream.registry import UPSTREAM_METHODS, episodes_a_pass
from mpt.upstream.second_order import resolve

if TYPE_CHECKING:
    from mpt.gym.fewshot import FewShotTask

SCHEMA = 2
"""Raise it whenever the code changes what a trajectory's numbers are; old checkpoints then end."""


AVERAGE_POWER = 3
"""η of the polynomial average: mean_t = mean_{t−1} + (η + 1) / (t + η) · (φ_t − mean_{t−1}).

The iterate of step t weighs in proportion to about t^η, the first steps hardly at all (Shamir and
Zhang 2013, https://arxiv.org/abs/1212.1824)."""

MOMENTUM = 0.9
"""β of schedule-free learning: a step's gradients are taken at (1 − β) · iterate + β · mean, and
the mean of t iterates is plain, η = 0 (Defazio et al. 2024, https://arxiv.org/abs/2405.15682)."""

_log = logging.getLogger(__name__)


class Diverged(MptError):
    """A loss or gradient of the trajectory is not finite; the state is that before `step`."""

    def __init__(self, step: int, reason: str):
        super().__init__(f"upstream learning diverged at step {step}: {reason}")
        self.step = step
        self.reason = reason


class UpstreamRun:
    """One upstream trajectory: a prompt on its way from the initialisation to φ*.

    Args:
        backbone: the frozen model; its position must be the prompt's.
        tasks: the items, one `FewShotTask` per (task, data seed), in a fixed order.
        config: the method and its settings.
        prompt_config: length and position of the prompt.
        text: lengths of inputs and targets.
        root_seed: root of initialisation, item order, batches and dropout, unless the method's
            settings have a seed of their own.

    Attributes:
        step_count: outer steps taken.
        iterate: φ [P, d], float32 (float64 on a float64 backbone), updated in place.
        prompt: φ* as it stands [P, d]: the iterate, or the average of all iterates.
        cost: see `Cost`.
        query_loss: mean over the last step's episodes of the loss that the method reports (on
            query rows after adaptation; Reptile and multitask learning: on their training rows);
            NaN before the first step.
        jump: the largest jump of this loss so far, see `mpt.upstream.jumps`.
        key: see `trajectory_key`.
    """

    def __init__(
        self,
        backbone: Backbone,
        tasks: Sequence[FewShotTask],
        config: UpstreamConfig,
        prompt_config: PromptConfig,
        text: TextConfig,
        root_seed: int,
    ):
        if backbone.position != prompt_config.position:
            raise UsageError(
                f"prompt position is {prompt_config.position!r}, but backbone {backbone.name} "
                f"was loaded for {backbone.position!r}"
            )
        if config.soup != 1:
            raise UsageError(
                f"soup is {config.soup}, but must be 1 in one trajectory; run each of `members_of`"
            )
        keep_freed_memory(backbone.device)
        root_seed = root_seed if config.seed is None else config.seed
        start_seed = root_seed if config.start_seed is None else config.start_seed
        self._backbone, self._config, self._root = backbone, acting(config, backbone), root_seed
        self._method = UPSTREAM_METHODS[config.method]
        self._stream = self._method.stream(tasks, config, root_seed)
        read = map(with_answers_apart, tasks) if config.answers == "random" else tasks
        self._data = self._method.rows(backbone, list(read), own_text(config, text))
        self.key = trajectory_key(backbone, tasks, config, prompt_config, text, root_seed)
        names = start_names(tasks, config, start_seed)
        rng = numpy_generator(start_seed, "init", "upstream")
        start = init_upstream(backbone, names, prompt_config.length, rng)
        wide = torch.float64 if backbone.dtype == torch.float64 else torch.float32
        start = start.to(backbone.device, wide)
        self._mean = start.clone() if config.average != "last" else None
        self._optimiser = Adafactor(start[None], [config.outer_lr])
        self.step_count = 0
        self.cost = Cost()
        self.query_loss = math.nan
        self._watch = LossWatch()
        self._log_choices(config)

    @property
    def iterate(self) -> Tensor:
        """φ [P, d], a view of the state: clone it to keep it."""
        return self._optimiser.prompts[0]

    @property
    def prompt(self) -> Tensor:
        """φ* as it stands [P, d], a view of the state; before the first step it is the start."""
        return self.iterate if self._mean is None else self._mean

    @property
    def jump(self) -> Jump | None:
        """The largest jump of the loss so far; None if there was none."""
        return self._watch.largest

    def advance(self, n_steps: int) -> None:
        """Take `n_steps` more outer steps.

        Raises:
            Diverged: a loss or gradient is not finite; the state stays that before the step.
            UsageError: the steps would lead beyond the horizon of the learning rate.
        """
        horizon = self._config.decay_horizon
        if horizon is not None and self.step_count + n_steps > horizon:
            raise UsageError(
                f"steps are {self.step_count + n_steps}, but must be at most {horizon}, the "
                "decay_horizon at which the learning rate is 0; raise it, or take fewer steps"
            )
        for _ in range(n_steps):
            started = time.perf_counter()
            self._step()
            self.cost.seconds += time.perf_counter() - started

    def _step(self) -> None:
        """Take one outer step: the sum or mean of the gradients of `items_per_step` episodes."""
        if not self._method.learns:
            self.step_count, self.query_loss = self.step_count + 1, 0.0
            self.cost.steps += 1
            return
        count = self._config.items_per_step
        total = torch.zeros_like(self.iterate)
        losses = []
        seen = Cost()
        for episodes in self._episodes_of_step():
            for episode, gradient, loss in zip(episodes, *self._gradients(episodes), strict=True):
                if not math.isfinite(loss):
                    kind = "query loss" if self._method.query else "loss"
                    raise Diverged(self.step_count + 1, f"{kind} of {episode.task} is {loss}")
                total += gradient
                losses.append(loss)
                self._data.count(episode, seen)
        if self._method.averages:
            total /= count
        if not bool(total.isfinite().all()):
            raise Diverged(self.step_count + 1, "the outer gradient is not finite")
        self._move(total)
        self.query_loss = sum(losses) / count
        self._watch.see(self.step_count, self.query_loss)
        self.cost.steps += 1
        self.cost.examples += seen.examples
        self.cost.tokens += seen.tokens

    def _episodes_of_step(self) -> Iterator[list[Episode]]:
        """Yield the episodes of the next step, those together that share passes."""
        count, together = self._config.items_per_step, self._config.items_per_pass
        places = range(self.step_count * count, (self.step_count + 1) * count)
        for first in range(0, count, together):
            yield [self._episode(index) for index in places[first : first + together]]

    def _move(self, gradient: Tensor) -> None:
        """Take the outer step along a gradient [P, d], at the step's own rate, and average."""
        horizon, outer_lr = self._config.decay_horizon, self._config.outer_lr
        if horizon is not None:
            self._optimiser.set_lrs([outer_lr * (1 - self.step_count / horizon)])
        self._optimiser.step(gradient[None])
        self.step_count += 1
        if self._mean is not None:
            power = AVERAGE_POWER if self._config.average == "polynomial" else 0
            self._mean.lerp_(self.iterate, (power + 1) / (self.step_count + power))

    def _episode(self, index: int) -> Episode:
        """Return the episode at a position of the stream, with a query batch where one is used."""
        episode = self._stream.episode(index)
        return episode if self._method.query else dataclasses.replace(episode, query=())

    def _gradient_point(self) -> Tensor:
        """Return where a step's gradients are taken [P, d]: the iterate, or near the average."""
        if self._mean is None or self._config.average != "schedule_free":
            return self.iterate
        return torch.lerp(self.iterate, self._mean, MOMENTUM)

    def _gradients(self, episodes: Sequence[Episode]) -> tuple[Tensor, list[float]]:
        """Return the outer gradients [E, P, d] of episodes that share passes, and their losses."""
        together = None
        if self._config.support_draw == "jointly":  # and then padded together too
            together = [[row for batch in one.support for row in batch] for one in episodes]
        loss = ItemsLoss(
            self._backbone,
            self._data,
            [episode.item for episode in episodes],
            checkpointing=self._config.activation_checkpointing,
            together=together,
        )
        # A pass has one stream of random numbers: that of the first of its episodes.
        seed = derive(self._root, "dropout", "upstream", episodes[0].index)
        prompts = self._gradient_point().expand(len(episodes), -1, -1).contiguous()
        outer_gradients = on_stacks(self._method.outer_gradient)
        with self._backbone.dropout(self._config.dropout, seed):
            return outer_gradients(loss, prompts, episodes, self._config)

    def _log_choices(self, asked: UpstreamConfig) -> None:
        """Tell which engine and which attention were chosen."""
        engine, attention = "none", "fused"
        if self._method.second_order:
            engine = self._config.second_order
            engine += " (auto)" if asked.second_order == "auto" else ""
            if self._config.second_order != "finite_difference":
                attention = "math where it is differentiated twice, fused elsewhere"
        _log.info("%s: second order: %s; attention: %s", asked.method, engine, attention)

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state: ``{"tensors": {name: Tensor}, "meta": {…}}``.

        The tensors are copies on the CPU (fit for safetensors) and `meta` is fit for JSON. There
        is no generator to save: all draws are functions of root seed and `step_count`.
        """
        tensors = {"prompt": self.iterate, **self._optimiser.state_dict()}
        if self._mean is not None:
            tensors["mean"] = self._mean
        return {
            "tensors": {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()},
            "meta": {
                "key": self.key,
                "step_count": self.step_count,
                "query_loss": self.query_loss if math.isfinite(self.query_loss) else None,
                "cost": dataclasses.asdict(self.cost),
                "losses": self._watch.state(),
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of the same trajectory.

        Raises:
            DataError: the state is of another trajectory or incomplete; nothing is changed then.
        """
        try:
            tensors, meta = dict(state["tensors"]), state["meta"]
            if meta["key"] != self.key:
                raise DataError(
                    f"checkpoint is of trajectory {meta['key'][:12]}, but this one is "
                    f"{self.key[:12]}: settings, data, backbone or code differ; start it anew"
                )
            prompt, loss = tensors.pop("prompt"), meta["query_loss"]
            watch = LossWatch()
            watch.load(meta.get("losses") or {})  # a checkpoint of an older version has none
            mean = None if self._mean is None else tensors.pop("mean").to(self._mean)
            cost, step_count = Cost(**meta["cost"]), int(meta["step_count"])
            if any(t is not None and t.shape != self.iterate.shape for t in (prompt, mean)):
                raise DataError(f"checkpoint's prompt is {tuple(prompt.shape)}; start anew")
            self._optimiser.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"checkpoint is incomplete ({error}); start it anew") from None
        self.iterate.copy_(prompt)
        if self._mean is not None and mean is not None:
            self._mean.copy_(mean)
        self.step_count, self.cost, self._watch = step_count, cost, watch
        self.query_loss = math.nan if loss is None else float(loss)


def start_names(tasks: Sequence[FewShotTask], config: UpstreamConfig, seed: int) -> list[str]:
    """Return names of source tasks in the order in which they become rows of the start.

    There are none where it is made of words of the vocabulary alone.
    """
    if config.start == "words":
        return []
    names = list(dict.fromkeys(task.name for task in tasks))
    if config.start == "drawn":
        order = numpy_generator(seed, "names", "upstream").permutation(len(names))
        return [names[at] for at in order]
    return names


def own_text(config: UpstreamConfig, text: TextConfig) -> TextConfig:
    """Return the lengths of a method's rows: the study's, or its own where it has any."""
    if config.max_target is None:
        return text
    return dataclasses.replace(text, max_target=config.max_target)


def acting(config: UpstreamConfig, backbone: Backbone) -> UpstreamConfig:
    """Return the settings as they act: what is left open is chosen, what changes nothing is 1."""
    return dataclasses.replace(resolve(config, backbone), items_per_pass=episodes_a_pass(config))


def trajectory_key(
    backbone: Backbone,
    tasks: Sequence[FewShotTask],
    config: UpstreamConfig,
    prompt_config: PromptConfig,
    text: TextConfig,
    root_seed: int,
) -> str:
    """Return the key of everything that can change a trajectory, its length excepted.

    An upstream seed is a root like any other: it stands in the place of `root_seed`.
    """
    if config.seed is not None:
        root_seed, config = config.seed, dataclasses.replace(config, seed=None)
    if config.start_seed == root_seed:
        config = dataclasses.replace(config, start_seed=None)
    identity = {
        "code": SCHEMA,
        "config": {"method": config.method, **changed(acting(config, backbone))},
        "prompt": changed(prompt_config),
        "text": changed(text),
        "backbone": backbone.digest,
        "data": [[task.name, task.seed, task.digest] for task in tasks],
        "root_seed": root_seed,
    }
    version = UPSTREAM_METHODS[config.method].version
    if version:
        identity["version"] = version
    return key_of("upstream", identity)
