"""Methods of installed packages: entry points of the group "mpt.methods"."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mpt
from mpt.cli.main import main
from mpt.errors import UsageError
from mpt.testing import check_upstream_method

OWN_METHOD = Path(__file__).with_name("own_method.py")


def _install(folder: Path, module: str, source: str) -> None:
    """Write a package as pip leaves it: a module beside the folder that describes it."""
    (folder / f"{module}.py").write_text(source)
    about = folder / f"{module}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[mpt.methods]\nany = {module}\n")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Name of a method of an installed package that nobody has imported yet."""
    folder = tmp_path / "site"
    folder.mkdir()
    _install(folder, "mpt_installed", OWN_METHOD.read_text().replace("pulled", "installed"))
    monkeypatch.syspath_prepend(folder)
    yield "installed"
    sys.modules.pop("mpt_installed", None)


def test_the_suite_finds_the_method_of_an_installed_package(installed: str) -> None:
    assert "every setting that acts has a key of its own" in check_upstream_method(installed)


def test_a_space_finds_the_method_of_an_installed_package(installed: str) -> None:
    space = mpt.Space(installed, mu=[0.1, 0.3], steps=2)
    assert [domain.name for domain in space.domains] == ["mu"]


def test_the_command_line_finds_the_method_of_an_installed_package(
    installed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["search", installed, "--help"])
    assert ended.value.code == 0
    assert f"usage: mpt search {installed}" in capsys.readouterr().out


def test_the_suite_says_which_methods_there_are_and_how_to_add_one() -> None:
    with pytest.raises(
        UsageError, match=r"is 'absent', but must be one of maml.*; define it with"
    ):
        check_upstream_method("absent")


def test_an_entry_point_that_cannot_be_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(tmp_path, "mpt_broken", "raise ValueError('no luck')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=r"'any' of group mpt\.methods cannot .* no luck\); mend"):
        check_upstream_method("absent")
