"""The embedded gym: what it must hold, and that its files read like any other gym's."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from mpt.config import DATA_SEEDS
from mpt.errors import UsageError
from mpt.gym import embedded
from mpt.gym.catalogue import PARTITIONS, load_catalogue
from mpt.gym.fewshot import load_task
from mpt.gym.world.split import in_gym


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
    def broken(out: Path) -> None:
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
