"""Published sums, states of tasks and partitions, and text that tasks share."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import gym_rows
import pytest

from mpt.gym.catalogue import load_catalogue
from mpt.gym.crossfit import verify
from mpt.gym.crossfit.build import Plan, build_all
from mpt.gym.crossfit.doctor import examine, read_texts
from mpt.gym.crossfit.sources import Mirror
from mpt.gym.crossfit.tasks import load_rows
from mpt.gym.crossfit.verify import compare, published_sums
from mpt.gym.overlap import Overlap, Texts

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
OWN = """
[tasks.a]
family = "classification"
metric = "ACC"
shots = 2
[tasks.b]
family = "classification"
metric = "ACC"
shots = 2
[tasks.c]
family = "other"
metric = "ACC"
shots = 2
[partitions.one]
source = ["a"]
target = ["b"]
[partitions.two]
source = ["a"]
target = ["b", "c"]
"""
LONG = "the quick brown fox jumps over the lazy dog near the old river bank"
OTHER = "nobody in this small town had ever seen such a strange green light"


def write(gym: Path, task: str, seed: int = 13, **parts: list[str]) -> None:
    (gym / task).mkdir(parents=True, exist_ok=True)
    for part in ("train", "dev", "test"):
        texts = parts.get(part, [f"{task} {part} text"])
        path = gym / task / f"{task}_2_{seed}_{part}.tsv"
        path.write_text("".join(f"{text}\tyes\n" for text in texts), encoding="utf-8")


def own_gym(folder: Path) -> Path:
    (folder / "gym.toml").write_text(OWN)
    return folder


def test_there_are_2400_published_sums_15_a_task_with_one_test_for_all_seeds() -> None:
    sums = published_sums()
    assert sum(map(len, sums.values())) == 2400
    assert set(sums) == set(load_rows())
    for name, by_file in sums.items():
        assert len(by_file) == 15, name
        assert len({md5 for file, md5 in by_file.items() if file.endswith("_test.tsv")}) == 1


def test_the_packed_sums_are_the_published_table() -> None:
    path = SHARED / "gym_spec" / "md5.json"
    if not path.is_file():
        pytest.skip("the published table is not beside the checkout")
    packed = {file: md5 for by_file in published_sums().values() for file, md5 in by_file.items()}
    assert packed == json.loads(path.read_text())


def test_files_are_sorted_into_same_different_and_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a")
    content = (tmp_path / "a" / "a_2_13_train.tsv").read_bytes()
    table = {
        "a_2_13_train.tsv": hashlib.md5(content).hexdigest(),
        "a_2_13_dev.tsv": "0" * 32,
        "a_2_21_train.tsv": "0" * 32,
    }
    monkeypatch.setattr(verify, "published_sums", lambda: {"a": table})
    found = compare(tmp_path, "a")
    assert found.same == ("a_2_13_train.tsv",)
    assert found.different == ("a_2_13_dev.tsv",)
    assert found.absent == ("a_2_21_train.tsv",)
    assert found.counts() == "train 1/2, dev 0/1, test 0/0"


def test_the_states_of_tasks_and_partitions(tmp_path: Path) -> None:
    gym = own_gym(tmp_path)
    write(gym, "a")
    write(gym, "a", seed=21)
    write(gym, "b", dev=["fine", "\x00"])
    (gym / "b" / "b_2_13_test.tsv").write_text("no tab\n")
    (gym / "unavailable.json").write_text(json.dumps({"c": "task c: the network is down"}))
    found = {state.task: state for state in examine(gym).tasks}
    assert (found["a"].status, found["a"].seeds) == ("built", (13, 21))
    assert found["b"].status == "unavailable"
    assert "b_2_13_test.tsv:1: no tab" in found["b"].reason
    assert (found["c"].status, found["c"].reason) == ("unavailable", "task c: the network is down")
    write(gym, "b")
    (gym / "unavailable.json").unlink()
    diagnosis = examine(gym)
    assert diagnosis.tasks[2].reason == "not built"
    assert [part.complete for part in diagnosis.partitions] == [True, False]
    assert diagnosis.partitions[1].missing_target == ("c",)


def test_an_incomplete_task_and_one_without_a_whole_seed_are_unavailable(tmp_path: Path) -> None:
    gym = own_gym(tmp_path)
    write(gym, "a")
    (gym / "a" / "a_2_13_dev.tsv").unlink()
    state = examine(gym).tasks[0]
    assert state.status == "unavailable"
    assert state.reason == "no data seed has train, dev and test at 2 shots"


def test_a_file_that_changed_after_the_build_differs_and_is_named(tmp_path: Path) -> None:
    row = load_rows()["wino_grande"]
    for split in row.splits.names:
        path = tmp_path / "raw" / "wino_grande" / f"{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {"sentence": f"s {n}", "option1": "a", "option2": "b", "answer": "1"}
            for n in range(70)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    gym = tmp_path / "gym"
    build_all(["wino_grande"], Plan(Mirror(tmp_path / "raw"), gym, 16, (13,)), 1, lambda r: None)
    (state,) = (s for s in examine(gym).tasks if s.task == "wino_grande")
    assert state.status == "differs"  # synthetic rows: not the published bytes
    assert state.reason == "as published: train 0/5, dev 0/5, test 0/5"
    file = gym / "wino_grande" / "wino_grande_32_13_dev.tsv"
    file.write_bytes(file.read_bytes() + b"more\tyes\n")
    (state,) = (s for s in examine(gym).tasks if s.task == "wino_grande")
    assert state.reason == "changed since it was built: wino_grande_32_13_dev.tsv (1 files)"


@pytest.mark.parametrize(
    ("left", "right", "near"),
    [
        (LONG, LONG, True),
        (LONG, LONG.upper().replace("fox", "fox,"), True),
        (f"premise: {LONG} [SEP] hypothesis: x", f"sentence 1: {LONG} [SEP] sentence 2: y", True),
        (f"question: {LONG} context: {OTHER}", LONG, True),
        (f"{OTHER} (A) {LONG}", f"{LONG} (A) no (B) yes", True),
        (LONG, OTHER, False),
        (LONG.replace("lazy", "busy"), LONG, False),  # 5 of 10 runs of five words are broken
        (LONG.replace("bank", "side"), LONG, True),  # 1 of 10
        ("so good", "So good!", True),
        ("so good", "so good indeed", False),
        ("the quick brown fox", LONG, False),
    ],
)
def test_near_duplicates_survive_templates_case_and_punctuation(
    left: str, right: str, near: bool
) -> None:
    found = Overlap({"t": Texts([left], []), "s": Texts([right], [])}).matches("t")
    assert found.learn.tolist() == [[True, near]]


def test_matches_tell_train_and_dev_from_the_rest() -> None:
    texts = {
        "t": Texts(["own text"], [LONG, OTHER, "third"]),
        "s": Texts([LONG], [OTHER]),
        "empty": Texts([], []),
    }
    found = Overlap(texts).matches("t")
    assert found.learn[:, 1].tolist() == [False, True, False, False]
    assert found.anywhere[:, 1].tolist() == [False, True, True, False]
    assert not found.anywhere[:, 2].any()
    assert Overlap(texts).matches("empty").learn.shape == (0, 3)


def test_rates_of_partitions_and_pairs(tmp_path: Path) -> None:
    gym = own_gym(tmp_path)
    write(gym, "a", train=[LONG, "x"], test=[OTHER])
    write(gym, "b", train=["b one"], dev=["b two"], test=[LONG, OTHER])
    write(gym, "c", test=["c one", "c two", LONG])
    diagnosis = examine(gym)
    counts = {
        part.name: (part.inputs, part.near_learn, part.near_anywhere)
        for part in diagnosis.partitions
    }
    # b: 4 inputs, one in a's train, one in a's test; c: 5 inputs, one in a's train
    assert counts == {"one": (4, 1, 2), "two": (9, 2, 3)}
    assert [(pair.source, pair.target) for pair in diagnosis.pairs] == [("a", "b"), ("a", "c")]
    assert (diagnosis.pairs[0].share_learn, diagnosis.pairs[0].share_anywhere) == (0.25, 0.5)


def test_the_known_overlaps_of_the_published_data_are_found() -> None:
    real = SHARED / "gym"
    if not real.is_dir():
        pytest.skip("no CrossFit data directory beside the checkout")
    catalogue = load_catalogue(None)
    texts = {
        name: read_texts(real, catalogue.tasks[name], (13,))
        for name in ("glue-rte", "superglue-rte", "ethos-race", "ethos-religion", "xsum")
    }
    overlap = Overlap(texts)
    shares = overlap.matches("superglue-rte").anywhere.mean(axis=0)
    assert shares[0] > 0.8
    assert shares[4] == 0
    assert overlap.matches("ethos-race").anywhere[:, 3].mean() > 0.5


def test_160_tasks_are_examined_in_well_under_a_minute(tmp_path: Path) -> None:
    # a fifth of the 300 or so inputs of a real task, so a fifth of a minute
    names = list(load_catalogue(None).tasks)
    for name in names:
        info = load_catalogue(None).tasks[name]
        maker = gym_rows.Maker(name)
        (tmp_path / name).mkdir()
        for part in ("train", "dev", "test"):
            lines = (f"{' '.join(maker.text().split())}\tyes\n" for _ in range(60))
            (tmp_path / name / info.file_name(13, part)).write_text("".join(lines))
    start = time.process_time()
    diagnosis = examine(tmp_path)
    assert time.process_time() - start < 12
    assert all(part.complete for part in diagnosis.partitions)
    assert {state.status for state in diagnosis.tasks} == {"differs"}
