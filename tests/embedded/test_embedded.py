"""The embedded gym: what it must hold, and that its files read like any other gym's."""

from __future__ import annotations

import itertools
import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from mpt.config import DATA_SEEDS
from mpt.embedded import gym as embedded
from mpt.embedded.world.split import in_gym
from mpt.errors import UsageError
from mpt.gym.catalogue import ALL_SHOTS, PARTITIONS, TaskInfo, load_catalogue
from mpt.gym.fewshot import FewShotTask, load_task


@pytest.fixture(scope="session")
def gym(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return embedded.ensure_embedded_gym(tmp_path_factory.mktemp("cache"))


def test_there_are_at_least_forty_tasks_of_every_promised_kind() -> None:
    tasks = embedded.embedded_tasks().values()
    families = Counter(task.family for task in tasks)
    assert len(tasks) >= 40
    assert families["classification"] >= 20
    assert families["question_answering"] >= 10
    assert families["conditional_generation"] + families["other"] >= 10
    paraphrase = [task for task in tasks if task.paraphrase]
    assert len(paraphrase) >= 5
    # NP→P asks for transfer to other label words: no two paraphrase tasks share theirs.
    assert len({frozenset(task.labels.values()) for task in paraphrase}) == len(paraphrase)


def test_every_task_reads_through_the_ordinary_reader(gym: Path) -> None:
    catalogue = load_catalogue(gym)
    assert set(catalogue.tasks) == set(embedded.embedded_tasks())
    for name, info in catalogue.tasks.items():
        read = [load_task(gym, info, seed) for seed in DATA_SEEDS]
        assert {task.test for task in read} == {read[0].test}, name
        assert len(read[0].test) >= 200
        for task in read:
            classes = Counter(example.outputs[0] for example in task.train)
            if info.family == "classification":
                assert set(classes.values()) == {16}
                assert Counter(example.outputs[0] for example in task.dev) == classes
            else:
                assert (len(task.train), len(task.dev)) == (32, 32)


def test_no_input_stands_in_two_splits_of_a_task_and_the_data_seeds_differ(gym: Path) -> None:
    catalogue = load_catalogue(gym)
    for info in catalogue.tasks.values():
        samples = [load_task(gym, info, seed) for seed in DATA_SEEDS]
        for task in samples:
            train, dev, test = (
                {e.input for e in part} for part in (task.train, task.dev, task.test)
            )
            assert not train & dev | train & test | dev & test
        assert len({task.train for task in samples}) == len(DATA_SEEDS)


def test_every_input_is_on_the_gyms_side_of_the_split(gym: Path) -> None:
    for info in load_catalogue(gym).tasks.values():
        task = load_task(gym, info, DATA_SEEDS[0])
        assert all(in_gym(e.input) for e in (*task.train, *task.dev, *task.test))


def test_the_ten_settings_keep_source_target_and_validation_apart(gym: Path) -> None:
    catalogue = load_catalogue(gym)
    assert set(catalogue.partitions) == set(PARTITIONS)
    held_back = set(catalogue.validation_tasks)
    assert len(held_back) == 5
    for partition in catalogue.partitions.values():
        source, target = set(partition.source), set(partition.target)
        assert source
        assert target
        assert not source & target
        assert not (source | target) & held_back


@pytest.mark.parametrize(
    ("partition", "source", "target"),
    [
        ("cls_to_cls", {"classification"}, {"classification"}),
        ("noncls_to_cls", None, {"classification"}),
        ("cls_to_noncls", {"classification"}, None),
        ("qa_to_qa", {"question_answering"}, {"question_answering"}),
        ("nonqa_to_qa", None, {"question_answering"}),
    ],
)
def test_a_settings_families_are_what_its_name_says(
    gym: Path, partition: str, source: set[str] | None, target: set[str] | None
) -> None:
    catalogue = load_catalogue(gym)
    setting = catalogue.partitions[partition]
    for names, families in ((setting.source, source), (setting.target, target)):
        found = {catalogue.tasks[name].family for name in names}
        # None: the families that the other side of the setting does not name.
        assert found == families if families else not found & ((source or target) or set())


def test_nonpara_to_para_has_no_paraphrase_task_among_its_sources(gym: Path) -> None:
    setting = load_catalogue(gym).partitions["nonpara_to_para"]
    paraphrase = {n for n, task in embedded.embedded_tasks().items() if task.paraphrase}
    assert set(setting.target) == paraphrase
    assert not paraphrase & set(setting.source)


def test_writing_twice_gives_the_same_bytes(gym: Path, tmp_path: Path) -> None:
    embedded.write_embedded_gym(tmp_path)
    written = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert len(written) == 15 * len(embedded.embedded_tasks()) + 1
    for path in written:
        assert (tmp_path / path).read_bytes() == (gym / path).read_bytes(), path


def test_a_gym_that_is_there_is_used_and_a_half_written_one_never_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(out: Path, shots: int) -> None:
        (out / "reviews-film").mkdir()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(embedded, "write_embedded_gym", broken)
        with pytest.raises(UsageError, match=r"No space left on device.*set MPT_CACHE"):
            embedded.ensure_embedded_gym(tmp_path)
    assert list(tmp_path.iterdir()) == []
    first = embedded.ensure_embedded_gym(tmp_path)
    monkeypatch.setattr(embedded, "write_embedded_gym", broken)
    assert embedded.ensure_embedded_gym(tmp_path) == first


def test_a_file_in_place_of_the_cache_is_named_with_the_cure(tmp_path: Path) -> None:
    blocked = tmp_path / "cache"
    blocked.write_text("")
    with pytest.raises(UsageError, match=f"{re.escape(str(blocked))}.*set MPT_CACHE"):
        embedded.ensure_embedded_gym(blocked)


def test_a_world_that_is_too_small_for_a_task_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_DRAWS", 300)
    with pytest.raises(AssertionError, match="the world is too small"):
        embedded.draw_examples(embedded.embedded_tasks()["reviews-film"])


FEW = ("nli-places", "paraphrase-questions", "title-news")
"""Three classes; a class that the world runs out of; no classes."""


@pytest.fixture(scope="session")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few tasks at 16, 64 and 128 shots and at all of them, in folders of these names."""
    folder, rows = tmp_path_factory.mktemp("larger"), embedded.embedded_tasks()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "embedded_tasks", lambda: {name: rows[name] for name in FEW})
        patch.setattr(embedded, "_catalogue", lambda *_: "")
        patch.setattr(embedded, "_DRAWS", 20_000)  # the duplicates are found after half of these
        for shots in (16, 64, 128, ALL_SHOTS):
            (folder / str(shots)).mkdir()
            embedded.write_embedded_gym(folder / str(shots), shots)
    return folder


def _sampled(larger: Path, name: str, shots: int, seed: int = 13) -> FewShotTask:
    row = embedded.embedded_tasks()[name]
    info = TaskInfo(name, row.family, row.metric, row.shots).at_shots(shots)
    return load_task(larger / str(shots), info, seed)


def test_a_larger_sample_keeps_the_published_files(gym: Path, larger: Path) -> None:
    for path in (larger / "16").rglob("*.tsv"):
        assert path.read_bytes() == (gym / path.relative_to(larger / "16")).read_bytes()


@pytest.mark.parametrize("name", FEW)
def test_train_rows_of_fewer_shots_are_among_those_of_more(larger: Path, name: str) -> None:
    parts = [_sampled(larger, name, shots) for shots in (16, 64, 128, ALL_SHOTS)]
    for fewer, more in itertools.pairwise(parts):
        assert set(fewer.train) < set(more.train)
        assert fewer.test == more.test
        assert not {e.input for e in more.train} & {e.input for e in (*more.dev, *more.test)}
    assert parts[1].train != _sampled(larger, name, 64, seed=21).train


def test_a_class_with_too_few_rows_gives_half_of_them_and_no_class_less(larger: Path) -> None:
    def sizes(name: str, shots: int) -> set[int]:
        task = _sampled(larger, name, shots)
        counts = [Counter(e.outputs[0] for e in part) for part in (task.train, task.dev)]
        assert counts[0] == counts[1]
        return set(counts[0].values())

    assert sizes("nli-places", 64) == {64}
    assert sizes("nli-places", ALL_SHOTS) == {embedded.LARGE_POOL // 2}
    short = sizes("paraphrase-questions", 128)  # the world has fewer duplicates than 256
    assert max(short) == 128
    assert 64 < min(short) < 128
    assert len(_sampled(larger, "title-news", 64).train) == 64


def test_the_first_rows_of_a_larger_sample_hold_every_class(larger: Path) -> None:
    for part in (_sampled(larger, "nli-places", 64).train, _sampled(larger, "nli-places", 64).dev):
        assert len({e.outputs[0] for e in part[:3]}) == 3


def test_samples_of_another_size_are_a_gym_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(embedded, "write_embedded_gym", lambda out, shots: asked.append(shots))
    folders = [embedded.ensure_embedded_gym(tmp_path, shots) for shots in (16, 64, ALL_SHOTS)]
    assert asked == [16, 64, ALL_SHOTS]
    assert [folder.name.removeprefix(folders[0].name) for folder in folders] == ["", "-64", "-all"]
    text = embedded._catalogue(embedded.embedded_tasks(), 64)
    assert {row["shots"] for row in tomllib.loads(text)["tasks"].values()} == {64}


def test_parts_of_the_sources_are_nested_and_of_the_published_proportions(gym: Path) -> None:
    catalogue = load_catalogue(gym)
    source = catalogue.partitions["cls_to_cls"].source
    few, more = catalogue.source_subsets.values()
    assert set(few) < set(more) < set(source)
    assert len(few) / len(source) == pytest.approx(12 / 45, abs=0.5 / len(source))
    assert len(more) / len(source) == pytest.approx(24 / 45, abs=0.5 / len(source))
    assert [name for name in source if name in more] == list(more)  # in the partition's order
