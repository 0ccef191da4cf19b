"""Which of our cells answers a published number, and what keeps others from doing so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from results_factory import Results, flat

from analysis.paper.answers import paper_comparisons
from analysis.paper.comparison import NumberComparison
from analysis.published.numbers import PILOT_TARGETS
from analysis.results.reading import read_results
from analysis.results.sections import PAIRS
from analysis.tables.lookup import Lookup
from mpt.config import DATA_SEEDS
from mpt.gym.catalogue import load_catalogue
from mpt.store.records import Stop

T5 = "google/t5-large-lm-adapt"
CLS = load_catalogue().partition("cls_to_cls")


def _scores(gain: float, tasks: tuple[str, ...] = CLS.target) -> dict[str, dict[int, float]]:
    """Return scores on published target tasks with this relative gain over 0.5, in %."""
    return flat(dict.fromkeys(tasks, 0.5 * (1 + gain / 100)), DATA_SEEDS)


def _point(
    results: Results, method: str, gain: float, *, tasks: tuple[str, ...] = CLS.target, **body: Any
) -> str:
    partition = body.pop("partition", "cls_to_cls")
    body = {"backbone": T5, "gym": "gym", **body}
    return results.point(method, partition, _scores(gain, tasks), _scores(0, tasks), **body)


def _find(root: Path, place: str, row: str, column: str) -> NumberComparison:
    found = paper_comparisons(Lookup(read_results(root).main))
    return next(
        one
        for one in found
        if (one.published.place, one.published.row, one.published.column) == (place, row, column)
    )


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path, lrs=(0.5,), seeds=DATA_SEEDS)


def test_a_whole_run_of_the_papers_question_is_compared(results: Results) -> None:
    _point(results, "maml", 20.16)
    found = _find(results.root, "Table 2", "maml", "cls_to_cls")
    assert (found.status, found.why) == ("reproduced", "")
    # every seed has the same score, so that the interval is a point
    _point(results, "reptile", 3.0)
    assert _find(results.root, "Table 2", "reptile", "cls_to_cls").status == "contradicted"
    assert _find(results.root, "Table 2", "multitask", "cls_to_cls").why == "no record"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"backbone": "embedded"}, "run on embedded, not on T5-large"),
        ({"tasks": CLS.target[1:]}, "other target tasks"),
        ({"partial": "partial: 2 of 45 source tasks missing"}, "partial: 2 of 45"),
        ({"smoke": True}, "smoke run"),
        ({"sources": 12}, "12 source tasks, not 45"),
    ],
)
def test_what_asks_another_question_is_shown_but_not_compared(
    body: dict[str, Any], why: str, results: Results
) -> None:
    _point(results, "maml", 20.16, **body)
    found = _find(results.root, "Table 2", "maml", "cls_to_cls")
    assert found.status == "not attempted"
    assert found.why.startswith(why)
    assert found.ours is not None
    assert found.ours.cell.value == pytest.approx(20.16, rel=1e-9)


def test_with_replaced_tasks_the_cells_that_do_not_depend_on_them_are_judged(
    results: Results,
) -> None:
    study: dict[str, Any] = {"settings": {"replaced": {"eli5-asks": "ai2_arc"}}}
    for partition in ("cls_to_cls", "noncls_to_cls"):
        for method in ("maml", "fine_tuning"):
            _point(results, method, 16.02, partition=partition, **study)
    section = read_results(results.root).main
    assert section.label.endswith("eli5-asks replaced by ai2_arc")
    assert section.differs == "eli5-asks replaced by ai2_arc"
    assert _find(results.root, "Table 2", "maml", "cls_to_cls").status == "contradicted"
    found = _find(results.root, "Table 2", "maml", "noncls_to_cls")
    assert (found.status, found.why) == ("not attempted", "eli5-asks replaced by ai2_arc")
    # fine-tuning learns nothing upstream
    assert _find(results.root, "Table 2", "fine_tuning", "noncls_to_cls").status == "reproduced"


def test_a_missing_run_is_no_attempt(results: Results) -> None:
    key = _point(results, "maml", 20.16, without=[(CLS.target[0], 13, 0.5)])
    found = _find(results.root, "Table 2", "maml", "cls_to_cls")
    assert found.why == "9 of 10 tasks have a relative gain"
    stop = Stop(point=key, trial="t", steps=100, by="racing", reason="1 < 2")
    results.database.add_stop(stop)
    found = _find(results.root, "Table 2", "maml", "cls_to_cls")
    assert found.why == "stopped: stopped by racing at rung 100: 1 < 2"


def test_other_data_seeds_are_no_attempt(tmp_path: Path) -> None:
    two = flat(dict.fromkeys(CLS.target, 0.6), DATA_SEEDS[:2])
    results = Results(tmp_path, seeds=DATA_SEEDS[:2])
    results.point("fomaml", "cls_to_cls", two, two, backbone=T5, gym="gym")
    assert _find(results.root, "Table 2", "fomaml", "cls_to_cls").why == "data seeds are 13, 21"


def test_where_several_studies_have_a_cell_none_is_compared(results: Results) -> None:
    for sha in ("0" * 64, "1" * 64):
        _point(results, "maml", 20.16, backbone_digest=sha)
    found = _find(results.root, "Table 2", "maml", "cls_to_cls")
    ids = [study.id for study in read_results(results.root).main.studies]
    assert found.status == "not attempted"
    assert all(one in found.why for one in ids)
    assert found.why.endswith("choose one with --study")
    only = paper_comparisons(Lookup(read_results(results.root, study=ids[1]).main))
    assert [one.status for one in only].count("reproduced") == 3  # in Tables 2, 3 and 4


def test_tables_3_and_4_find_their_sizes(results: Results) -> None:
    _point(results, "maml", 20.16)
    _point(results, "maml", 9.1, target_shots=32)
    _point(results, "maml", 8.44, source_set="12", sources=12)
    _point(results, "maml", 1.0, source_set="cls_to_cls_24", sources=24)
    for place, column, status in (
        ("Table 3", "16", "reproduced"),
        ("Table 3", "32", "reproduced"),
        ("Table 3", "64", "not attempted"),
        ("Table 4", "45", "reproduced"),
        ("Table 4", "12", "reproduced"),
        ("Table 4", "24", "contradicted"),
    ):
        assert _find(results.root, place, "maml", column).status == status


def test_table_5_asks_for_its_own_backbone(results: Results) -> None:
    targets = load_catalogue().partition("nonpara_to_para").target
    for backbone in ("facebook/bart-large", "/models/gpt2-large/", "embedded"):
        _point(
            results, "maml", 7.63, partition="nonpara_to_para", tasks=targets,
            backbone=backbone, sources=60,
        )  # fmt: skip
    assert _find(results.root, "Table 5", "BART-large", "maml").status == "reproduced"
    assert _find(results.root, "Table 5", "GPT2-large", "maml").status == "contradicted"
    assert _find(results.root, "Table 5", "T5-base", "maml").why == "no record"
    # another model is no T5-large, but stands beside its number in Table 2
    found = _find(results.root, "Table 2", "maml", "nonpara_to_para")
    assert found.why == "run on /models/gpt2-large/, not on T5-large"


def test_table_6_compares_single_tasks(results: Results) -> None:
    _point(results, "fomaml", 7.4)
    _point(results, "multitask", 10.0)
    case = "amazon_polarity"
    assert _find(results.root, "Table 6", f"{case} MPT", "cls_to_cls").status == "reproduced"
    assert _find(results.root, "Table 6", f"{case} MTL", "cls_to_cls").status == "contradicted"
    assert _find(results.root, "Table 6", f"{case} MPT", "random_to_random").why == "no record"


def test_table_8_is_read_from_the_pilots(results: Results) -> None:
    task = PILOT_TARGETS[0]
    for gain, choice in ((7.28, "highest5"), (0.0, "lowest5"), (3.61, "random3")):
        _point(
            results, "maml", gain, tasks=(task,), source_set=choice, sources=int(choice[-1]),
        )  # fmt: skip
    assert _find(results.root, "Table 8", task, "highest").status == "reproduced"
    assert _find(results.root, "Table 8", task, "lowest").status == "contradicted"
    assert _find(results.root, "Table 8", task, "random").why == "no record"


def test_the_searchs_best_point_is_found_by_its_settings(results: Results) -> None:
    tasks = load_catalogue().validation_tasks
    for steps in (2500, 5000):
        _point(
            results, "maml", 10.14, partition="random_to_random", tasks=tasks, role="validation",
            point={"steps": steps, "settings": {"inner_lr": 3e-5, "outer_lr": 0.5}},
        )  # fmt: skip
    found = _find(results.root, "A.5", "maml", "best")
    assert found.status == "reproduced"
    assert _find(results.root, "A.5", "maml", "worst").why == "no record"


def test_similarities_are_shown_but_their_pairs_are_not_known(results: Results) -> None:
    _point(results, "maml", 1.0)
    pairs = {"similar": [("a", "b", 0.5), ("c", "d", 0.7)], "dissimilar": []}
    about = {"gym": "gym", "smoke": False, "backbone": T5, "about": ""}
    results.database.put_document(PAIRS, "x", {**about, "pairs": pairs})
    found = paper_comparisons(Lookup(read_results(results.root).main))
    mean = next(
        one for one in found if one.published.row == "similar" and one.published.column == "mean"
    )
    assert mean.ours is not None
    assert mean.ours.cell.value == pytest.approx(0.6, rel=1e-12)
    assert (mean.status, mean.why) == ("not attempted", "the paper names no pairs")
