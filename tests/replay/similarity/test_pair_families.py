"""The pairs of Table 7: their families, the draw, and what a gym lacks."""

from __future__ import annotations

import tomllib
from importlib.resources import files

import pytest

from mpt.embedded.gym import ensure_embedded_gym
from mpt.errors import UsageError
from mpt.gym.catalogue import Catalogue, TaskInfo, load_catalogue
from mpt.replay.similarity.families import DrawnPairs, draw_pairs
from mpt.replay.similarity.settings import PairFamilies, load_similarity_settings

FAMILIES = load_similarity_settings("embedded").pairs


def _gym(**families: str) -> Catalogue:
    tasks = {name: TaskInfo(name, family, "ACC", 4) for name, family in families.items()}
    return Catalogue(tasks=tasks, partitions={}, validation_tasks=(), source_subsets={})


def _published(seed: int = 42) -> DrawnPairs:
    return draw_pairs(load_catalogue(), FAMILIES, seed)


def test_published_pairs_are_of_the_families_that_the_paper_names() -> None:
    rows = tomllib.loads((files("mpt.gym") / "tasks.toml").read_text(encoding="utf-8"))
    drawn = _published()
    assert len(drawn.similar) == len(drawn.dissimilar) == 5
    for pair in drawn.similar:
        assert [rows[name]["family"] for name in pair] == ["classification"] * 2
    for one, other in drawn.dissimilar:
        assert rows[one]["family"] == "question_answering"
        assert rows[other]["group_of_family"] == "summarization"
    assert len(drawn.tasks) == 20
    assert "stands for" not in drawn.about


def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_the_catalogue() -> None:
    whole = load_catalogue()
    turned = Catalogue(
        tasks=dict(reversed(list(whole.tasks.items()))),
        partitions={},
        validation_tasks=(),
        source_subsets={},
    )
    assert draw_pairs(turned, FAMILIES, 42) == _published()
    assert _published(43).similar != _published().similar
    assert "drawn with seed 43" in _published(43).about
    # over many seeds every one of the seven summarization tasks is drawn
    assert len({name for seed in range(40) for _, name in _published(seed).dissimilar}) == 7


def test_the_embedded_gym_says_which_family_stands_for_summarization() -> None:
    catalogue = load_catalogue(ensure_embedded_gym())
    drawn = draw_pairs(catalogue, FAMILIES, 42)
    families = [catalogue.tasks[name].family for _, name in drawn.dissimilar]
    assert families == ["conditional_generation"] * 5
    assert drawn.about.endswith(
        "the gym has no summarization task, conditional_generation stands for it"
    )


def test_tasks_that_are_passed_over_leave_the_order_of_the_others() -> None:
    families = PairFamilies(similar=("a", "a"), dissimilar=("a", "b"), count=9, nearest={})
    gym = _gym(a1="a", a2="a", a3="a", b1="b", b2="b", b3="b")
    drawn = draw_pairs(gym, families, 42)
    first = drawn.dissimilar[0]
    assert draw_pairs(gym, families, 42, without=first).dissimilar == drawn.dissimilar[1:]
    assert len(drawn.similar) == 1
    assert "only 1 of 9 similar pairs is there" in drawn.about
    assert "only 3 of 9 dissimilar pairs are there" in drawn.about


def test_a_gym_without_a_pair_of_a_kind_is_refused() -> None:
    with pytest.raises(UsageError, match=r"dissimilar pairs .* no two such tasks.*--only pilot"):
        draw_pairs(_gym(x="classification", y="classification"), FAMILIES, 42)
    with pytest.raises(UsageError, match="similar pairs"):
        draw_pairs(_gym(x="classification"), FAMILIES, 42)
