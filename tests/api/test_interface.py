"""The public interface: what a researcher writes in a script or a notebook."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from search_toys import SEEDS
from stored import compute

import mpt
from mpt.api.jobs import search_job
from mpt.errors import UsageError
from mpt.testing import check_upstream_method

OWN_METHOD = Path(__file__).with_name("own_method.py")


def _study(model: Path, gym: Path, **options: object) -> mpt.Study:
    own = {
        "data_seeds": list(SEEDS),
        "precision": "float32",
        "prompt_length": 3,
        "tuning_steps": 4,
        "tuning_lrs": [0.5, 0.2],
        "eval_every": 2,
        "max_input": 24,
        "max_target": 4,
    }
    return mpt.Study(backbone=str(model), gym=str(gym), **{**own, **options})  # type: ignore[arg-type]


def test_importing_it_imports_neither_torch_nor_ray() -> None:
    script = "import mpt, sys; assert not {'torch', 'ray', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=500)


def test_every_public_name_is_there_and_documented() -> None:
    for name in mpt.__all__:
        assert getattr(mpt, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mpt.nothing


def test_search_and_replay_are_functions_although_packages_have_their_names() -> None:
    import mpt.replay.replay
    import mpt.search.run

    with pytest.raises(TypeError, match="missing 2 required positional arguments"):
        mpt.search()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        mpt.replay()  # type: ignore[call-arg]
    assert callable(mpt.search.run.run_search)  # type: ignore[attr-defined]


def test_a_study_takes_the_preset_with_what_is_given_in_its_place() -> None:
    study = mpt.Study(prompt_length=7, tuning_steps=3, data_seeds=[13], max_test=5)
    preset = mpt.Study()
    assert (study.config.prompt.length, study.config.downstream.steps) == (7, 3)
    assert (study.config.data_seeds, study.config.downstream.max_test) == ((13,), 5)
    assert study.config.downstream.lrs == preset.config.downstream.lrs
    with pytest.raises(UsageError, match=r"option 'promt_length' is unknown; known are .*prompt_"):
        mpt.Study(promt_length=7)
    with pytest.raises(UsageError, match="length is 0, but must be a whole number ≥ 1"):
        mpt.Study(prompt_length=0)


def test_a_study_may_have_several_downstream_starts() -> None:
    assert mpt.Study().config.starts == 1
    assert "starts" not in repr(mpt.Study())
    study = mpt.Study(starts=2)
    assert study.config.start_seeds == (42, 1042)
    assert "train_seed=42, starts=2, " in repr(study)
    with pytest.raises(mpt.UsageError, match="starts is 0, but must be a whole number ≥ 1"):
        mpt.Study(starts=0)


def test_a_space_takes_lists_ranges_and_numbers_and_says_what_it_does_not_know() -> None:
    space = mpt.Space(
        "maml", inner_lr=mpt.loguniform(1e-2, 10), outer_lr=[0.03, 0.1], batch_size=2, steps=[2, 4]
    )
    assert [domain.name for domain in space.domains] == ["inner_lr", "outer_lr"]
    assert dict(space.fixed) == {"batch_size": 2}
    assert space.rungs == (2, 4)
    with pytest.raises(UsageError, match=r"setting 'lr' of maml is unknown; known are inner_lr"):
        mpt.Space("maml", lr=0.1, steps=2)
    with pytest.raises(UsageError, match="method is 'mamel', but must be one of maml"):
        mpt.Space("mamel", steps=2)
    with pytest.raises(UsageError, match="outer_lr is -1, but must be a finite number > 0"):
        mpt.Space("maml", outer_lr=[-1], steps=2)
    with pytest.raises(UsageError, match="a range from 0 to 1 must have 0 < low < high"):
        mpt.loguniform(0, 1)
    with pytest.raises(mpt.DataError, match=r"steps are \[4, 2\], but must be .* ascending"):
        mpt.Space("maml", steps=[4, 2])


def test_a_method_of_ones_own_passes_the_suite_and_has_settings_in_its_key() -> None:
    mpt.load_plugin(OWN_METHOD)
    assert "every setting that acts has a key of its own" in check_upstream_method("pulled")
    pulled = sys.modules["mpt_plugin_own_method"].pulled
    assert "the prompt moves" in check_upstream_method(pulled, mu=3.0)


def test_a_method_that_breaks_a_rule_is_told_which() -> None:
    def still(loss: object, prompt: torch.Tensor, episode: object, config: object) -> object:
        return torch.zeros_like(prompt), 1.0

    mpt.upstream_method(still, name="still")
    with pytest.raises(AssertionError, match=r"a NaN in the prompt was not noticed|as it was"):
        check_upstream_method("still")
    with pytest.raises(UsageError, match="'maml' is a built-in method's; take another"):
        mpt.upstream_method(still, name="maml")
    with pytest.raises(UsageError, match="outer_lr is a setting of every method"):
        mpt.upstream_method(settings={"outer_lr": 1.0})(still)


def test_a_changed_method_has_results_of_its_own() -> None:
    from mpt.api.methods import source_version

    def one(x: float) -> float:
        return x + 1

    def two(x: float) -> float:
        return x + 2

    assert source_version(one) != source_version(two)
    assert source_version(one) == source_version(one)


def test_a_plugin_that_fails_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("raise ValueError('no luck')\n")
    with pytest.raises(UsageError, match=r"bad\.py: ValueError: no luck; the file must run"):
        mpt.load_plugin(tmp_path / "bad.py")
    with pytest.raises(UsageError, match="there is no such file"):
        mpt.load_plugin(tmp_path / "absent.py")


def test_a_search_has_its_points_as_a_table_and_the_same_call_again_has_the_same(
    toy_checkpoint: Path, toy_gym: Path, tmp_path: Path
) -> None:
    """Of a grid, computed in this process; that the calls leave a process alone: `test_wheel`."""
    study = _study(toy_checkpoint, toy_gym)
    space = mpt.Space("fomaml", inner_lr=1.0, outer_lr=[0.1, 0.3], steps=2)
    compute(search_job(study, space, results=tmp_path / "r"))
    result = mpt.search(study, space, results=tmp_path / "r", quiet=True)
    frame = result.points()
    assert list(frame["rank"]) == [1, 2]
    assert list(frame["score"]) == sorted(frame["score"], reverse=True)
    assert result.best.point == frame["point"][0]
    assert set(result.best.settings) == {"outer_lr"}
    assert "<table" in result._repr_html_()
    assert f"<td>{result.best.study}</td>" in result.best._repr_html_()
    again = mpt.search(study, space, results=tmp_path / "r", quiet=True)
    assert again.points().equals(frame)
    runs = mpt.load_results(tmp_path / "r").runs()
    assert set(runs["method"]) == {"fomaml", "prompt_tuning"}
    learned = runs[runs["method"] == "fomaml"]
    assert set(learned["outer_lr"]) == {0.1, 0.3}
    assert set(learned["upstream_seed"]) == {42}
    assert runs[runs["method"] == "prompt_tuning"]["upstream_seed"].isna().all()
    with pytest.raises(UsageError, match=r"^study is 'zz', but .*; there are [0-9a-f]{8}"):
        mpt.load_results(tmp_path / "r").runs("zz")


def test_a_notebook_may_ask_for_results_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="run a search first"):
        mpt.load_results(tmp_path / "nothing")
