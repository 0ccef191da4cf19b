from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
from search_toys import SOURCES, toy_study

import mpt
from mpt.config import StudyConfig, TextConfig
from mpt.errors import DataError, UsageError
from mpt.study.options import StudyOptions
from mpt.study.record import study_record
from mpt.study.study import open_study, plan_study
from mpt.trial.runs import baseline_packs, keys_of

REAL_GYM = Path(mpt.__file__).resolve().parents[1].parent / "shared" / "gym"
HERE = Path("unused-checkpoint")


@pytest.fixture
def gym(toy_gym: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(toy_gym, tmp_path / "gym"))


def test_a_whole_gym_gives_all_tasks_and_no_label(gym: Path) -> None:
    plan = plan_study(toy_study(HERE, gym))
    assert plan.source == SOURCES
    assert plan.partial is None


def test_missing_tasks_are_refused_with_the_whole_list(gym: Path) -> None:
    shutil.rmtree(gym / "s_two")
    (gym / "v-one" / "v-one_4_21_dev.tsv").unlink()
    with pytest.raises(DataError, match=r"lack 2 tasks: s_two .*; v-one .*--allow-missing"):
        plan_study(toy_study(HERE, gym))


def test_missing_target_tasks_do_not_matter_to_a_search(gym: Path) -> None:
    shutil.rmtree(gym / "t-one")
    assert plan_study(toy_study(HERE, gym)).partial is None


def test_allow_missing_labels_what_is_left_out(gym: Path) -> None:
    shutil.rmtree(gym / "s_two")
    shutil.rmtree(gym / "v-one")
    plan = plan_study(toy_study(HERE, gym), allow_missing=True)
    assert plan.source == ("s-one", "s-three")
    assert plan.scored == ("v_two",)
    assert plan.partial == (
        "partial: 1 of 3 source tasks missing; 1 of 2 validation tasks missing"
    )


def test_source_tasks_of_ones_own_have_a_name_and_are_checked_like_the_partitions(
    gym: Path,
) -> None:
    config = toy_study(HERE, gym)
    plan = plan_study(config, source=("s-three", "t-one"), source_set="highest2")
    assert (plan.source, plan.source_set) == (("s-three", "t-one"), "highest2")
    assert plan.partial is None
    with pytest.raises(UsageError, match="v-one is learned from and scored"):
        plan_study(config, source=("s-one", "v-one"))
    with pytest.raises(DataError, match=r"lack 1 task: nobody \(not in the catalogue\)"):
        plan_study(config, source=("s-one", "nobody"))


def test_a_smoke_run_takes_the_first_available_sources_and_is_labelled(gym: Path) -> None:
    shutil.rmtree(gym / "s-one")
    plan = plan_study(toy_study(HERE, gym), smoke_sources=1)
    assert plan.source == ("s_two",)
    assert plan.partial is not None
    assert plan.partial.startswith("partial: smoke, 1 source task")


@pytest.mark.parametrize("lost", [SOURCES, ("v-one", "v_two")])
def test_nothing_left_is_refused_even_with_allow_missing(gym: Path, lost: tuple[str, ...]) -> None:
    for name in lost:
        shutil.rmtree(gym / name)
    with pytest.raises(DataError, match="none of the"):
        plan_study(toy_study(HERE, gym), allow_missing=True)


def test_an_unknown_partition_lists_the_known_ones(gym: Path) -> None:
    with pytest.raises(UsageError, match=r"'rr' is unknown; known are random_to_random"):
        plan_study(toy_study(HERE, gym, partition="rr"))


def test_an_absent_gym_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a directory"):
        plan_study(toy_study(HERE, tmp_path / "absent"))


def test_relative_paths_hold_in_any_working_directory(
    gym: Path, toy_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(gym.parent)
    (gym.parent / "model").symlink_to(toy_checkpoint)
    plan = plan_study(toy_study(Path("model"), Path("gym")))
    monkeypatch.chdir("/")
    study = open_study(plan)
    assert [(task.name, task.seed) for task in study.items] == [
        (name, seed) for name in SOURCES for seed in (13, 21)
    ]


def test_a_broken_few_shot_file_is_named_with_its_line(gym: Path, toy_checkpoint: Path) -> None:
    path = gym / "s_two" / "s_two_4_21_train.tsv"
    path.write_text(path.read_text() + "no tab\n")
    with pytest.raises(DataError, match=rf"{path}:9: no tab"):
        open_study(plan_study(toy_study(toy_checkpoint, gym)))


@pytest.mark.skipif(not REAL_GYM.is_dir(), reason=f"no real few-shot files at {REAL_GYM}")
def test_the_real_gym_is_refused_with_a_list_and_taken_by_a_smoke_run() -> None:
    config = StudyConfig(backbone="embedded", gym=str(REAL_GYM))
    with pytest.raises(DataError, match=r"lack \d+ tasks: .*empathetic_dialogues"):
        plan_study(config)
    plan = plan_study(config, smoke_sources=3)
    assert len(plan.source) == 3
    assert "tweet_qa" in plan.scored
    assert plan.partial is not None
    assert "1 of 5 validation tasks missing" in plan.partial


def test_a_preset_may_choose_target_tasks_and_the_label_says_how_many(gym: Path) -> None:
    names = gym / "gym.toml"
    names.write_text(
        names.read_text().replace('target = ["t-one"]', 'target = ["t-one", "v-one"]')
    )
    whole = plan_study(toy_study(HERE, gym), role="target")
    assert whole.scored == ("t-one", "v-one")
    chosen = dataclasses.replace(toy_study(HERE, gym), target=whole.scored[-1:])
    plan = plan_study(chosen, role="target")
    assert plan.scored == whole.scored[-1:]
    assert plan.partial == "partial: 1 of 2 target tasks chosen"
    # a preset's choice says nothing on a partition without these tasks, nor in a search
    other = dataclasses.replace(chosen, target=("nobody",))
    assert plan_study(other, role="target").scored == whole.scored
    assert plan_study(other, role="target").partial is None
    assert plan_study(chosen).partial is None


def test_a_presets_validation_tasks_are_those_of_the_gym_it_is_made_for(gym: Path) -> None:
    config = toy_study(HERE, gym)
    own = plan_study(dataclasses.replace(config, validation=("v_two",)))
    assert (own.scored, own.partial) == (("v_two",), None)
    elsewhere = plan_study(dataclasses.replace(config, validation=("topics-sections",)))
    assert elsewhere.scored == plan_study(config).scored
    with pytest.raises(UsageError, match=r"validation task 'v-tow' is unknown"):
        plan_study(dataclasses.replace(config, validation=("v_two", "v-tow")))


def test_the_chat_template_is_a_study_of_its_own_with_runs_of_its_own(
    gym: Path, toy_checkpoint: Path
) -> None:
    plain = open_study(plan_study(toy_study(toy_checkpoint, gym)))
    config = StudyOptions(template="chat").apply(plain.config)
    chat = dataclasses.replace(plain, plan=dataclasses.replace(plain.plan, config=config))
    assert study_record(plain).key != study_record(chat).key
    assert study_record(chat).settings["text"]["template"] == "chat"
    assert not set(keys_of(baseline_packs(plain))) & set(keys_of(baseline_packs(chat)))


def test_the_chat_template_is_taken_upstream_too_where_lengths_differ_there() -> None:
    config = StudyConfig(upstream_lengths=TextConfig(max_input=7))
    changed = StudyOptions(template="chat").apply(config)
    assert changed.upstream_text == TextConfig(max_input=7, template="chat")
