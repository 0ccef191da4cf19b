"""Computes the similarities of Table 7: of pairs of tasks, and of prompts tuned on them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from mpt.config import StudyConfig
from mpt.errors import DataError, UsageError
from mpt.metrics.relative_gain import Candidate, select_by_dev
from mpt.prompts import load_prompt
from mpt.records import LeafStore, PointStore
from mpt.replay.replay import Request
from mpt.replay.similarity.measure import Subspace, compare_pairs, subspace, task_subspaces
from mpt.replay.similarity.pairs import KINDS, PROMPT_KINDS, Pairs, save_pairs
from mpt.replay.similarity.settings import Names, SimilaritySettings, load_similarity_settings
from mpt.replay.similarity.tasks import read_samples, refuse_missing, study_of_one
from mpt.study.study import backbone_of
from mpt.trial.leaf_work import prompt_path


def compute_pairs(request: Request, *, prompts: bool = False, device: str = "cpu") -> Pairs:
    """Measure the pairs of ``similarity.toml`` and write them into the results directory.

    Args:
        request: results, gym, at most one backbone; methods and settings are not used.
        prompts: compare tuned prompts too (A.7), see `measure_pairs`.
        device: where the backbone reads the tasks.

    Raises:
        UsageError: a task is not one of the gym's, or every pair of a kind lacks a task.
        DataError: few-shot files are missing (all are listed), or no prompt was kept.
    """
    pairs, about = measure_pairs(request, prompts=prompts, device=device)
    save_pairs(request.results, pairs, about)
    return pairs


def measure_pairs(
    request: Request, *, prompts: bool = False, device: str = "cpu"
) -> tuple[Pairs, str]:
    """Return the similarities of `compute_pairs`, and what they are of; nothing is written.

    Inputs are compared as in A.6. With `prompts`, plain prompt tuning's prompts are compared too
    (A.7), at the first data seed and its best learning rate, as far as a search or replay in the
    results directory kept them (``--keep-prompts``).
    """
    settings = load_similarity_settings(request.gym, smoke=request.smoke)
    study = study_of_one(request)
    both = (settings.similar, settings.dissimilar)
    names = tuple(dict.fromkeys(name for pairs in both for pair in pairs for name in pair))
    try:
        samples, missing = read_samples(study, names)
    except UsageError as error:
        raise UsageError(
            f"{settings.path}: the pairs of Table 7 are none of gym {request.gym}'s: {error}; "
            "leave them out: --only pilot"
        ) from None
    refuse_missing(request, missing, "the pairs of Table 7")
    backbone = backbone_of(study, device)
    found = task_subspaces(backbone, samples.values(), settings.measure, study.text, settings.seed)
    pairs = dict(zip(KINDS, _compared(settings, found, "few-shot files"), strict=True))
    if prompts:
        kept = prompt_subspaces(request.results, study, names, settings.measure.threshold)
        what = f"kept prompt in {request.results / 'prompts'}; replay with --keep-prompts"
        pairs |= zip(PROMPT_KINDS, _compared(settings, kept, what), strict=True)
    about = _about(study, settings, smoke=request.smoke)
    if missing:
        about += f"; partial: pairs with {', '.join(missing)} are left out"
    return pairs, about


def _compared(
    settings: SimilaritySettings, found: dict[str, Subspace], what: str
) -> tuple[tuple[tuple[str, str, float], ...], tuple[tuple[str, str, float], ...]]:
    """Return the pairs both of whose tasks have a subspace, with their similarity."""

    def whole(pairs: Names) -> Names:
        return tuple(pair for pair in pairs if all(name in found for name in pair))

    similar, dissimilar = whole(settings.similar), whole(settings.dissimilar)
    if not similar or not dissimilar:
        raise DataError(f"no pair of Table 7 of one of its two kinds has a {what}")
    compared = compare_pairs(similar, dissimilar, found)
    return compared.similar, compared.dissimilar


def prompt_subspaces(
    results: Path, study: StudyConfig, names: tuple[str, ...], threshold: float
) -> dict[str, Subspace]:
    """Return the subspaces of the kept prompts that plain prompt tuning has learned.

    Args:
        results: where leaves and prompts are.
        study: its backbone, gym and first data seed.
        names: tasks.
        threshold: share of the energy, see `subspace`.

    Returns:
        Task → subspace, of the tasks whose prompt was kept.
    """
    found: dict[str, Subspace] = {}
    for name, path in _prompt_files(results, study):
        if name in names and name not in found and path.is_file():
            found[name] = subspace(load_prompt(path)[0], threshold)
    return found


def _prompt_files(results: Path, study: StudyConfig) -> Iterator[tuple[str, Path]]:
    seed = str(study.data_seeds[0])
    leaves = LeafStore(results, read_only=True)
    for point in PointStore(results, read_only=True).all():
        if (point.get("backbone"), point.get("gym")) != (study.backbone, study.gym):
            continue
        for task, samples in point["baseline"].items():
            key = _taken(leaves, samples.get(seed, ()))
            if key is not None:
                yield task, prompt_path(results, key)


def _taken(leaves: LeafStore, keys: Sequence[tuple[float, str]]) -> str | None:
    """Return the key of the run that the recipe takes; None if one is missing or all diverged."""
    found = [leaves.get(key) for _, key in keys]
    candidates = [
        Candidate(lr=lr, **{n: _number(leaf["result"][n]) for n in ("dev", "test")})
        for (lr, _), leaf in zip(keys, found, strict=True)
        if leaf is not None
    ]
    best = select_by_dev(candidates) if len(candidates) == len(found) else None
    return next((key for lr, key in keys if best is not None and lr == best.lr), None)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _about(study: StudyConfig, settings: SimilaritySettings, *, smoke: bool) -> str:
    """Return backbone, gym and measure as one line for readers."""
    measure = settings.measure
    size = ", at smoke size" if smoke else ""
    return (
        f"backbone {study.backbone}, gym {study.gym}: layer {measure.layer}, energy "
        f"{measure.threshold:g}, {measure.samples} inputs of data seed {study.data_seeds[0]}, "
        f"{measure.states}{' with task names' if measure.named else ''}{size}"
    )
