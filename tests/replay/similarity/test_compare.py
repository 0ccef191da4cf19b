"""Table 7 as a job: which pairs are compared, on what, and what a file of them says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from results_factory import Results, flat

from analysis.results.reading import load_study
from analysis.tables.main import similarity_table
from mpt.config import DATA_SEEDS, StudyConfig
from mpt.errors import DataError, UsageError
from mpt.prompts import save_prompt
from mpt.replay.replay import Request
from mpt.replay.similarity.compare import compute_pairs, measure_pairs, prompt_subspaces
from mpt.replay.similarity.measure import similarity
from mpt.replay.similarity.pairs import KINDS, PROMPT_KINDS, about_pairs, load_pairs
from mpt.replay.similarity.settings import load_similarity_settings
from mpt.trial.leaf_work import prompt_path

SETTINGS = load_similarity_settings("embedded")


@pytest.fixture
def smoke(tmp_path: Path) -> Request:
    return Request(results=tmp_path / "results", smoke=True)


def _keep(results: Results, task: str, value: float | None) -> torch.Tensor:
    """Keep a prompt of every leaf of a task's baseline; that of the best rate spans e1, e2."""
    (cell,) = load_study(results.root).cells
    prompt = torch.zeros(3, 4)
    prompt[0, 0] = prompt[1, 1] = 1.0
    if value is not None:
        prompt[1, 2] = value
    for lr, key in cell.baseline[task][13].keys:
        # every other rate's prompt lies elsewhere
        kept = prompt if lr == results.lrs[0] else torch.eye(4)[3:]
        save_prompt(prompt_path(results.root, key), kept, {})
    return prompt


@pytest.fixture
def kept(tmp_path: Path) -> Results:
    """A replay on six tasks of four pairs; the prompts of two pairs were kept."""
    results = Results(tmp_path)
    scores = flat(dict.fromkeys([*SETTINGS.similar[0], *SETTINGS.dissimilar[0]], 0.5))
    results.point("maml", "random_to_random", scores, scores)
    for task, value in (("reviews-hotel", None), ("reviews-book", 1.0), ("find-number", 2.0)):
        _keep(results, task, value)
    return results


def test_the_pairs_are_those_of_the_data_file_and_are_saved_with_what_they_are_of(
    smoke: Request,
) -> None:
    pairs = compute_pairs(smoke)
    assert tuple(pairs) == KINDS
    assert [pair[:2] for pair in pairs["similar"]] == list(SETTINGS.similar)
    assert [pair[:2] for pair in pairs["dissimilar"]] == list(SETTINGS.dissimilar)
    assert all(0 < value <= 1 for found in pairs.values() for *_, value in found)
    assert load_pairs(smoke.results) == pairs
    about = about_pairs(smoke.results)
    assert about.startswith("backbone embedded, gym embedded: layer -1, energy 0.95, 4 inputs of")
    assert about.endswith("at smoke size")
    assert about in similarity_table(pairs, about).notes
    assert compute_pairs(smoke) == pairs


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
    with pytest.raises(UsageError, match=r"task 'glue-mrpc' is unknown.*--only pilot"):
        compute_pairs(dataclasses.replace(smoke, gym=str(tmp_path)))


def test_pairs_whose_files_are_missing_are_refused_and_never_left_out_in_silence(
    smoke: Request, tmp_path: Path
) -> None:
    """A folder without ``gym.toml`` has the published tasks; none of them is built here."""
    whole = dataclasses.replace(smoke, gym=str(tmp_path), smoke=False, backbones=("embedded",))
    with pytest.raises(DataError, match="the pairs of Table 7 lack 15 tasks: glue-mrpc"):
        compute_pairs(whole)
    with pytest.raises(DataError, match="no pair of Table 7 of one of its two kinds has"):
        compute_pairs(dataclasses.replace(whole, allow_missing=True))
    for name in ("glue-mrpc", "glue-qqp", "spider"):
        (tmp_path / name).mkdir()
        for part in ("train", "dev", "test"):
            for seed in DATA_SEEDS:
                path = (
                    tmp_path / name / f"{name}_{32 if name == 'spider' else 16}_{seed}_{part}.tsv"
                )
                path.write_text("".join(f"{name} {row}\tx\n" for row in range(8)))
    pairs, about = measure_pairs(dataclasses.replace(whole, allow_missing=True))
    assert [pair[:2] for pair in pairs["similar"]] == [("glue-mrpc", "glue-qqp")]
    assert [pair[:2] for pair in pairs["dissimilar"]] == [("glue-mrpc", "spider")]
    assert "; partial: pairs with glue-mnli, scitail, " in about


def test_kept_prompts_of_the_best_rate_of_plain_prompt_tuning_are_compared(kept: Results) -> None:
    study = StudyConfig(backbone="embedded", gym="embedded", data_seeds=(13, 21))
    names = ("reviews-hotel", "reviews-book", "find-number", "nli-owners")
    found = prompt_subspaces(kept.root, study, names, 1.0)
    assert set(found) == set(names[:3])
    # e1 is shared; e2 and (e2 + v e3)/√(1 + v²) have the cosine 1/√(1 + v²)
    for name, value in (("reviews-book", 1.0), ("find-number", 2.0)):
        expected = np.sqrt((1 + 1 / (1 + value**2)) / 2)
        # float32 prompts
        assert similarity(found["reviews-hotel"], found[name]) == pytest.approx(expected, abs=1e-6)
    other = dataclasses.replace(study, backbone="another/model")
    assert prompt_subspaces(kept.root, other, names, 1.0) == {}


def test_prompts_stand_beside_the_inputs_as_kinds_of_their_own(kept: Results) -> None:
    request = Request(results=kept.root, smoke=True)
    pairs = compute_pairs(request, prompts=True)
    assert tuple(pairs) == (*KINDS, *PROMPT_KINDS)
    assert [pair[:2] for pair in pairs["similar, prompts"]] == [("reviews-hotel", "reviews-book")]
    assert [pair[:2] for pair in pairs["dissimilar, prompts"]] == [
        ("reviews-hotel", "find-number")
    ]
    assert load_pairs(kept.root) == pairs
    rows = [row[0].text for row in similarity_table(pairs).rows]
    assert rows.count("similar, prompts") == 2  # the pair and the mean


def test_prompts_that_nobody_kept_are_an_error_that_says_how_to_keep_them(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.point("maml", "random_to_random", flat({"a": 0.5}), flat({"a": 0.5}))
    with pytest.raises(DataError, match=r"has a kept prompt in .*replay with --keep-prompts"):
        compute_pairs(Request(results=tmp_path, smoke=True), prompts=True)
    assert not (tmp_path / "similarity.json").exists()
