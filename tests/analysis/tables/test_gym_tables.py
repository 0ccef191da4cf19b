from __future__ import annotations

from pathlib import Path

from analysis.tables.gym import gym_tables, partition_table, reference_table, subset_table
from mpt.gym.catalogue import load_catalogue

SIZES = {  # Table 1 of the paper: source / target tasks
    "R→R": (114, 20), "Cls→Cls": (45, 10), "Both→Cls": (45, 10), "Non-Cls→Cls": (45, 10),
    "Cls→Non-Cls": (45, 12), "Both→Non-Cls": (45, 12), "Non-Cls→Non-Cls": (45, 12),
    "QA→QA": (22, 15), "Non-QA→QA": (33, 15), "NP→P": (60, 4),
}  # fmt: skip


def test_table_1_has_the_published_sizes_and_families() -> None:
    table = partition_table(load_catalogue())
    rows = {row[0].text: row for row in table.rows}
    assert list(rows) == list(SIZES)
    for label, sizes in SIZES.items():
        assert (rows[label][2].text, rows[label][4].text) == tuple(map(str, sizes))
    assert rows["Both→Cls"][3].text == "23 Cls, 14 QA, 2 CG, 6 other"
    assert rows["Cls→Cls"][3].text == "45 Cls"


def test_table_9_lists_every_partition_and_the_validation_tasks() -> None:
    table = gym_tables(load_catalogue())[1]
    assert len(table.rows) == 21
    assert [cell.text for cell in table.rows[-1][:2]] == ["all", "validation"]
    tasks = table.rows[0][2].text
    assert tasks is not None
    assert len(tasks.split(", ")) == 114


def test_table_10_has_the_12_and_24_source_tasks() -> None:
    table = subset_table(load_catalogue())
    assert [row[1].text for row in table.rows] == ["12", "24"]


def test_table_11_names_the_reference_of_every_task_that_has_one() -> None:
    table = reference_table(load_catalogue())
    assert len(table.rows) == 160
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    assert rows["ai2_arc"] == ["QA", "ACC", "32", "Clark et al. 2018"]
    assert rows["glue-rte"][2] == "16 per class"
    # not in the paper's list
    without = {"app_reviews", "definite_pronoun_resolution", "empathetic_dialogues", "jeopardy"}
    assert {task for task, row in rows.items() if row[3] == "–"} == without | {
        "mocha",
        "wiki_auto",
    }


def test_a_gym_of_ones_own_has_the_same_tables(tmp_path: Path) -> None:
    (tmp_path / "gym.toml").write_text(
        '[tasks.one]\nfamily = "other"\nmetric = "EM"\nshots = "all"\n'
        '[tasks.two]\nfamily = "classification"\nmetric = "ACC"\nshots = 8\n'
        '[partitions.mine]\nsource = ["one"]\ntarget = ["two"]\n'
    )
    tables = gym_tables(load_catalogue(tmp_path))
    assert [cell.text for cell in tables[0].rows[0][:3]] == ["mine", "mine", "1"]
    assert [cell.text for cell in tables[3].rows[0]] == ["one", "other", "EM", "all", "–"]
    assert tables[2].rows == ()
