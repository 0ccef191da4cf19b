"""Computes the similarities of Table 7: of pairs of tasks, and of prompts tuned on them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from mpt.config import StudyConfig
from mpt.errors import DataError
from mpt.gym.catalogue import load_catalogue, missing_tasks
from mpt.replay.request import Request
from mpt.replay.similarity.families import DrawnPairs, draw_pairs
from mpt.replay.similarity.measure import Subspace, similarity, task_subspaces
from mpt.replay.similarity.pairs import KIND, KINDS, PROMPT_KINDS, Pairs, document_name
from mpt.replay.similarity.prompts import kept_subspaces, prompt_packs
from mpt.replay.similarity.settings import SimilaritySettings, load_similarity_settings
from mpt.replay.similarity.tasks import read_samples, refuse_missing, study_of_one
from mpt.store.database import open_results
from mpt.study.study import backbone_of, gym_folder

if TYPE_CHECKING:
    from mpt.gym.fewshot import FewShotTask


def compute_pairs(request: Request, *, prompts: bool = False) -> Pairs:
    """Measure the pairs of ``similarity.toml`` and store them.

    Args:
        request: results, gym, at most one backbone; methods and settings are not used.
        prompts: compare tuned prompts too (A.7), see `measure_pairs`.

    Raises:
        UsageError: the gym has no pair of a kind.
        DataError: few-shot files are missing (all are listed), or no prompt was kept.
    """
    pairs, about = measure_pairs(request, prompts=prompts)
    keep_pairs(request, pairs, about)
    return pairs


def keep_pairs(request: Request, pairs: Pairs, about: str) -> None:
    """Store what `measure_pairs` returned, in place of older ones of backbone, gym and size."""
    study, smoke = study_of_one(request), request.smoke
    body = {
        "backbone": study.backbone,
        "gym": study.gym,
        "smoke": smoke,
        "pairs": {kind: [list(pair) for pair in triples] for kind, triples in pairs.items()},
        "about": about,
    }
    with open_results(request.results, request.store) as database:
        name = document_name(study.backbone, study.gym, smoke=smoke)
        database.put_document(KIND, name, body)


def measure_pairs(
    request: Request, *, prompts: bool = False, device: str = "cpu"
) -> tuple[Pairs, str]:
    """Return the similarities of `compute_pairs`, and what they are of; nothing is written.

    Inputs are compared as in A.6. With `prompts`, plain prompt tuning's prompts are compared too
    (A.7), at the first data seed and its best learning rate, as far as a search or replay of the
    same protocol kept them (``--keep-prompts``).
    """
    settings = load_similarity_settings(request.gym, smoke=request.smoke)
    study = study_of_one(request)
    drawn, samples = _drawn(request, study, settings)
    backbone = backbone_of(study, device)
    subspaces = task_subspaces(
        backbone, samples.values(), settings.measure, study.text, settings.seed
    )
    pairs = dict(zip(KINDS, _compared(drawn, subspaces, "few-shot files"), strict=True))
    if prompts:
        packs = prompt_packs(study, backbone, samples)
        kept = kept_subspaces(request, packs, settings.measure.threshold)
        what = f"kept prompt of this study in {request.results}; replay with --keep-prompts"
        pairs |= zip(PROMPT_KINDS, _compared(drawn, kept, what), strict=True)
    return pairs, f"{_about(study, settings, smoke=request.smoke)}; {drawn.about}"


def _drawn(
    request: Request, study: StudyConfig, settings: SimilaritySettings
) -> tuple[DrawnPairs, dict[str, FewShotTask]]:
    """Return the pairs, and the samples of their tasks at the first data seed.

    Tasks that are not built are refused, or passed over where the request goes on without them.
    """
    gym = gym_folder(study.gym)
    catalogue = load_catalogue(gym)
    drawn = draw_pairs(catalogue, settings.pairs, settings.seed)
    samples, missing = read_samples(study, drawn.tasks)
    refuse_missing(request, missing, "the pairs of Table 7")
    if missing:
        absent = missing_tasks(gym, catalogue.tasks, study.data_seeds)
        drawn = draw_pairs(catalogue, settings.pairs, settings.seed, without=absent)
        about = f"{drawn.about}; partial: {', '.join(missing)} missing, others drawn instead"
        drawn = dataclasses.replace(drawn, about=about)
        samples, _ = read_samples(study, drawn.tasks)
    return drawn, samples


def _compared(
    drawn: DrawnPairs, subspaces: dict[str, Subspace], what: str
) -> list[tuple[tuple[str, str, float], ...]]:
    """Return the similar and the dissimilar pairs whose tasks have subspaces, with similarity."""
    compared = [
        tuple(
            (a, b, similarity(subspaces[a], subspaces[b]))
            for a, b in pairs
            if {a, b} <= subspaces.keys()
        )
        for pairs in (drawn.similar, drawn.dissimilar)
    ]
    if not all(compared):
        raise DataError(f"no pair of Table 7 of one of its two kinds has a {what}")
    return compared


def _about(study: StudyConfig, settings: SimilaritySettings, *, smoke: bool) -> str:
    """Return backbone, gym and measure as one line for readers."""
    measure = settings.measure
    size = ", at smoke size" if smoke else ""
    return (
        f"backbone {study.backbone}, gym {study.gym}: layer {measure.layer}, energy "
        f"{measure.threshold:g}, {measure.samples} inputs of data seed {study.data_seeds[0]}, "
        f"{measure.states}{' with task names' if measure.named else ''}{size}"
    )
