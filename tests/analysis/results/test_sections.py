"""What may share a table: protocols, editions of the data, settings; and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from results_factory import Results, flat

from analysis.results.reading import read_results
from analysis.results.sections import Section
from mpt.errors import UsageError
from mpt.metrics import SCORE_CODE

PT = flat({"a": 0.5, "b": 0.4})
MAML = flat({"a": 0.6, "b": 0.2})


def _point(results: Results, method: str = "maml", **study: Any) -> str:
    return results.point(method, study.pop("partition", "cls_to_cls"), MAML, PT, **study)


def _sections(root: Path) -> tuple[Section, ...]:
    return read_results(root).sections


def _editions(section: Section) -> list[str]:
    return [cell.place.edition for cell in section.cells]


def test_partitions_and_backbones_of_one_protocol_share_a_section(tmp_path: Path) -> None:
    results = Results(tmp_path)
    _point(results)
    _point(results, partition="qa_to_qa")
    _point(results, backbone="embedded-bart", role="validation")
    (section,) = _sections(tmp_path)
    assert len(section.cells) == 3
    assert section.differs == ""
    assert section.label == f"protocol {section.studies[0].protocol[:8]}"
    assert section.notes == ()


def test_a_section_of_one_study_is_labelled_by_it(tmp_path: Path) -> None:
    _point(Results(tmp_path))
    (section,) = _sections(tmp_path)
    assert section.label == f"study {section.studies[0].id}"


@pytest.mark.parametrize(
    ("other", "words", "ordinary"),
    [
        ({"gym": "/data/mine"}, "gym mine", "gym embedded"),
        ({"train_seed": 7}, "train seed 7", "train seed 42"),
        ({"precision": "bfloat16"}, "precision bfloat16", "precision float32"),
        ({"lrs": (0.5,)}, "downstream learning rates 0.5", "downstream learning rates 0.5, 0.3"),
        (
            {"settings": {"downstream": {"steps": 50}}},
            "downstream steps 50",
            "downstream steps default",
        ),
    ],
)
def test_studies_that_may_not_be_compared_are_sections_that_say_what_differs(
    other: dict[str, Any], words: str, ordinary: str, tmp_path: Path
) -> None:
    results = Results(tmp_path)
    _point(results)
    _point(results, partition="qa_to_qa")
    _point(results, **other)
    main, second = _sections(tmp_path)
    assert (len(main.cells), len(second.cells)) == (2, 1)  # that with the most to show first
    assert (main.differs, second.differs) == (ordinary, words)
    assert main.id != second.id


def test_smoke_and_partial_studies_stand_apart_and_last_and_say_so(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for partition in ("cls_to_cls", "qa_to_qa", "random_to_random"):
        _point(results, partition=partition, smoke=True, partial="smoke, 3 source tasks")
        _point(results, partition=partition, partial="partial: 1 of 2 target tasks missing")
    _point(results)
    whole, partial, smoke = _sections(tmp_path)
    assert [len(section.cells) for section in (whole, partial, smoke)] == [1, 3, 3]
    assert "partial" not in whole.label
    assert whole.differs == ""
    assert partial.label.endswith(", partial")
    assert partial.differs == "partial, tasks were left out"
    assert partial.id == f"{whole.id}-partial"
    assert smoke.label.endswith(", smoke run, partial")
    assert smoke.differs.startswith("smoke run, its numbers mean nothing; partial")


def test_another_version_of_the_score_code_is_named_and_not_mixed(tmp_path: Path) -> None:
    results = Results(tmp_path)
    _point(results, code=SCORE_CODE + 1)
    (alone,) = _sections(tmp_path)
    said = (
        f"trained and scored by version {SCORE_CODE + 1} of the score code, and this program "
        f"has version {SCORE_CODE}"
    )
    assert alone.differs == said
    _point(results)
    assert {section.differs for section in _sections(tmp_path)} == {"", said}


def test_one_study_or_protocol_is_chosen_by_the_first_digits_of_its_key(tmp_path: Path) -> None:
    results = Results(tmp_path)
    _point(results)
    _point(results, partition="qa_to_qa")
    _point(results, train_seed=7)
    main, other = _sections(tmp_path)
    study = main.studies[1]
    only = read_results(tmp_path, study=study.id).sections
    assert [section.studies for section in only] == [(study,)]
    both = read_results(tmp_path, study=main.id).main
    assert len(both.studies) == 2
    with pytest.raises(UsageError) as caught:
        read_results(tmp_path, study="nothing")
    assert f"protocol {main.id} (train seed 42), {other.studies[0].id} (train seed 7)" in str(
        caught.value
    )


def test_edited_data_make_editions_that_stand_side_by_side_with_a_note(tmp_path: Path) -> None:
    results = Results(tmp_path)
    keys = [_point(results), _point(results, edited={"b": "edited"})]
    _point(results, partition="qa_to_qa")
    (section,) = _sections(tmp_path)
    ids = {cell.key: cell.study.id for cell in section.cells}
    editions = {cell.key: cell.place.edition for cell in section.cells}
    assert [editions[key] for key in keys] == [ids[key] for key in keys]
    assert sorted(_editions(section))[0] == ""  # the other partition is claimed once
    (note,) = (note for note in section.notes if "each is shown by itself" in note)
    assert all(ids[key] in note for key in keys)
    assert "differ in the data of scored tasks b" in note


def test_other_weights_under_the_same_name_make_editions(tmp_path: Path) -> None:
    results = Results(tmp_path)
    _point(results)
    _point(results, backbone_digest="0" * 64)
    (section,) = _sections(tmp_path)
    assert all(_editions(section))
    assert "differ in the weights of embedded" in " ".join(section.notes)


def test_methods_of_one_study_are_no_editions(tmp_path: Path) -> None:
    results = Results(tmp_path)
    _point(results)
    _point(results, "reptile")
    (section,) = _sections(tmp_path)
    assert _editions(section) == ["", ""]


def test_partitions_that_were_scored_on_different_data_of_a_task_are_noted(tmp_path: Path) -> None:
    results = Results(tmp_path)
    _point(results)
    _point(results, partition="both_to_cls", edited={"a": "edited"})
    (section,) = _sections(tmp_path)
    first, second = (study.id for study in section.studies)
    assert section.notes == (f"studies {first} and {second} differ in the data of a",)
    # points of a search do not stand beside those of a replay
    _point(results, partition="qa_to_qa", edited={"b": "edited"}, role="validation")
    assert len(_sections(tmp_path)[0].notes) == 1


def test_of_two_settings_of_a_target_cell_the_newest_has_the_place_and_both_are_shown(
    tmp_path: Path,
) -> None:
    results = Results(tmp_path)
    keys = [
        _point(
            results,
            point={
                "trajectory": f"{lr}",
                "settings": {"outer_lr": lr},
                "created": f"2026-01-0{day}",
            },
        )
        for lr, day in ((0.1, 2), (0.2, 3), (0.3, 1))
    ]
    (section,) = _sections(tmp_path)
    methods = {cell.key: cell.place.method for cell in section.cells}
    assert [methods[key] for key in keys] == [
        f"maml [{keys[0][:8]}]",
        "maml",
        f"maml [{keys[2][:8]}]",
    ]
    assert len(section.notes) == 2
    assert "outer_lr 0.3 instead of 0.2" in section.notes[0]


def test_two_settings_of_a_search_are_its_points(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for lr in (0.1, 0.2):
        point = {"trajectory": f"{lr}", "settings": {"outer_lr": lr}}
        _point(results, role="validation", point=point)
    (section,) = _sections(tmp_path)
    assert [cell.place.method for cell in section.cells] == ["maml", "maml"]
    assert section.notes == ()


def test_documents_are_those_of_the_sections_gym_and_size(tmp_path: Path) -> None:
    results = Results(tmp_path)
    _point(results, gym="/data/mine")
    _point(results, gym="/data/mine", smoke=True, partial="smoke")
    for name, gym, smoke in (
        ("x", "/old/mine", False),
        ("y", "other", False),
        ("z", "mine", True),
    ):
        body = {"gym": gym, "smoke": smoke, "name": name}
        results.database.put_document("similarity_pairs", name, body)
    found = [
        [body["name"] for body in section.documents["similarity_pairs"]]
        for section in _sections(tmp_path)
    ]
    assert found == [["x"], ["z"]]
