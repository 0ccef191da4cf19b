"""Validation tasks of every setting of both catalogues."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from types import MappingProxyType

import pytest

from mpt.embedded.gym import ensure_embedded_gym
from mpt.errors import UsageError
from mpt.gym.catalogue import FAMILIES, PARTITIONS, Catalogue, Partition, TaskInfo, load_catalogue
from mpt.study.validation import SIZE, validation_of

GYMS = ("published", "embedded")


def _catalogue(gym: str) -> Catalogue:
    return load_catalogue(None if gym == "published" else ensure_embedded_gym())


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize("gym", GYMS)
def test_five_validation_tasks_are_neither_source_nor_target(gym: str, partition: str) -> None:
    catalogue = _catalogue(gym)
    setting = catalogue.partition(partition)
    found = validation_of(catalogue, partition)
    assert len(set(found.tasks)) == SIZE
    assert not {*found.tasks} & {*setting.source, *setting.target}
    # the catalogue's own validation tasks stay wherever they qualify
    free = [n for n in catalogue.validation_tasks if n not in (*setting.source, *setting.target)]
    assert found.kept == tuple(free)
    assert validation_of(catalogue, partition) == found
    # no family has two more than one that still had tasks to give
    families = Counter(catalogue.tasks[name].family for name in found.tasks)
    kept = Counter(catalogue.tasks[name].family for name in found.kept)
    for name in found.drawn:
        family = catalogue.tasks[name].family
        others = [
            f
            for f in FAMILIES
            if any(
                info.family == f
                and info.name not in (*found.tasks, *setting.source, *setting.target)
                for info in catalogue.tasks.values()
            )
        ]
        assert all(families[family] <= max(families[f], kept[family]) + 1 for f in others)


def test_the_papers_five_are_kept_where_they_qualify_and_no_draw_is_that_of_another_setting() -> (
    None
):
    catalogue = _catalogue("published")
    assert validation_of(catalogue, "random_to_random").tasks == catalogue.validation_tasks
    # Table 9: tweet_eval-emotion is a source of cls_to_cls, tweet_qa one of qa_to_qa
    assert "tweet_eval-emotion" not in validation_of(catalogue, "cls_to_cls").tasks
    assert validation_of(catalogue, "qa_to_qa").kept == (
        "tweet_eval-emotion",
        "financial_phrasebank",
        "empathetic_dialogues",
        "cos_e",
    )
    # the draws of two settings with much in common are different
    drawn = {validation_of(catalogue, name).drawn for name in ("cls_to_cls", "cls_to_noncls")}
    assert len(drawn) == 2
    for name in PARTITIONS:
        assert str(validation_of(catalogue, name)).startswith(f"{name}: validation on ")


def _small(tasks: int, used: int) -> Catalogue:
    names = [f"t{n}" for n in range(tasks)]
    infos = {name: TaskInfo(name, FAMILIES[n % 2], "ACC", 4) for n, name in enumerate(names)}
    return Catalogue(
        tasks=MappingProxyType(infos),
        partitions=MappingProxyType(
            {"p": Partition("p", tuple(names[: used - 1]), (names[used - 1],))}
        ),
        validation_tasks=(),
        source_subsets=MappingProxyType({}),
    )


def test_fewer_than_five_tasks_are_said_and_none_is_refused() -> None:
    few = validation_of(_small(6, 3), "p")
    assert sorted(few.tasks) == ["t3", "t4", "t5"]
    assert str(few).endswith("no other task is neither source nor target: 3 of 5")
    with pytest.raises(UsageError, match="partition p: every task is source or target"):
        validation_of(_small(4, 4), "p")


def test_filling_up_keeps_the_families_balanced() -> None:
    catalogue = dataclasses.replace(_small(40, 10), validation_tasks=("t10", "t12", "t14"))
    # three of one family are kept: both draws are of the other one
    assert [int(name[1:]) % 2 for name in validation_of(catalogue, "p").drawn] == [1, 1]


def test_files_that_are_absent_do_not_change_the_choice(tmp_path: Path) -> None:
    assert validation_of(load_catalogue(tmp_path), "cls_to_cls") == validation_of(
        _catalogue("published"), "cls_to_cls"
    )
