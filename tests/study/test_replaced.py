"""Declared replacements of tasks: what stands where, and the identity that follows."""

from __future__ import annotations

from pathlib import Path

import pytest
from search_toys import toy_study

from mpt.config import StudyConfig
from mpt.errors import UsageError
from mpt.gym.catalogue import load_catalogue
from mpt.study.choice import listed
from mpt.study.record import study_record
from mpt.study.replaced import parse_replacements, replaced_tasks
from mpt.study.study import open_study, plan_study

HERE = Path("unused-checkpoint")


def test_a_replacement_stands_in_the_tasks_place_wherever_the_study_names_it(
    toy_gym: Path,
) -> None:
    config = toy_study(HERE, toy_gym, replaced=(("s_two", "t-one"),))
    plan = plan_study(config)
    assert plan.source == ("s-one", "t-one", "s-three")
    assert plan.partial is None
    scored = plan_study(toy_study(HERE, toy_gym, replaced=(("v-one", "t-one"),)))
    assert (scored.source, scored.scored) == (("s-one", "s_two", "s-three"), ("t-one", "v_two"))


def test_a_declared_replacement_is_a_study_of_its_own_and_says_so(
    toy_gym: Path, toy_checkpoint: Path
) -> None:
    configs = [
        toy_study(toy_checkpoint, toy_gym),
        toy_study(toy_checkpoint, toy_gym, replaced=(("s_two", "t-one"),)),
        # names no task of the partition, but what is declared holds for the whole study
        toy_study(toy_checkpoint, toy_gym, replaced=(("t-one", "s_two"),)),
    ]
    plain, replaced, elsewhere = [
        study_record(open_study(plan_study(one, scored=("v-one",)))) for one in configs
    ]
    assert "replaced" not in plain.settings
    assert replaced.settings["replaced"] == {"s_two": "t-one"}
    assert len({one.key for one in (plain, replaced, elsewhere)}) == 3
    assert len({one.protocol for one in (plain, replaced, elsewhere)}) == 3
    assert "s_two replaced by t-one" in listed([plain, replaced])


@pytest.mark.parametrize(
    ("replaced", "text"),
    [
        (
            (("eli5-ask", "hotpot_qa"),),
            "task 'eli5-ask' is unknown; near it are eli5-asks, eli5-askh",
        ),
        ((("eli5-askh", "hotpotqa"),), "task 'hotpotqa' is unknown"),
        (
            (("eli5-askh", "imdb"),),
            r"imdb \(classification\) in the place of eli5-askh \(question_answering\), but it",
        ),
        ((("eli5-askh", "qasc"),), "in the place of eli5-askh, but it is learned from or scored"),
    ],
)
def test_what_cannot_stand_in_a_tasks_place_is_refused(
    replaced: tuple[tuple[str, str], ...], text: str
) -> None:
    catalogue = load_catalogue(None)
    with pytest.raises(UsageError, match=text):
        replaced_tasks(catalogue, replaced, ("eli5-askh", "qasc"), ("glue-rte",))


def test_replacements_are_typed_as_pairs_and_no_task_stands_twice() -> None:
    assert parse_replacements("a=b, c=d") == (("a", "b"), ("c", "d"))
    for text in ("", "a", "a=", "=b", "a=b=c", "a=b,"):
        with pytest.raises(UsageError, match="must look like old=new"):
            parse_replacements(text)
    for pairs in ((("a", "a"),), (("a", "b"), ("a", "c")), (("a", "b"), ("b", "c"))):
        with pytest.raises(UsageError, match="no task stands twice"):
            StudyConfig(replaced=pairs)
