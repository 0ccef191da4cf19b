"""Similarity of subspaces: closed forms first, then every backbone, then the embedded model."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy_backbones import FAMILIES
from toys import toy_task

from mpt.backbones import load_backbone
from mpt.config import TextConfig
from mpt.embedded.gym import ensure_embedded_gym
from mpt.errors import DataError, UsageError
from mpt.gym.catalogue import load_catalogue
from mpt.gym.fewshot import load_task
from mpt.replay.similarity.measure import (
    SimilarityConfig,
    Subspace,
    rank_sources,
    select_sources,
    similarity,
    subspace,
    task_matrix,
    task_subspaces,
)

TEXT = TextConfig(max_input=48, max_target=8)
EXACT = 1e-12
"""Float64 with a handful of products of numbers near 1."""


def _span(*rows: list[float]) -> Subspace:
    return subspace(torch.tensor(rows), 1.0)


def _random(rows: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=generator, dtype=torch.float64)


def _rotation(width: int, seed: int) -> Tensor:
    return torch.linalg.qr(_random(width, width, seed)).Q


# --- closed forms --------------------------------------------------------------------------------


def test_identical_subspaces_have_similarity_one() -> None:
    a = _span([1.0, 2.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0])
    # The same plane, spanned by other vectors.
    b = _span([1.0, 3.0, 1.0, 0.0], [2.0, 3.0, -1.0, 0.0])
    assert (a.shape[1], b.shape[1]) == (2, 2)
    assert similarity(a, b) == pytest.approx(1.0, abs=1e-7)  # the rows are float32


def test_orthogonal_subspaces_have_similarity_zero() -> None:
    a = _span([1.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0])
    b = _span([0.0, 0.0, 3.0, 0.0], [0.0, 0.0, 0.0, 1.0])
    assert similarity(a, b) == pytest.approx(0.0, abs=EXACT)


@pytest.mark.parametrize("angle", [0.1, 0.7, 1.2])
def test_similarity_of_two_lines_is_the_cosine_of_their_angle(angle: float) -> None:
    a = subspace(torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64), 1.0)
    b = subspace(torch.tensor([[math.cos(angle), math.sin(angle), 0.0]], dtype=torch.float64), 1.0)
    assert similarity(a, b) == pytest.approx(math.cos(angle), abs=EXACT)


def test_similarity_of_planes_is_the_root_mean_square_cosine_of_the_principal_angles() -> None:
    first, second = 0.3, 1.1
    a = torch.eye(4, dtype=torch.float64)[:2]
    b = torch.zeros(2, 4, dtype=torch.float64)
    b[0, 0], b[0, 2] = math.cos(first), math.sin(first)
    b[1, 1], b[1, 3] = math.cos(second), math.sin(second)
    expected = math.sqrt((math.cos(first) ** 2 + math.cos(second) ** 2) / 2)
    assert similarity(subspace(a, 1.0), subspace(b, 1.0)) == pytest.approx(expected, abs=EXACT)


def test_different_dimensions_are_compared_by_the_smaller_one_and_symmetrically() -> None:
    line = _span([3.0, 4.0, 0.0])
    plane = _span([1.0, 0.0, 0.0], [0.0, 0.0, 1.0])
    # One principal angle: that of (3, 4, 0)/5 with the plane x–z, whose cosine is 3/5.
    assert similarity(line, plane) == pytest.approx(0.6, abs=1e-7)
    assert similarity(line, plane) == similarity(plane, line)
    # A subspace within another: exactly 1.
    inside = _span([1.0, 0.0, 1.0])
    assert similarity(inside, plane) == pytest.approx(1.0, abs=1e-7)


def test_rotation_and_scale_of_the_representation_change_nothing() -> None:
    a, b = _random(9, 6, 1), _random(7, 6, 2)
    turn = _rotation(6, 3)
    plain = similarity(subspace(a, 0.7), subspace(b, 0.7))
    turned = similarity(subspace(1e-3 * a @ turn, 0.7), subspace(1e200 * b @ turn, 0.7))
    assert 0 < plain < 1
    assert turned == pytest.approx(plain, abs=1e-10)


def test_order_of_the_samples_changes_nothing() -> None:
    a, b = _random(9, 6, 1), subspace(_random(7, 6, 2), 0.7)
    swapped = a[[8, 1, 0, 3, 2, 5, 4, 7, 6]]
    first, second = (similarity(subspace(matrix, 0.7), b) for matrix in (a, swapped))
    assert first == pytest.approx(second, abs=1e-10)


def test_the_threshold_decides_how_many_singular_vectors_are_kept() -> None:
    # Energies 16, 4, 1 of 21: shares .762, .952, 1.
    matrix = torch.diag(torch.tensor([4.0, 2.0, 1.0]))
    assert [subspace(matrix, t).shape[1] for t in (0.5, 16 / 21, 0.77, 20 / 21, 0.96, 1.0)] == [
        1, 1, 2, 2, 3, 3
    ]  # fmt: skip


def test_a_basis_is_orthonormal_and_spans_the_leading_directions() -> None:
    matrix = torch.diag(torch.tensor([1.0, 5.0, 2.0], dtype=torch.float64))
    found = subspace(matrix, 0.9)
    assert torch.allclose(found.T @ found, torch.eye(2).double(), atol=EXACT)
    assert torch.allclose(found.abs().T, torch.eye(3).double()[[1, 2]], atol=EXACT)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.zeros(3, 2), "all zero"),
        (torch.tensor([[1.0, math.nan]]), "not finite"),
    ],
)
def test_a_matrix_without_a_subspace_is_refused(matrix: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        subspace(matrix, 0.9)


def test_settings_out_of_range_are_named_together() -> None:
    with pytest.raises(UsageError, match=r"threshold is 0, .*; samples is 0, .*; states is 'x'"):
        SimilarityConfig(threshold=0, samples=0, states="x")


# --- choosing sources ----------------------------------------------------------------------------


@pytest.fixture
def fan() -> dict[str, Subspace]:
    """Lines at 0°, 10°, …, 80° from the target; names do not tell the order."""
    lines = {"target": _span([1.0, 0.0])}
    for place, name in enumerate("hbfadgce"):
        angle = math.radians(10 * (place + 1))
        lines[name] = _span([math.cos(angle), math.sin(angle)])
    return lines


def test_sources_are_ranked_by_similarity_to_the_target(fan: dict[str, Subspace]) -> None:
    ranking = rank_sources("target", list("abcdefgh"), fan)
    assert [name for name, _ in ranking] == list("hbfadgce")
    expected = [math.cos(math.radians(10 * n)) for n in range(1, 9)]
    assert [value for _, value in ranking] == pytest.approx(expected, abs=1e-6)


def test_sources_of_equal_similarity_are_ranked_by_name(fan: dict[str, Subspace]) -> None:
    same = {"target": fan["target"], "z": fan["a"], "m": fan["a"], "k": fan["a"]}
    assert [name for name, _ in rank_sources("target", ["z", "m", "k"], same)] == ["k", "m", "z"]


def test_highest_lowest_and_random_sources(fan: dict[str, Subspace]) -> None:
    ranking = rank_sources("target", list("abcdefgh"), fan)

    def chosen(how: str, seed: int = 42, target: str = "target") -> list[str]:
        return select_sources(ranking, how, 5, target=target, root_seed=seed)

    assert chosen("highest") == list("hbfad")
    assert chosen("lowest") == list("ecgda")
    draw = chosen("random")
    assert draw == chosen("random")
    assert len(set(draw)) == 5
    assert set(draw) < set("abcdefgh")
    # The draw depends on root seed and target, and not on the ranking's order.
    assert {tuple(chosen("random", seed)) for seed in range(8)} != {tuple(draw)}
    assert {tuple(chosen("random", target=str(n))) for n in range(8)} != {tuple(draw)}
    assert draw == select_sources(ranking[::-1], "random", 5, target="target", root_seed=42)


# --- backbones -----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_the_states_of_its_inputs_whatever_the_padding(
    family: str, tmp_path: Path
) -> None:
    backbone = load_backbone(str(FAMILIES[family](tmp_path)), dtype=torch.float64)
    ids = [backbone.encode_input(text, 30) for text in (" pab", " qa cab bbcca", " x")]
    together = backbone.input_states(
        backbone.collate([(i, [backbone.end_id]) for i in ids], [0] * 3)
    )
    for place, row in enumerate(ids):
        alone = backbone.input_states(backbone.collate([(row, [backbone.end_id])], [0]))
        for padded, plain in zip(together, alone, strict=True):
            # Float64; the sums over the keys run in another order.
            assert torch.allclose(padded[place, : len(row)], plain[0], atol=1e-10)
    # Layer 0 is the embeddings (and, where they are learned, positions), the last one is not.
    assert len(together) >= 2
    assert not torch.allclose(together[0], together[-1])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_similarities_of_tasks(family: str, tmp_path: Path) -> None:
    backbone = load_backbone(str(FAMILIES[family](tmp_path)))
    tasks = [toy_task(name, 13) for name in ("toy-one", "toy-two")]
    config = SimilarityConfig(samples=5, threshold=0.9)
    found = task_subspaces(backbone, tasks, config, TEXT, 42)
    value = similarity(found["toy-one"], found["toy-two"])
    assert found["toy-one"].shape[0] == backbone.d_model
    assert 0.5 < value <= 1  # the toy tasks' inputs are drawn alike
    again = task_subspaces(backbone, tasks, config, TEXT, 42)
    assert similarity(again["toy-one"], again["toy-two"]) == value


@pytest.fixture(scope="module")
def toy_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FAMILIES["t5"](tmp_path_factory.mktemp("t5"))


def test_a_matrix_has_the_samples_that_are_asked_for(toy_t5: Path) -> None:
    backbone = load_backbone(str(toy_t5))
    task = toy_task("toy", 13)
    pool = {f" {example.input}" for example in (*task.train, *task.dev)}
    few = task_matrix(backbone, task, SimilarityConfig(samples=5, states="mean"), TEXT, 42)
    assert few.shape == (5, backbone.d_model)
    # More than there are: all of train and dev, once each.
    full = task_matrix(backbone, task, SimilarityConfig(samples=999, states="mean"), TEXT, 42)
    assert len(full) == len(task.train) + len(task.dev)
    # Each row is the mean over the states of one input's own tokens.
    means = []
    for text in pool:
        ids = backbone.encode_input(text, TEXT.max_input)
        states = backbone.input_states(backbone.collate([(ids, [1])], [0]))[-1]
        means.append(states[0].mean(0).double())
    nearest = torch.cdist(full, torch.stack(means)).min(1).values
    assert float(nearest.max()) < 1e-5  # float32 states, other padding


def test_a_draw_of_samples_follows_the_root_seed(toy_t5: Path) -> None:
    backbone, task = load_backbone(str(toy_t5)), toy_task("toy", 13)
    config = SimilarityConfig(samples=4, states="mean")
    first, again, other = (
        task_matrix(backbone, task, config, TEXT, seed) for seed in (42, 42, 43)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_layer_states_and_names_change_the_matrix(toy_t5: Path) -> None:
    backbone, task = load_backbone(str(toy_t5)), toy_task("toy", 13)

    def matrix(**settings: object) -> Tensor:
        config = SimilarityConfig(**{"samples": 4, "states": "mean", **settings})  # type: ignore[arg-type]
        return task_matrix(backbone, task, config, TEXT, 42)

    assert not torch.allclose(matrix(), matrix(layer=0))
    assert not torch.allclose(matrix(), matrix(named=True))
    assert len(matrix(states="tokens")) > 4
    with pytest.raises(UsageError, match=r"layer is 9, but backbone .* has the layers 0 .* to 1"):
        matrix(layer=9)


def test_on_the_embedded_model_paraphrase_tasks_are_more_alike_than_paraphrase_and_qa() -> None:
    gym = ensure_embedded_gym()
    catalogue = load_catalogue(gym)
    names = ("paraphrase-who", "paraphrase-what", "qa-where", "qa-who_is_where")
    tasks = [load_task(gym, catalogue.tasks[name], 13) for name in names]
    text = TextConfig(max_input=96, max_target=24)
    found = task_subspaces(load_backbone("embedded"), tasks, SimilarityConfig(), text, 42)
    who, what, where, who_is = (found[name] for name in names)
    alike = [similarity(who, what), similarity(where, who_is)]
    unlike = [similarity(who, where), similarity(what, who_is)]
    assert min(alike) > max(unlike)
    assert sum(alike) / 2 > sum(unlike) / 2 + 0.05  # measured: 0.855 and 0.750
