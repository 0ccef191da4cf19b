"""Settings of a study that people change: by keyword in Python, by flag on the command line."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from mpt.config import StudyConfig


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """What replaces the values of a preset; None leaves a value as it is."""

    prompt_length: int | None = None
    """Virtual tokens P."""
    prompt_position: str | None = None
    """"prepend" or "append"."""
    max_input: int | None = None
    """Tokens of an input, end mark included."""
    max_target: int | None = None
    """Tokens of a target, end mark included."""
    template: str | None = None
    """"plain" text to text, or "chat": the template of the model's tokenizer, upstream too."""
    tuning_steps: int | None = None
    """Steps of a downstream run."""
    tuning_lrs: tuple[float, ...] | None = None
    """Downstream learning rates; ties on dev keep the earlier one."""
    tuning_start: str | None = None
    """"learned", or by the target itself "chosen" or "raced"."""
    race_steps: int | None = None
    """Steps of a race of starts."""
    tuning_batch: int | None = None
    """Examples of a downstream step."""
    eval_every: int | None = None
    """Downstream steps between two dev evaluations."""
    max_dev: int | None = None
    """Dev rows used."""
    max_test: int | None = None
    """Test rows used."""
    data_seeds: tuple[int, ...] | None = None
    """Few-shot samples."""
    replicates: int | None = None
    """Upstream seeds of a configuration."""
    upstream_seeds: tuple[int, ...] | None = None
    """These upstream seeds in their place."""
    fresh_replicates: int | None = None
    """Further upstream seeds that a winner is reported on."""
    starts: int | None = None
    """Downstream starts of a cell."""
    replace: tuple[tuple[str, str], ...] | None = None
    """(task, task in its place), where tasks of the catalogue cannot be had any more."""
    train_seed: int | None = None
    """Root of every generator."""
    precision: str | None = None
    """Number format of weights and activations, upstream and downstream."""
    upstream_precision: str | None = None
    """Number format upstream, where it is to be another."""

    def apply(self, study: StudyConfig) -> StudyConfig:
        """Return a study with these values in place of its own.

        Raises:
            UsageError: a value is not allowed; all of a part's are named at once.
        """
        prompt = _given(length=self.prompt_length, position=self.prompt_position)
        template = _given(template=self.template)
        text = _given(max_input=self.max_input, max_target=self.max_target, **template)
        downstream = _given(
            steps=self.tuning_steps,
            lrs=self.tuning_lrs,
            start=self.tuning_start,
            race_steps=self.race_steps,
            batch_size=self.tuning_batch,
            eval_every=self.eval_every,
            max_dev=self.max_dev,
            max_test=self.max_test,
        )
        own = _given(
            data_seeds=self.data_seeds,
            replicates=self.replicates,
            upstream_seeds=self.upstream_seeds,
            fresh_replicates=self.fresh_replicates,
            starts=self.starts,
            replaced=self.replace,
            train_seed=self.train_seed,
            precision=self.precision,
        )
        if study.upstream_lengths is not None:
            own["upstream_lengths"] = dataclasses.replace(study.upstream_lengths, **template)
        if (self.precision, self.upstream_precision) != (None, None):
            own["upstream_precision"] = self.upstream_precision
        return dataclasses.replace(
            study,
            prompt=dataclasses.replace(study.prompt, **prompt),
            text=dataclasses.replace(study.text, **text),
            downstream=dataclasses.replace(study.downstream, **downstream),
            **own,
        )


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
