from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mpt.errors import MptError
from mpt.study.presets import default_space, load_smoke_size, load_study
from mpt.study.spaces import SPACES, load_space


def test_the_paper_preset_is_the_papers_protocol() -> None:
    # The paper, §5.3; recipe rows 6-8, 11-13, 23
    study = load_study("google/t5-large-lm-adapt")
    assert study.prompt.length == 100
    assert study.prompt.position == "prepend"
    assert study.data_seeds == (13, 21, 42, 87, 100)
    assert study.text.max_input == 512
    down = study.downstream
    assert down.lrs == (0.5, 0.4, 0.3, 0.2)
    assert (down.batch_size, down.steps, down.eval_every, down.select) == (8, 3000, 50, "best")
    assert (down.max_dev, down.max_test, down.max_generated) == (None, None, 128)


def test_the_backbone_decides_space_and_preset() -> None:
    assert default_space("embedded") == "embedded"
    assert default_space("google/t5-large-lm-adapt") == "paper"
    assert load_study("embedded").prompt.length < load_study("other").prompt.length


@pytest.mark.parametrize("backbone", ["embedded", "other"])
def test_smoke_keeps_the_path_and_shrinks_the_size(backbone: str) -> None:
    full, smoke = load_study(backbone), load_study(backbone, smoke=True)
    assert smoke.prompt.position == full.prompt.position
    assert smoke.downstream.steps < full.downstream.steps
    assert len(smoke.data_seeds) >= 2  # otherwise there is no interval
    size = load_smoke_size()
    cut = size.cut(load_space("maml", default_space(backbone)).grid())
    assert len(cut) == size.trajectories
    assert all(one.rungs == size.steps for one in cut)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[paper.text]", "[paper.txt]", r"\[paper\] has the unknown key 'txt'"),
        (
            "max_input = 512",
            "max_inputs = 512",
            r"\[paper.text\] has the unknown key 'max_inputs'",
        ),
        ("length = 100", "length = 0", r"length is 0, but must be a whole number ≥ 1"),
        ("length = 100", 'length = "100"', r"length is '100', but must be a whole number ≥ 1"),
        ("max_generated = 128", "lrs = [0.5, 0.5]", r"lrs is .*distinct finite numbers"),
        ("max_generated = 128", "lrs = 0.5", r"lrs is 0.5, but must be"),
        ("13, 21, 42, 87, 100]", '13, "21"]', r"data_seeds is .*distinct whole numbers"),
        ('precision = "bfloat16"', "starts = 0", r"starts is 0, but must be a whole number ≥ 1"),
    ],
)
def test_a_broken_preset_is_refused_by_file_and_key(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    shutil.copytree(SPACES, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "studies.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(MptError, match=message) as caught:
        load_study("other", folder=tmp_path)
    assert str(path) in str(caught.value)


def test_a_preset_may_have_several_downstream_starts(tmp_path: Path) -> None:
    shutil.copytree(SPACES, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "studies.toml"
    assert load_study("other", folder=tmp_path).starts == 1
    path.write_text(path.read_text().replace("[paper]\n", "[paper]\nstarts = 3\n", 1))
    found = load_study("other", folder=tmp_path)
    assert (found.starts, found.start_seeds) == (3, (42, 1042, 2042))
    assert found.seeds == (42,)  # upstream seeds are another level


def test_a_study_tunes_with_the_grid_of_prompt_tuning_and_may_lay_values_over_it(
    tmp_path: Path,
) -> None:
    shutil.copytree(SPACES, tmp_path, dirs_exist_ok=True)
    grid = tmp_path / "prompt_tuning.toml"
    grid.write_text(grid.read_text().replace("[0.5, 0.4, 0.3, 0.2]", "[0.7, 0.6]"))
    assert load_study("other", folder=tmp_path).downstream.lrs == (0.7, 0.6)
    study = tmp_path / "studies.toml"
    study.write_text(study.read_text().replace("max_generated = 128", "lrs = [0.1]"))
    assert load_study("other", folder=tmp_path).downstream.lrs == (0.1,)
    assert load_study("embedded", folder=tmp_path).downstream.lrs == (0.1,)


def test_a_broken_smoke_size_is_refused(tmp_path: Path) -> None:
    text = (SPACES / "studies.toml").read_text()
    for new in ("trajectories = 0", 'trajectories = "2"', "trajectory = 2"):
        (tmp_path / "studies.toml").write_text(text.replace("trajectories = 2", new))
        with pytest.raises(MptError, match=r"\[smoke.search\]"):
            load_smoke_size(tmp_path)
