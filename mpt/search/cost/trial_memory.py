"""What a trial holds in memory at its peak, counted on shapes before anything is loaded.

Counted are the weights and the largest pass (`mpt.backbones.memory`), with rows of full length:
the safe side. Not counted is what Python, torch and the driver take (about 1 GiB on a GPU).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpt.config import UpstreamConfig
from mpt.search.cost.gpu_share import GIB
from mpt.study.specs import FineTuningConfig

if TYPE_CHECKING:
    from mpt.backbones.memory import Memory
    from mpt.config import StudyConfig
    from mpt.study.specs import TrialSpec

GRAPH_OF = {"unrolled": 3.1, "higher": 3.7}
"""Memory of an engine that keeps its inner steps' graph, in passes of FoMAML
(`benchmarks/meta_step.py`, one inner step; each further step adds as much). The other engines need
about one pass."""

TUNED_COPIES = 3
"""Sets of float32 weights in fine-tuning: the backbone, the trained copy, its gradients."""


@dataclass(frozen=True, kw_only=True)
class TrialMemory:
    """Peak memory of a trial."""

    name: str
    """Backbone and method."""
    peak: int
    """Bytes at the peak."""
    weights: int
    """Bytes of all sets of weights."""
    where: str
    """At which pass the peak is."""

    def __str__(self) -> str:
        return (
            f"{self.peak / GIB:.2f} GiB a trial ({self.name}): {self.weights / GIB:.2f} of "
            f"weights, peak in {self.where}"
        )


def largest_trials(trials: Iterable[TrialSpec], on_gpu: bool) -> list[TrialMemory]:
    """Return the trial with the highest peak of every backbone."""
    largest: dict[str, TrialMemory] = {}
    for trial in trials:
        memory, name = trial_memory(trial, on_gpu), trial.plan.config.backbone
        if name not in largest or memory.peak > largest[name].peak:
            largest[name] = memory
    return list(largest.values())


def trial_memory(trial: TrialSpec, on_gpu: bool) -> TrialMemory:
    """Return the peak memory of a trial on a worker.

    On a GPU packs are cut to what fits: counted is the least, a pass of one batch.
    """
    study = trial.plan.config
    passes = [_tuning(study, on_gpu)]
    weights = passes[0][1].weights
    own = trial.upstream.config
    if isinstance(own, FineTuningConfig):
        tuning = _pass(own.backbone or study.backbone, "float32", study, own.downstream.batch_size)
        weights = TUNED_COPIES * tuning.weights + (weights if _two(study, own.backbone) else 0)
        passes.append((f"fine-tuning, {own.downstream.batch_size} rows", tuning, 1.0))
    elif (learned := trial.learned) is not None:
        passes.append(_upstream(study, learned))
        if study.upstream_format(learned.method) != study.precision:
            weights += passes[-1][1].weights
    where, largest, times = max(passes, key=lambda entry: _held(entry[1], entry[2]))
    return TrialMemory(
        name=f"{study.backbone}, {trial.upstream.config.method}",
        peak=weights + _held(largest, times),
        weights=weights,
        where=where,
    )


def _two(study: StudyConfig, tuned: str | None) -> bool:
    """Return whether fine-tuning starts from other weights than prompts are tuned with."""
    return study.precision != "float32" or (tuned or study.backbone) != study.backbone


def _held(memory: Memory, times: float) -> int:
    """Return the bytes of a pass besides the weights."""
    if times == 1.0:
        return memory.activations
    return int(times * (memory.activations + memory.attention))


def _tuning(study: StudyConfig, on_gpu: bool) -> tuple[str, Memory, float]:
    from mpt.downstream.limits import default_limits

    width = study.prompt.length + study.text.max_input + study.text.max_target
    rows = study.downstream.batch_size
    if not on_gpu:
        rows = max(1, default_limits("cpu").tokens // width)
    where = f"a pass of prompt tuning, {rows} rows"
    return where, _pass(study.backbone, study.precision, study, rows), 1.0


def _upstream(study: StudyConfig, config: UpstreamConfig) -> tuple[str, Memory, float]:
    from mpt.upstream.registry import episodes_a_pass
    from mpt.upstream.second_order import SMALL

    rows = config.batch_size * episodes_a_pass(config)
    precision = study.upstream_format(config.method)
    memory = _pass(study.backbone, precision, study, rows, upstream=True)
    engine = config.second_order
    if engine == "auto":  # as `resolve` has it
        small = precision == "float32" and memory.weights <= 4 * SMALL
        engine = "unrolled" if small else "lean"
    graphs = GRAPH_OF.get(engine, 1.0) if config.method == "maml" else 1.0
    where = f"an upstream pass, {rows} rows"
    return where, memory, 1.0 + (graphs - 1.0) * config.inner_steps


def _pass(
    backbone: str, precision: str, study: StudyConfig, rows: int, *, upstream: bool = False
) -> Memory:
    text = study.upstream_text if upstream else study.text
    shape = (rows, study.prompt.length, text.max_input, text.max_target)
    return _estimate(backbone, precision, *shape)


@functools.lru_cache(maxsize=64)
def _estimate(
    backbone: str, precision: str, rows: int, prompt: int, inputs: int, targets: int
) -> Memory:
    import torch

    from mpt.backbones.memory import estimate

    lengths = {"prompt": prompt, "inputs": inputs, "targets": targets}
    return estimate(backbone, rows=rows, dtype=getattr(torch, precision), **lengths)
