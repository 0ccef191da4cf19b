"""The published catalogue against Table 1 of the paper, and gym.toml files good and bad."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from mpt.errors import DataError, UsageError
from mpt.gym.catalogue import ALL_SHOTS, PARTITIONS, TaskInfo, load_catalogue, missing_tasks
from mpt.toml_file import read_toml

# Qin et al. 2023, Table 1: number of source and of target tasks.
TABLE_1 = {
    "random_to_random": (114, 20),
    "cls_to_cls": (45, 10),
    "both_to_cls": (45, 10),
    "noncls_to_cls": (45, 10),
    "cls_to_noncls": (45, 12),
    "both_to_noncls": (45, 12),
    "noncls_to_noncls": (45, 12),
    "qa_to_qa": (22, 15),
    "nonqa_to_qa": (33, 15),
    "nonpara_to_para": (60, 4),
}
OWN = """
validation_tasks = ["c"]
[tasks.a]
family = "classification"
metric = "ACC"
shots = 16
[tasks.b]
family = "other"
metric = "EM"
shots = "all"
[tasks.c]
family = "question_answering"
metric = "QA-F1"
shots = 8
[partitions.mine]
source = ["a"]
target = ["b"]
"""


def own_gym(folder: Path, text: str = OWN) -> Path:
    (folder / "gym.toml").write_text(text, encoding="utf-8")
    return folder


def test_there_are_160_tasks_and_the_partitions_have_the_sizes_of_table_1() -> None:
    catalogue = load_catalogue(None)
    assert len(catalogue.tasks) == 160
    sizes = {
        name: (len(part.source), len(part.target)) for name, part in catalogue.partitions.items()
    }
    assert sizes == TABLE_1
    assert tuple(catalogue.partitions) == PARTITIONS


def test_both_to_cls_has_23_classification_and_22_other_sources() -> None:
    catalogue = load_catalogue(None)
    source = catalogue.partitions["both_to_cls"].source
    families = Counter(catalogue.tasks[name].family == "classification" for name in source)
    assert families == {True: 23, False: 22}


def test_families_and_metrics_have_the_published_counts() -> None:
    tasks = load_catalogue(None).tasks.values()
    assert Counter(task.metric for task in tasks) == {
        "Classification-F1": 51,
        "ACC": 51,
        "EM": 28,
        "Rouge-L": 17,
        "QA-F1": 9,
        "Pearson Correlation": 3,
        "Matthew Correlation": 1,
    }
    assert Counter(task.family for task in tasks) == {
        "classification": 65,
        "question_answering": 51,
        "other": 31,
        "conditional_generation": 13,
    }
    assert Counter(task.shots for task in tasks) == {16: 82, 32: 78}


def test_validation_tasks_are_neither_source_nor_target_of_random_to_random() -> None:
    catalogue = load_catalogue(None)
    assert catalogue.validation_tasks == (
        "tweet_eval-emotion",
        "financial_phrasebank",
        "tweet_qa",
        "empathetic_dialogues",
        "cos_e",
    )
    part = catalogue.partitions["random_to_random"]
    assert not set(catalogue.validation_tasks) & (set(part.source) | set(part.target))


def test_the_source_subsets_have_12_and_24_tasks_and_are_nested() -> None:
    subsets = load_catalogue(None).source_subsets
    assert {name: len(tasks) for name, tasks in subsets.items()} == {
        "cls_to_cls_12": 12,
        "cls_to_cls_24": 24,
    }
    assert set(subsets["cls_to_cls_12"]) < set(subsets["cls_to_cls_24"])


def test_a_gym_without_gym_toml_has_the_published_catalogue(tmp_path: Path) -> None:
    assert load_catalogue(tmp_path) is load_catalogue(None)


def test_a_gym_toml_replaces_the_published_catalogue(tmp_path: Path) -> None:
    catalogue = load_catalogue(own_gym(tmp_path))
    assert catalogue.tasks["b"] == TaskInfo("b", "other", "EM", ALL_SHOTS)
    assert catalogue.partitions["mine"].source == ("a",)
    assert catalogue.validation_tasks == ("c",)


def test_a_task_may_name_the_part_of_its_family(tmp_path: Path) -> None:
    path = own_gym(tmp_path) / "gym.toml"
    path.write_text(path.read_text().replace("[tasks.b]", '[tasks.b]\ngroup = "summarization"'))
    assert load_catalogue(tmp_path).tasks["b"].group == "summarization"
    path.write_text(path.read_text().replace('"summarization"', "3"))
    with pytest.raises(DataError, match=r"\[tasks.b\] group is 3, but must be a name"):
        load_catalogue(tmp_path)
    published = load_catalogue().tasks
    assert sum(info.group == "summarization" for info in published.values()) == 7


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('metric = "EM"', 'metric = "BLEU"', r"\[tasks.b\] metric is 'BLEU', but must be one of"),
        (
            'family = "other"',
            'family = "odd"',
            r"\[tasks.b\] family is 'odd', but must be one of cl",
        ),
        ("shots = 8", "shots = 0", "shots is 0, but must be a whole number ≥ 1"),
        (
            "shots = 8",
            "shots = 8\nshot = 8",
            r"\[tasks.c\] has the unknown key 'shot' \(did you mean 'shots'\?\)",
        ),
        ('target = ["b"]', 'target = ["z"]', "names 'z', which is not a task"),
        ('target = ["b"]', 'target = ["a"]', "'a' is both source and target"),
        ('target = ["b"]', 'target = ["b", "b"]', "names 'b' twice"),
        ('target = ["b"]', "", r"\[partitions.mine\] lacks 'target'"),
        (
            '["c"]',
            '["c"]\nvalidation = 1',
            "toml: has the unknown key 'validation' .*'validation_tasks'",
        ),
        ("[tasks.a]", "[tasks.a", "not a TOML file"),
        ("[tasks.a]", '[tasks."../a"]', r"a task is named '\.\./a', but must have the name of a"),
        ("[tasks.a]", '[tasks.".."]', r"a task is named '\.\.'"),
        (
            "[tasks.a]",
            "source_subsets = 5\n[tasks.a]",
            r"\[source_subsets\] is 5, but must be a table",
        ),
        ("shots = 8", "shots = [8]", r"shots is \[8\]"),
        ('metric = "EM"', "metric = { x = 1 }", r"metric is \{'x': 1\}"),
        ("[partitions.mine]", "[partitions]\nmine = 3\n[other]", r"unknown key 'other'"),
        (
            'source = ["a"]',
            "source = 3",
            r"\[partitions.mine\] source is 3, but must be a list of",
        ),
        (
            'family = "other"\nmetric = "EM"',
            'metric = "X"',
            r"\[tasks.b\] lacks 'family'; give it",
        ),
        (
            'family = "other"\nmetric = "EM"\nshots = "all"',
            'family = "odd"\nmetric = "X"\nshots = true',
            r"family is 'odd', .*; metric is 'X', .*; shots is True, but must be",
        ),
    ],
)
def test_a_bad_gym_toml_is_named(tmp_path: Path, before: str, after: str, message: str) -> None:
    assert before in OWN
    with pytest.raises(DataError, match=message):
        load_catalogue(own_gym(tmp_path, OWN.replace(before, after)))


def test_a_gym_toml_that_cannot_be_read_is_never_taken_for_the_published_catalogue(
    tmp_path: Path,
) -> None:
    (tmp_path / "gym.toml").mkdir()
    with pytest.raises(DataError, match=r"gym.toml: cannot be read \(Is a directory\)"):
        load_catalogue(tmp_path)
    (tmp_path / "gym.toml").rmdir()
    (tmp_path / "gym.toml").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match="No such file"):
        load_catalogue(tmp_path)


def test_an_absent_gym_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a directory"):
        load_catalogue(tmp_path / "absent")


def test_unknown_names_are_met_with_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'glue-mrcp' is unknown; near it are glue-mrpc"):
        load_catalogue(None).task("glue-mrcp")
    with pytest.raises(UsageError, match="partition 'rr' is unknown; known are random_to_random"):
        load_catalogue(None).partition("rr")


def test_more_shots_keep_the_ratio_rule_of_the_build_command() -> None:
    per_class = TaskInfo("t", "other", "EM", 16)
    flat = TaskInfo("t", "other", "EM", 32)
    assert [per_class.at_shots(n).shots for n in (16, 32, 128, ALL_SHOTS)] == [16, 32, 128, 0]
    assert [flat.at_shots(n).shots for n in (16, 32, 128, ALL_SHOTS)] == [32, 32, 128, 0]
    assert per_class.at_shots(ALL_SHOTS).file_name(13, "dev") == "t_all_13_dev.tsv"


def test_missing_tasks_give_the_reason(tmp_path: Path) -> None:
    gym = own_gym(tmp_path)
    (gym / "a").mkdir()
    for part in ("train", "dev", "test"):
        (gym / "a" / f"a_16_13_{part}.tsv").write_text("x\ty\n")
    assert missing_tasks(gym, ["a"], [13]) == {}
    assert missing_tasks(gym, ["a", "b", "z"], [13, 21]) == {
        "a": "no file a_16_21_train.tsv and 2 more",
        "b": "not built (no directory)",
        "z": "not in the catalogue",
    }


def test_a_file_that_has_changed_is_read_anew(tmp_path: Path) -> None:
    assert load_catalogue(own_gym(tmp_path)).tasks["c"].shots == 8
    assert load_catalogue(own_gym(tmp_path, OWN.replace("= 8", "= 9"))).tasks["c"].shots == 9
    tables = read_toml(tmp_path / "gym.toml")
    tables["tasks"].clear()
    assert list(read_toml(tmp_path / "gym.toml")["tasks"]) == ["a", "b", "c"]
