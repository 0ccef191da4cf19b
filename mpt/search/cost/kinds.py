"""Kinds of work that differ in speed: what the planner measures each once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpt.config import adapts

if TYPE_CHECKING:
    from mpt.config import StudyConfig


def step_kind(study: StudyConfig, trajectory: Any) -> str:
    """Return the kind of a trajectory's upstream steps, for people too.

    Args:
        study: backbone, lengths and number format.
        trajectory: `UpstreamConfig`, or the settings of another method, which has no steps. A step
            of a soup is one of each of its members.
    """
    if not hasattr(trajectory, "items_per_step"):
        return "no upstream steps"
    inner = "" if not adapts(trajectory.method) else f" {trajectory.inner_steps} inner,"
    return (
        f"{trajectory.method},{inner} batch {trajectory.batch_size} × {trajectory.items_per_step}"
        f"{_engine(trajectory)}, "
        f"{_model(study, study.upstream_format(trajectory.method))}"
    )


def _engine(trajectory: Any) -> str:
    engine = "" if trajectory.second_order == "auto" else f", {trajectory.second_order}"
    checkpoints = ", activation checkpoints" if trajectory.activation_checkpointing else ""
    dropout = ", dropout" if trajectory.dropout else ""
    soup = "" if trajectory.soup == 1 else f", soup of {trajectory.soup}"
    return engine + checkpoints + dropout + soup


def run_kind(study: StudyConfig, tuned: str) -> str:
    """Return the kind of a study's runs; `tuned` is "prompt", "weights" or "nothing"."""
    down = study.downstream
    search = f", {down.beams} beams" if down.beams > 1 else ""
    if tuned == "nothing":
        return f"zero-shot{search}, {_weights(study, study.precision)}"
    dropout = ", dropout" if down.dropout else ""
    model = _model(study, study.precision)
    return f"{tuned} tuning, batch {down.batch_size}{search}{dropout}, {model}"


def _model(study: StudyConfig, precision: str) -> str:
    return f"{_weights(study, precision)}, {study.prompt.length} prompt tokens"


def _weights(study: StudyConfig, precision: str) -> str:
    return study.backbone if precision == "float32" else f"{study.backbone} {precision}"
