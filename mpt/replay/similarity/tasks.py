"""The tasks whose inputs are compared, and the study that says how they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mpt.config import StudyConfig
from mpt.errors import DataError, UsageError
from mpt.gym.catalogue import load_catalogue, missing_tasks
from mpt.gym.fewshot import FewShotTask, load_task
from mpt.replay.request import Request, default_backbone
from mpt.replay.source import study_for
from mpt.study.study import absolute, gym_folder
from mpt.words import counted


def study_of_one(request: Request) -> StudyConfig:
    """Return the study of a request for one backbone; names in it are those of the records.

    Raises:
        UsageError: the request is for several backbones.
    """
    backbones = request.backbones or (default_backbone(request),)
    if len(backbones) > 1:
        raise UsageError(
            f"backbones are {', '.join(backbones)}, but tasks are compared on one; give one"
        )
    return absolute(study_for(request, backbones[0]))


def read_samples(
    study: StudyConfig, names: Sequence[str]
) -> tuple[dict[str, FewShotTask], dict[str, str]]:
    """Return the samples of tasks at the study's first data seed, and why others are missing.

    Raises:
        UsageError: a task is not in the gym's catalogue; near names are listed.
        DataError: a few-shot file is malformed (file and line).
    """
    gym, seed = gym_folder(study.gym), study.data_seeds[0]
    catalogue = load_catalogue(gym)
    infos = {name: catalogue.task(name) for name in names}
    missing = missing_tasks(gym, infos, study.data_seeds)
    samples = {n: load_task(gym, info, seed) for n, info in infos.items() if n not in missing}
    return samples, missing


def refuse_missing(request: Request, missing: Mapping[str, str], what: str) -> None:
    """Refuse missing tasks unless the request goes on without them.

    Raises:
        DataError: tasks are missing; all are listed.
    """
    if missing and not (request.allow_missing or request.smoke):
        listed = "; ".join(f"{name} ({reason})" for name, reason in missing.items())
        raise DataError(
            f"{request.gym}: {what} lack {counted(len(missing), 'task')}: {listed}. Build them "
            "(python -m mpt.gym build), or go on without them: --allow-missing labels every "
            "result as partial"
        )
