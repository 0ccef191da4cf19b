"""What a replay consists of: cells, their settings and where these are from."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
from stored import Stored

from mpt.cli import replay as replay_cli
from mpt.cli.flags import command_of
from mpt.cli.replay import main
from mpt.config import DATA_SEEDS, METHODS, OWN_METHODS, StudyConfig, UpstreamConfig
from mpt.embedded.gym import ensure_embedded_gym
from mpt.errors import DataError, UsageError
from mpt.gym.catalogue import ALL_SHOTS, PARTITIONS, load_catalogue
from mpt.replay.replay import plan_replay
from mpt.replay.request import Request, Setting, settings_of
from mpt.replay.settings import SWEEPS, load_replay_settings
from mpt.replay.source import published, study_of
from mpt.search.display.columns import Columns
from mpt.study.options import StudyOptions
from mpt.study.presets import load_study
from mpt.study.recipes import recipe
from mpt.study.spaces import SPACES
from mpt.study.specs import FineTuningConfig, TrialSpec
from mpt.study.study import StudyPlan, plan_study
from mpt.upstream.registry import UPSTREAM_METHODS, Method

NOWHERE = Path("/nonexistent/results")
REPLAYED = (*METHODS, "fine_tuning")
"""Methods that have settings of their own."""
SETTINGS = load_replay_settings(load_study("embedded").downstream)


def _request(**changes: Any) -> Request:
    return Request(results=NOWHERE, **changes)


@pytest.fixture(scope="module")
def sized_gym(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gym of empty-handed tasks whose larger samples lie in a folder beside it."""
    gym = tmp_path_factory.mktemp("gyms") / "gym"
    rows = ['validation_tasks = ["v"]', "[source_subsets]", 'cls_to_cls_2 = ["a", "b"]']
    rows += [f"[tasks.{n}]\nfamily = 'other'\nmetric = 'EM'\nshots = 16" for n in "abctv"]
    rows += ["[partitions.cls_to_cls]", 'source = ["a", "b", "c"]', 'target = ["t"]']
    rows += ["[partitions.qa_to_qa]", 'source = ["a"]', 'target = ["t"]']
    for shots, folder in ((16, gym), (32, gym.with_name("gym-32"))):
        for name in "abctv":
            (folder / name).mkdir(parents=True)
            for seed in DATA_SEEDS:
                for part in ("train", "dev", "test"):
                    path = folder / name / f"{name}_{shots}_{seed}_{part}.tsv"
                    path.write_text("".join(f"{name}{shots}{n}\tx\n" for n in range(shots)))
        text = "\n".join(rows).replace("shots = 16", f"shots = {shots}")
        (folder / "gym.toml").write_text(text)
    return gym


def test_a_replay_is_ten_partitions_times_five_methods_over_shared_baselines() -> None:
    replay = plan_replay(_request())
    trials = replay.job.trials
    assert len(trials) == 50
    cells = [(c.plan.config.partition, c.method) for c in trials]
    assert cells == [(name, method) for name in PARTITIONS for method in REPLAYED]
    catalogue = load_catalogue(ensure_embedded_gym())
    for trial in trials:
        partition = catalogue.partition(trial.plan.config.partition)
        assert trial.plan.role == "target"
        assert trial.plan.scored == partition.target
        held_out = trial.plan.config.validation  # a search is scored on them
        assert trial.plan.source == tuple(t for t in partition.source if t not in held_out)
        assert trial.plan.config.data_seeds == DATA_SEEDS
        assert len(trial.upstream.rungs) == 1
    assert len(replay.job.plans) == 10  # the methods of a setting share its baseline
    assert [note.split(",")[0] for note in replay.notes] == list(REPLAYED)


def test_the_published_partitions_have_51_different_target_tasks() -> None:
    partitions = load_catalogue(None).partitions.values()
    assert len({task for partition in partitions for task in partition.target}) == 51


@pytest.mark.parametrize(
    ("sweep", "expected"),
    [
        (
            "target_shots",
            [Setting(partition="cls_to_cls", target_shots=n) for n in (None, 32, 64, 128, 0)],
        ),
        (
            "source_shots",
            [Setting(partition="cls_to_cls", source_shots=n) for n in (None, 32, 64, 128, 0)],
        ),
        (
            "sources",
            [Setting(partition="cls_to_cls", source_set=name) for name in ("5", "11", "all")],
        ),
    ],
)
def test_a_sweep_has_the_papers_cells(sweep: str, expected: list[Setting]) -> None:
    """The published size is the task's own: that cell is the one of the plain replay."""
    assert settings_of(_request(sweep=sweep), SETTINGS) == expected
    assert ALL_SHOTS == 0


def test_a_sweep_over_sources_of_the_published_catalogue_has_12_24_and_all(
    tmp_path: Path,
) -> None:
    settings = settings_of(_request(gym=str(tmp_path), sweep="sources"), SETTINGS)
    assert [setting.source_set for setting in settings] == ["12", "24", "all"]
    with pytest.raises(UsageError, match=r"qa_to_qa has no parts of its sources .*cls_to_cls_12"):
        settings_of(
            _request(gym=str(tmp_path), sweep="sources", partitions=("qa_to_qa",)), SETTINGS
        )


def test_other_sample_sizes_are_read_from_the_folder_beside_the_gym(sized_gym: Path) -> None:
    config = dataclasses.replace(
        load_study("embedded"), gym=str(sized_gym), partition="cls_to_cls"
    )
    plan = plan_study(config, role="target", source_shots=32)
    assert (plan.source_shots, plan.target_shots) == (32, None)
    with pytest.raises(DataError, match=r"gym: .* its target tasks lack 1 task: t .*--shots K"):
        plan_study(config, role="target", target_shots=64)
    part = plan_study(config, role="target", source_set="2")
    assert (part.source, part.source_set) == (("a", "b"), "2")
    with pytest.raises(UsageError, match="'7' of cls_to_cls is unknown; known are 2, all"):
        plan_study(config, role="target", source_set="7")


def test_the_cells_of_a_sweep_have_names_and_columns_of_their_own(sized_gym: Path) -> None:
    """Only 32 is built beside this gym; the sources' parts are there."""
    request = _request(gym=str(sized_gym), methods=("maml",), partitions=("cls_to_cls",))
    job = plan_replay(dataclasses.replace(request, sweep="sources")).job
    tails = [trial.name.partition("cls_to_cls")[2] for trial in job.trials]
    assert tails == ["-sources2", ""]
    assert Columns(job, settings=False).names == ["sources"]
    plans = [dataclasses.replace(job.plans[1], target_shots=shots) for shots in (None, 32, 0)]
    trials = tuple(dataclasses.replace(job.trials[0], plan=plan) for plan in plans)
    shots = dataclasses.replace(job, trials=trials)
    assert trials[2].name.endswith("cls_to_cls-target_shots_all")
    assert [Columns(shots, settings=False).of(trial) for trial in trials] == [
        ["own"],
        ["32"],
        ["all"],
    ]


def test_files_of_several_sizes_in_one_folder_are_found_too(
    sized_gym: Path, tmp_path: Path
) -> None:
    mixed = Path(shutil.copytree(sized_gym, tmp_path / "mixed"))
    shutil.copytree(sized_gym.with_name("gym-32"), mixed, dirs_exist_ok=True)
    (mixed / "gym.toml").write_text((sized_gym / "gym.toml").read_text())
    config = dataclasses.replace(load_study("embedded"), gym=str(mixed), partition="cls_to_cls")
    assert plan_study(config, role="target", target_shots=32).scored == ("t",)


def test_target_files_that_are_missing_are_refused_or_labelled(
    sized_gym: Path, tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(sized_gym, tmp_path / "broken"))
    shutil.rmtree(broken / "b")
    request = _request(gym=str(broken), partitions=("cls_to_cls",), methods=("maml",))
    with pytest.raises(DataError, match="cls_to_cls and its target tasks lack 1 task: b "):
        plan_replay(request)
    lenient = plan_replay(dataclasses.replace(request, allow_missing=True))
    assert lenient.job.partial == ("partial: 1 of 3 source tasks missing",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("mamml",)}, "method 'mamml' is unknown; known are maml"),
        ({"methods": ("prompt_tuning",)}, "prompt_tuning is the baseline of every cell"),
        ({"sweep": "seeds"}, "sweep is 'seeds', but must be one of target_shots"),
        ({"partitions": ("rr",)}, "partition 'rr' is unknown; known are random_to_random"),
        ({"recipe": "ours"}, "recipe is 'ours', but must be one of paper, released"),
        ({"searched": NOWHERE}, "--from is '/nonexistent/results', but must be the results"),
    ],
)
def test_what_is_unknown_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan_replay(_request(**changes))


def test_prompt_tuning_among_the_methods_needs_no_trial_of_its_own() -> None:
    replay = plan_replay(
        _request(methods=("maml", "prompt_tuning"), partitions=("nonpara_to_para",))
    )
    assert [c.upstream.config.method for c in replay.job.trials] == ["maml"]


# --- methods of one's own ---


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> Method:
    """A method that is registered for one test."""
    monkeypatch.setattr("mpt.config._REGISTERED", ["mine"])
    own = dataclasses.replace(UPSTREAM_METHODS["fomaml"], settings=(("mu", 0.1),))
    monkeypatch.setitem(UPSTREAM_METHODS, "mine", own)
    return own


@pytest.mark.parametrize("changes", [{}, {"published": True}])
def test_a_registered_method_without_settings_is_left_out_and_harms_no_other(
    mine: Method, changes: dict[str, Any]
) -> None:
    replay = plan_replay(_request(partitions=("nonpara_to_para",), **changes))
    assert [trial.method for trial in replay.job.trials] == [*METHODS, "fine_tuning"]
    with pytest.raises(UsageError, match=r"no settings are known of mine on embedded; search"):
        plan_replay(_request(partitions=("nonpara_to_para",), methods=("maml", "mine"), **changes))


def test_the_best_point_of_a_registered_method_is_replayed_like_any_others(
    mine: Method, tmp_path: Path
) -> None:
    stored = Stored(tmp_path)
    study = stored.study()
    for method in METHODS:
        stored.point(study, UpstreamConfig(method=method), 2, 1.0)
    request = _request(searched=tmp_path, partitions=("nonpara_to_para",))
    # without a point of its own it is left out, and harms no other
    found = [trial.method for trial in plan_replay(request).job.trials]
    assert found == [*METHODS, "fine_tuning"]
    stored.point(study, UpstreamConfig(method="mine", extra=(("mu", 0.3),)), 4, 1.0)
    replay = plan_replay(request)
    assert [trial.method for trial in replay.job.trials] == [*METHODS, "mine", "fine_tuning"]
    spec = replay.job.trials[4].upstream
    assert isinstance(spec.config, UpstreamConfig)
    assert (spec.config.extra, spec.rungs) == ((("mu", 0.3),), (4,))
    assert (
        "mine, embedded: inner lr 3e-05, mu 0.3, outer lr 0.5, 4 steps (best of 1 point on"
        in (replay.notes[4])
    )


def test_a_registered_method_can_have_settings_in_the_data_file(
    mine: Method, tmp_path: Path
) -> None:
    table = "[embedded.mine]\ninner_lr = 2.0\nmu = 0.3\nsteps = 7\n"
    (tmp_path / "replay.toml").write_text((SPACES / "replay.toml").read_text() + table)
    spec = load_replay_settings(load_study("embedded").downstream, tmp_path).own["mine"]
    assert (spec.config.method, spec.rungs) == ("mine", (7,))
    assert isinstance(spec.config, UpstreamConfig)
    assert (spec.config.inner_lr, spec.config.extra) == (2.0, (("mu", 0.3),))


# --- recipes ---


def _plan(sources: int = 45, **changes: Any) -> StudyPlan:
    return StudyPlan(
        config=StudyConfig(partition="cls_to_cls", **changes),
        source=tuple(f"task{n}" for n in range(sources)),
        scored=("t",),
        role="target",
        partial=None,
    )


@pytest.mark.parametrize("name", ["paper", "released"])
def test_every_part_of_a_recipe_reaches_the_study(name: str) -> None:
    wanted = recipe(name)
    study = study_of(wanted, "some/model", METHODS, "float32")
    assert study.backbone == "some/model"
    assert study.prompt == wanted.prompt
    assert study.text == wanted.downstream_text
    assert study.upstream_text == wanted.upstream_text
    assert study.downstream == wanted.downstream
    assert study.precision == "float32"
    for method in ("maml", "fomaml", "reptile"):
        best = published(wanted, method, _plan())
        assert best is not None
        assert best.upstream.config == wanted.upstream[method]
        assert best.upstream.rungs == (wanted.steps,)


def test_a_recipes_number_format_is_honoured_or_refused() -> None:
    paper = study_of(recipe("paper"), "m", METHODS, None)
    assert (paper.precision, paper.upstream_precision) == ("bfloat16", "float32")
    with pytest.raises(UsageError, match=r"multitask float16.*give --precision bfloat16"):
        study_of(recipe("released"), "m", METHODS, None)
    # float32 for MAML, but float16 for the tuning behind it
    with pytest.raises(UsageError, match="maml float32, downstream float16"):
        study_of(recipe("released"), "m", ("maml",), None)
    assert study_of(recipe("released"), "m", METHODS, "bfloat16").precision == "bfloat16"


def test_fine_tuning_has_its_own_rates_steps_and_weights() -> None:
    released = recipe("released")

    def tuned(name: str, backbone: str) -> FineTuningConfig:
        best = published(recipe(name), "fine_tuning", _plan(backbone=backbone))
        assert best is not None
        assert best.upstream.rungs == (0,)
        assert isinstance(best.upstream.config, FineTuningConfig)
        return best.upstream.config

    here = tuned("released", released.backbone)
    assert here.backbone == "google/t5-v1_1-large"
    down = here.downstream
    assert (down.lrs, down.steps, down.batch_size) == ((5e-4, 3e-4, 2e-4, 1e-4), 1000, 16)
    # other weights stand in for the recipe's own backbone only
    assert tuned("released", "facebook/bart-large").backbone is None
    assert tuned("paper", released.backbone).backbone is None
    assert tuned("paper", released.backbone).downstream.steps == 3000


def test_the_cap_on_epochs_bites_with_12_source_tasks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Row 4 of the recipes: 12 tasks, 5 seeds and 2 items a step end at 3600 steps."""
    best = published(recipe("released"), "maml", _plan(sources=12))
    assert best is not None
    assert best.upstream.rungs == (3600,)
    monkeypatch.setattr("mpt.replay.source.source_rows", lambda plan: 4 * 14003)
    whole = published(recipe("released"), "multitask", _plan())
    assert whole is not None
    assert whole.upstream.rungs == (280060,)


def test_another_backbone_has_the_published_settings_and_the_papers_recipe(
    sized_gym: Path,
) -> None:
    replay = plan_replay(
        _request(
            gym=str(sized_gym),
            backbones=("google/t5-base-lm-adapt", "embedded"),
            partitions=("cls_to_cls",),
            methods=("maml", "multitask"),
        )
    )
    first, second, third, _ = replay.job.trials
    assert first.plan.config.precision == "bfloat16"
    assert _inner_lr(first) == 3e-5
    assert first.upstream.rungs == (5000,)
    # 3 tasks × 5 seeds × (16 train + 16 dev) rows in batches of 4, 20 epochs
    assert second.upstream.rungs == (20 * 120,)
    assert third.plan.config.backbone == "embedded"
    assert third.upstream.rungs == SETTINGS.own["maml"].rungs
    forced = plan_replay(
        _request(gym=str(sized_gym), partitions=("cls_to_cls",), methods=("maml",), published=True)
    )
    assert _inner_lr(forced.job.trials[0]) == 3e-5
    assert forced.job.trials[0].plan.config.prompt.length == 20  # the study stays its own


def _inner_lr(trial: TrialSpec) -> float:
    assert isinstance(trial.upstream.config, UpstreamConfig)
    return trial.upstream.config.inner_lr


def test_a_smoke_replay_is_cut_and_labelled() -> None:
    job = plan_replay(_request(smoke=True)).job
    assert len(job.trials) == 10
    assert job.partial == ("partial: smoke, 3 source tasks, 2 target tasks",)
    assert {len(plan.scored) for plan in job.plans} == {2}
    for trial in job.trials:
        if isinstance(trial.upstream.config, FineTuningConfig):
            assert trial.upstream.config.downstream.steps == 2
        else:
            assert trial.upstream.rungs == (2,)


# --- the data file ---


def test_the_file_has_settings_for_every_method_and_sweep() -> None:
    assert set(SETTINGS.own) == {*REPLAYED, *OWN_METHODS}
    assert set(SETTINGS.sweeps) == set(SWEEPS)
    for method in (*METHODS, *OWN_METHODS):
        assert SETTINGS.own[method].config.method == method


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("steps = 192", "steps = 0"), r"\[embedded.maml\] steps is 0"),
        (("inner_lr = 1.0", "inner = 1.0"), "'inner'"),
        (("inner_lr = 1.0", "inner_lr = -1.0"), "inner_lr is -1.0, but must be"),
        (('[16, 32, 64, 128, "all"]', "[16, true]"), r"\[sweep.target_shots\] values"),
        (('["maml", "multitask"]', '["maml", "sgd"]'), r"\[sweep.target_shots\] methods"),
        (("target_tasks = 2", "target_tasks = 0"), r"\[smoke\] target_tasks is 0"),
        (("[smoke]\nsource", "[smok]\nsource"), "unknown key 'smok'"),
    ],
)
def test_a_bad_data_file_is_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    text = (SPACES / "replay.toml").read_text()
    assert change[0] in text
    (tmp_path / "replay.toml").write_text(text.replace(*change, 1))
    with pytest.raises((DataError, UsageError), match=message) as caught:
        load_replay_settings(load_study("embedded").downstream, tmp_path)
    assert str(tmp_path / "replay.toml") in str(caught.value)


def test_prompt_tuning_can_be_longer_and_evaluated_more_often_than_the_study_says() -> None:
    longer = StudyOptions(tuning_steps=50, eval_every=5)
    trials = plan_replay(_request(options=longer)).job.trials
    down = {trial.plan.config.downstream for trial in trials}
    assert {(d.steps, d.eval_every) for d in down} == {(50, 5)}
    own = load_study("embedded").downstream
    assert {dataclasses.replace(d, steps=own.steps, eval_every=own.eval_every) for d in down} == {
        own
    }
    tuned = {config.downstream for config in map(_fine_tuning, trials) if config is not None}
    own_steps = SETTINGS.own["fine_tuning"].config
    assert isinstance(own_steps, FineTuningConfig)
    assert {(d.steps, d.eval_every) for d in tuned} == {(own_steps.downstream.steps, 5)}


def _fine_tuning(trial: TrialSpec) -> FineTuningConfig | None:
    config = trial.upstream.config
    return config if isinstance(config, FineTuningConfig) else None


# --- the command line ---


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--methods", "maml,,ft"], "--methods: is 'maml,,ft', but must be different names"),
        (["--methods", "maml,maml"], "must be different names"),
        (["--from", "x", "--best", "published"], "--from and --best published contradict"),
        (["--searched-on", "embedded"], "--searched-on is for --from"),
        (["--study", "12345678"], "--study is for --from"),
        (["--adopt"], "--adopt is for --from"),
        (["--sweep", "seeds"], "invalid choice: 'seeds'"),
        (["--tuning-steps", "0"], "--tuning-steps: is '0', but must be a whole number ≥ 1"),
        (["--from", "/nonexistent/x"], "--from is '/nonexistent/x', but must be the results"),
        (["--dry-run", "--price", "-1", "--partitions", "qa_to_qa"], "--price is -1"),
    ],
)
def test_bad_flags_end_with_one_line_and_code_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, flags: list[str], message: str
) -> None:
    assert main(["--results", str(tmp_path / "results"), *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "results").exists()


def test_all_methods_without_a_finished_search_are_named_at_once(tmp_path: Path) -> None:
    Stored(tmp_path).study()  # a search that was killed before its first point
    with pytest.raises(
        UsageError,
        match="holds no finished search of maml on embedded, fomaml on embedded; search them",
    ):
        plan_replay(_request(searched=tmp_path, methods=("maml", "fomaml", "fine_tuning")))


def test_resume_commands_repeat_lists_and_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["tune_jobs/replay.py"])
    parser = replay_cli.parser_of()
    flags = parser.parse_args(["--methods", "maml,fomaml", "--from", "results/x", "--fresh"])
    assert (
        command_of(parser, flags)
        == "python tune_jobs/replay.py --methods maml,fomaml --from results/x"
    )


def test_path_is_replayed_where_it_is_named() -> None:
    (trial,) = plan_replay(_request(methods=("path",), partitions=("qa_to_qa",))).job.trials
    assert trial.upstream == SETTINGS.own["path"]
    assert (trial.method, trial.upstream.rungs) == ("path", (192,))
