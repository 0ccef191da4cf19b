"""Table 7 as a job: which pairs are compared, on what, and what is stored of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from mpt.config import DATA_SEEDS
from mpt.embedded.gym import ensure_embedded_gym
from mpt.errors import DataError, UsageError
from mpt.gym.catalogue import load_catalogue
from mpt.gym.fewshot import FewShotTask
from mpt.prompts import prompt_bytes
from mpt.replay.request import Request
from mpt.replay.similarity.compare import compute_pairs, measure_pairs
from mpt.replay.similarity.families import draw_pairs
from mpt.replay.similarity.measure import similarity
from mpt.replay.similarity.pairs import KIND, KINDS, PROMPT_KINDS, Pairs, pair_lines
from mpt.replay.similarity.prompts import kept_subspaces, prompt_packs
from mpt.replay.similarity.settings import load_similarity_settings
from mpt.replay.similarity.tasks import read_samples, study_of_one
from mpt.store.artifacts import Artifacts
from mpt.store.database import open_results
from mpt.store.records import BASELINE, Point, Run
from mpt.study.record import study_record
from mpt.study.study import OpenStudy, StudyPlan, open_study
from mpt.trial.files import keep_file
from mpt.trial.runs import baseline_packs
from mpt.trial.store import TrialStore

SETTINGS = load_similarity_settings("embedded")
DRAWN = draw_pairs(load_catalogue(ensure_embedded_gym()), SETTINGS.pairs, SETTINGS.seed)
ALIKE, UNLIKE = DRAWN.similar[0], DRAWN.dissimilar[0]
TASKS = (*ALIKE, *UNLIKE, "find-number")
NAME = "embedded, embedded, smoke"
"""Of the document."""


@pytest.fixture
def smoke(tmp_path: Path) -> Request:
    return Request(results=tmp_path / "results", smoke=True)


def _stored(request: Request) -> dict[str, tuple[Pairs, str]]:
    """Return what is stored: name of the document → (pairs, what they are of)."""
    with open_results(request.results, read_only=True) as database:
        documents = database.documents(KIND)
    return {
        name: (
            {
                kind: tuple((one, other, value) for one, other, value in triples)
                for kind, triples in body["pairs"].items()
            },
            body["about"],
        )
        for name, body in documents.items()
    }


def _study(request: Request) -> OpenStudy:
    """Return an open study like those of the request's replays, on a few tasks."""
    config = study_of_one(request)
    plan = StudyPlan(
        config=config,
        source=("nli-owners",),
        scored=TASKS,
        role="target",
        partial="partial: smoke",
        smoke=True,
    )
    return open_study(plan)


def _keep(request: Request, study: OpenStudy, kept: dict[str, float]) -> None:
    """Store plain prompt tuning with prompts of some tasks; that of the best rate spans e1, e2."""
    rates = study.config.downstream.lrs
    packs = baseline_packs(study)
    with open_results(request.results) as database:
        key = database.add_study(study_record(study))
        store, files = TrialStore(database), Artifacts(str(request.results))
        for pack in packs:
            for run in pack.runs:
                best = run.lr == rates[-1]
                done = Run(
                    identity=run.identity,
                    dev=0.9 if best else 0.5,
                    test=0.5,
                    best_step=1,
                    curve=(),
                    status="ok",
                )
                store.add_runs([done])
                if pack.task in kept:
                    # every other rate's prompt lies elsewhere
                    prompt = _prompt(kept[pack.task]) if best else torch.eye(4)[3:]
                    data = prompt_bytes(prompt, {})
                    keep_file(store, files, "prompt", run.key, 1, f"prompts/{run.key}", data)
        runs = tuple(run.key for pack in packs for run in pack.runs)
        database.add_point(
            Point(
                study=key,
                method=BASELINE,
                settings={},
                steps=0,
                upstream="",
                prompt=None,
                runs=runs,
            )
        )


def _prompt(value: float) -> torch.Tensor:
    prompt = torch.zeros(3, 4)
    prompt[0, 0] = prompt[1, 1] = 1.0
    prompt[1, 2] = value
    return prompt


KEPT = {ALIKE[0]: 0.0, ALIKE[1]: 1.0, UNLIKE[0]: 2.0, UNLIKE[1]: 3.0}
"""Task → v; the prompts of one similar and of one dissimilar pair are there."""


def test_the_pairs_are_the_drawn_ones_and_are_saved_with_what_they_are_of(
    smoke: Request,
) -> None:
    pairs = compute_pairs(smoke)
    assert tuple(pairs) == KINDS
    assert [pair[:2] for pair in pairs["similar"]] == list(DRAWN.similar)
    assert [pair[:2] for pair in pairs["dissimilar"]] == list(DRAWN.dissimilar)
    assert all(0 < value <= 1 for found in pairs.values() for *_, value in found)
    stored, about = _stored(smoke)[NAME]
    assert stored == pairs
    assert about.startswith("backbone embedded, gym embedded: layer -1, energy 0.95, 4 inputs of")
    assert f"at smoke size; {DRAWN.about}" in about
    assert compute_pairs(smoke) == pairs
    assert list(_stored(smoke)) == [NAME]


def test_measuring_alone_writes_nothing(smoke: Request) -> None:
    pairs, _ = measure_pairs(smoke)
    assert len(pairs["similar"]) == 5
    assert not smoke.results.exists()


def test_another_gym_without_these_tasks_is_told_how_to_go_on(
    smoke: Request, tmp_path: Path
) -> None:
    (tmp_path / "gym.toml").write_text(
        "[tasks.mine]\nfamily = 'other'\nmetric = 'EM'\nshots = 16\n"
    )
    with pytest.raises(UsageError, match=r"\(classification, classification\), but.*--only pilot"):
        compute_pairs(dataclasses.replace(smoke, gym=str(tmp_path)))


def test_pairs_whose_files_are_missing_are_refused_and_never_left_out_in_silence(
    smoke: Request, tmp_path: Path
) -> None:
    """A folder without ``gym.toml`` has the published tasks; none of them is built here."""
    whole = dataclasses.replace(smoke, gym=str(tmp_path), smoke=False, backbones=("embedded",))
    with pytest.raises(DataError, match="the pairs of Table 7 lack 20 tasks: "):
        compute_pairs(whole)
    with pytest.raises(UsageError, match="the gym has no two such tasks"):
        compute_pairs(dataclasses.replace(whole, allow_missing=True))
    built = {"glue-mrpc": 16, "glue-qqp": 16, "squad-no_context": 32, "samsum": 32}
    for name, shots in built.items():
        (tmp_path / name).mkdir()
        for part in ("train", "dev", "test"):
            for seed in DATA_SEEDS:
                path = tmp_path / name / f"{name}_{shots}_{seed}_{part}.tsv"
                path.write_text("".join(f"{name} {row}\tx\n" for row in range(8)))
    pairs, about = measure_pairs(dataclasses.replace(whole, allow_missing=True))
    assert [{*pair[:2]} for pair in pairs["similar"]] == [{"glue-mrpc", "glue-qqp"}]
    assert [pair[:2] for pair in pairs["dissimilar"]] == [("squad-no_context", "samsum")]
    assert "; only 1 of 5 similar pairs is there; only 1 of 5 dissimilar pairs" in about
    assert about.endswith("missing, others drawn instead")


def test_kept_prompts_of_the_best_rate_of_plain_prompt_tuning_are_compared(
    smoke: Request,
) -> None:
    study = _study(smoke)
    _keep(smoke, study, KEPT)

    def found(request: Request, samples: dict[str, FewShotTask]) -> dict[str, float]:
        packs = prompt_packs(study_of_one(request), study.backbone, samples)
        spaces = kept_subspaces(request, packs, 1.0)
        first = spaces.get(ALIKE[0])
        return {} if first is None else {n: similarity(first, one) for n, one in spaces.items()}

    samples, _ = read_samples(study.config, TASKS)
    values = found(smoke, samples)
    assert set(values) == set(KEPT)
    # e1 is shared; e2 and (e2 + v e3)/√(1 + v²) have the cosine 1/√(1 + v²)
    for name, v in KEPT.items():
        # float32 prompts
        assert values[name] == pytest.approx(np.sqrt((1 + 1 / (1 + v**2)) / 2), abs=1e-6)
    # nothing of another protocol, or of data that have changed since
    assert found(dataclasses.replace(smoke, train_seed=43), samples) == {}
    edited = {name: dataclasses.replace(one, digest="0") for name, one in samples.items()}
    assert found(smoke, edited) == {}


def test_prompts_stand_beside_the_inputs_as_kinds_of_their_own(smoke: Request) -> None:
    _keep(smoke, _study(smoke), KEPT)
    pairs = compute_pairs(smoke, prompts=True)
    assert tuple(pairs) == (*KINDS, *PROMPT_KINDS)
    assert [pair[:2] for pair in pairs["similar, prompts"]] == [ALIKE]
    assert [pair[:2] for pair in pairs["dissimilar, prompts"]] == [UNLIKE]
    assert _stored(smoke)[NAME][0] == pairs
    value = pairs["similar, prompts"][0][2]
    assert pair_lines(pairs)[-4:-2] == [
        f"similar, prompts: {ALIKE[0]} and {ALIKE[1]} {value:.3f}",
        f"similar, prompts: mean {value:.3f}",
    ]


def test_prompts_that_nobody_kept_are_an_error_that_says_how_to_keep_them(
    smoke: Request,
) -> None:
    _keep(smoke, _study(smoke), {})
    with pytest.raises(DataError, match=r"has a kept prompt of this study in .*--keep-prompts"):
        compute_pairs(smoke, prompts=True)
    assert _stored(smoke) == {}
