"""A study in Python: what is learned from, what is scored, and how."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mpt.errors import UsageError
from mpt.keys import tupled
from mpt.study.options import StudyOptions

if TYPE_CHECKING:
    from mpt.config import StudyConfig
    from mpt.study.study import StudyPlan


class Study:
    """What all points of a search share: nothing is compared across studies.

    Args:
        backbone: "embedded", "embedded-bart", "embedded-gpt2", a Hub id or a local checkpoint.
        gym: "embedded", or a directory of few-shot files.
        partition: whose source tasks are learned from.
        role: "validation" (a search is scored on validation tasks) or "target".
        scored: these tasks are scored instead.
        source: these tasks are learned from instead.
        allow_missing: go on where the gym lacks tasks; every result is labelled as partial.
        smoke: a tiny size that shows that the path works; its numbers mean nothing. A search in
            it takes the first points only, with few steps.
        preset: table of studies.toml; None: the one that suits the backbone.
        **options: what replaces the preset of the backbone: `prompt_length`, `tuning_steps`,
            `tuning_lrs`, `eval_every`, `data_seeds`, `train_seed`, `starts`, `precision`,
            `upstream_precision`, `replace` (a table: task → task in its place), … (the fields of
            `mpt.study.options.StudyOptions`).

    Raises:
        UsageError: an option is unknown or not allowed.
    """

    def __init__(
        self,
        *,
        backbone: str = "embedded",
        gym: str = "embedded",
        partition: str = "random_to_random",
        role: str = "validation",
        scored: Sequence[str] | None = None,
        source: Sequence[str] | None = None,
        allow_missing: bool = False,
        smoke: bool = False,
        preset: str | None = None,
        **options: Any,
    ) -> None:
        from mpt.study.presets import load_study

        known = StudyOptions.__dataclass_fields__
        for name in options:
            if name not in known:
                raise UsageError(f"option {name!r} is unknown; known are {', '.join(known)}")
        options = {k: _frozen(v) for k, v in options.items()}
        study = load_study(backbone, smoke=smoke, preset=preset)
        study = dataclasses.replace(study, gym=str(gym), partition=partition)
        self.config: StudyConfig = StudyOptions(**options).apply(study)
        """All settings."""
        self.smoke = smoke
        self._role, self._scored, self._source = role, scored, source
        self._allow_missing = allow_missing

    def plan(self, *, files: bool = True, **changes: Any) -> StudyPlan:
        """Return the study with the names of its tasks; their files are looked for.

        Args:
            files: False: look for no files, and name no tasks.
            **changes: arguments of `mpt.study.study.plan_study` in place of the study's own.

        Raises:
            UsageError: the partition is unknown, or the gym absent.
            DataError: tasks are missing; all of them are listed.
        """
        from mpt.study.presets import load_smoke_size
        from mpt.study.study import StudyPlan, plan_study

        if not files:
            return StudyPlan(config=self.config, source=(), scored=(), partial=None)
        arguments: dict[str, Any] = {
            "role": self._role,
            "scored": self._scored,
            "source": self._source,
            "allow_missing": self._allow_missing,
            "smoke_sources": load_smoke_size().source_tasks if self.smoke else None,
        }
        if self._source is not None:
            arguments["source_set"] = "own"
        return plan_study(**{"config": self.config, **arguments, **changes})

    def on(self, partition: str) -> Study:
        """Return the same study on another partition, scored on its target tasks."""
        other = Study.__new__(Study)
        other.__dict__.update(self.__dict__)
        other.config = dataclasses.replace(self.config, partition=partition)
        other._role, other._scored, other._source = "target", None, None
        return other

    def _shown(self) -> dict[str, Any]:
        """Return the settings that tell studies apart at a glance."""
        config = self.config
        return {
            "backbone": config.backbone,
            "gym": config.gym,
            "partition": config.partition,
            "prompt_length": config.prompt.length,
            "tuning_steps": config.downstream.steps,
            "data_seeds": list(config.data_seeds),
            "train_seed": config.train_seed,
            **({} if config.starts == 1 else {"starts": config.starts}),
            "precision": config.precision,
        }

    def __repr__(self) -> str:
        shown = (f"{name}={value!r}" for name, value in self._shown().items())
        return f"Study({', '.join(shown)})"

    def _repr_html_(self) -> str:
        import pandas as pd

        from mpt.store.frames import html_of

        return html_of(pd.DataFrame([self._shown()]))


def _frozen(value: Any) -> Any:
    """Return a list as a tuple, and a table as a tuple of pairs."""
    if isinstance(value, dict):
        return tuple(value.items())
    return tupled(value)
