"""The tree: which part may import which, how large files and folders are, what a wheel holds.

And which names are not given, and that no test leaves its process changed.
"""

from __future__ import annotations

import ast
import gc
import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from children import environment
from process_state import left_as_it_was

ROOT = Path(__file__).resolve().parents[1]
CODE = ("mpt", "analysis", "tests", "tune_jobs", "benchmarks", "tools")
MOST_FILES, MOST_LINES = 15, 500
VAGUE = {"found", "there", "left", "place"}
"""Names that do not say what a value is."""
ONE_HOME = {
    "Comparison": ["mpt/metrics/replicates.py"],
    "Study": ["mpt/api/study.py"],
    "load_results": ["mpt/api/results.py"],
}
"""Public class or function → the one file that defines it."""


def test_imports_point_down_the_data_flow_and_in_no_circle() -> None:
    script = "import sys; from importlinter.cli import lint_imports_command as run; run()"
    command = [sys.executable, "-c", script, "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1700)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


BUILT_BELOW = (
    *("SearchJob", "Suggestions", "TrialSpec", "UpstreamSpec", "StudyPlan", "StudyConfig"),
    *("plan_study", "load_study", "trials_of", "grid_trials", "replicates_of"),
)
"""What searches and replays are made of: a command asks `mpt.api` for them."""


def test_commands_are_written_on_the_public_interface() -> None:
    """None makes a study, a trial or a job of its own beside it."""
    made = [
        f"{path.name}:{node.lineno} {name}"
        for path in _python("mpt/cli")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        if (name := getattr(node.func, "attr", getattr(node.func, "id", ""))) in BUILT_BELOW
    ]
    assert not made


def _python(folder: str) -> list[Path]:
    return [path for path in (ROOT / folder).rglob("*.py") if ".venv" not in path.parts]


@pytest.mark.parametrize("folder", CODE)
def test_no_file_has_more_lines_than_a_reader_holds(folder: str) -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in _python(folder)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES
    }
    assert not long


@pytest.mark.parametrize("folder", CODE)
def test_no_folder_has_more_files_than_a_reader_sees(folder: str) -> None:
    count: dict[str, int] = {}
    for path in _python(folder):
        if path.name != "__init__.py":
            name = str(path.parent.relative_to(ROOT))
            count[name] = count.get(name, 0) + 1
    assert {name: files for name, files in count.items() if files > MOST_FILES} == {}


def test_the_wheel_names_every_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    setuptools = project["tool"]["setuptools"]
    library = {".".join(path.parent.relative_to(ROOT).parts) for path in _python("mpt")}
    analysis = {
        "mpt." + ".".join(path.parent.relative_to(ROOT).parts) for path in _python("analysis")
    }
    assert set(setuptools["packages"]) == library | analysis | {"mpt.search_spaces"}
    assert setuptools["package-dir"] == {
        "mpt.analysis": "analysis",
        "mpt.search_spaces": "search_spaces",
    }


def _bound(node: ast.AST) -> str:
    """Return the name that a node gives to a value, without what marks it as private."""
    match node:
        case (
            ast.Name(id=name, ctx=ast.Store())
            | ast.Attribute(attr=name, ctx=ast.Store())
            | ast.arg(arg=name)
            | ast.FunctionDef(name=name)
            | ast.ExceptHandler(name=str(name))
            | ast.alias(asname=str(name))
        ):
            return name.lstrip("_")
    return ""


def _vague_names(source: str) -> list[str]:
    """Return "name in line n" for every binding of a name of `VAGUE`.

    Two are allowed: `left` beside `right` in one statement or signature, and a field `place` of a
    public class, which others read.
    """
    tree = ast.parse(source)
    allowed: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            fields = (part.target for part in node.body if isinstance(part, ast.AnnAssign))
            allowed |= {f for f in fields if isinstance(f, ast.Name) and f.id == "place"}
        elif isinstance(node, ast.Tuple | ast.arguments):
            sides = {_bound(part): part for part in ast.walk(node)}
            allowed |= {sides["left"]} if {"left", "right"} <= set(sides) else set()
    return [
        f"{_bound(node)} in line {getattr(node, 'lineno', 0)}"
        for node in ast.walk(tree)
        if _bound(node) in VAGUE and node not in allowed
    ]


@pytest.mark.parametrize(
    ("source", "vague"),
    [
        ("found = 1", ["found in line 1"]),
        ("for place in (): pass", ["place in line 1"]),
        ("def f(there): pass", ["there in line 1"]),
        ("def _found(): pass", ["found in line 1"]),
        ("class A:\n    _place: int", ["place in line 2"]),
        ("class A:\n    def f(self): self._left = 1", ["left in line 2"]),
        ("while (left := 1): pass", ["left in line 1"]),
        ("left, right = 1, 2", []),
        ("def f(left, right): pass", []),
        ("class A:\n    place: int", []),
        ("print(one.place, found)", []),
    ],
)
def test_a_binding_of_a_vague_name_is_seen(source: str, vague: list[str]) -> None:
    assert _vague_names(source) == vague


@pytest.mark.parametrize("folder", [name for name in CODE if name != "tests"])
def test_names_say_what_a_value_is(folder: str) -> None:
    files = {path.relative_to(ROOT).as_posix(): path for path in _python(folder)}
    vague = {
        name: names
        for name, path in files.items()
        if (names := _vague_names(path.read_text(encoding="utf-8")))
    }
    assert not vague


def test_a_public_name_means_one_thing() -> None:
    homes: dict[str, list[str]] = {name: [] for name in ONE_HOME}
    for path in (*_python("mpt"), *_python("analysis")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name in homes:
                homes[node.name].append(path.relative_to(ROOT).as_posix())
    assert homes == ONE_HOME


def test_a_package_that_is_imported_is_named_as_a_dependency() -> None:
    """It may come with another package today, in whatever version that one likes tomorrow."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {_distribution(re.split(r"[\[=]", one)[0]) for one in told["dependencies"]}
    of_module = importlib.metadata.packages_distributions()
    imported = {
        _distribution(name)
        for path in (*_python("mpt"), *_python("analysis"), *_python("tune_jobs"))
        for module in _imported(path) - sys.stdlib_module_names - {*CODE}
        for name in of_module[module]
    }
    assert {"torch", "numpy", "pyyaml", "scikit-learn"} <= imported
    assert imported - named == set()


def _distribution(name: str) -> str:
    """Return a distribution's name as an index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _imported(path: Path) -> set[str]:
    """Return the top-level modules that a file imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = {one.name for node in nodes if isinstance(node, ast.Import) for one in node.names}
    of = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.partition(".")[0] for name in (*plain, *filter(None, of))}


def _leave_much(folder: Path) -> None:
    torch.set_num_threads(torch.get_num_threads() + 1)
    gc.disable()
    os.chdir(folder)
    os.environ["MPT_TEST_LEFT"] = "1"
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def test_what_is_left_changed_in_the_process_is_named_and_put_back(tmp_path: Path) -> None:
    before = torch.get_num_threads(), os.getcwd(), signal.getsignal(signal.SIGUSR1)
    said = rf"threads \({before[0]} → {before[0] + 1}\), the garbage collector \(True → False\)"
    with pytest.raises(AssertionError, match=said) as caught, left_as_it_was():
        _leave_much(tmp_path)
    assert "the working directory" in str(caught.value)
    assert "MPT_TEST_LEFT" in str(caught.value)
    assert (torch.get_num_threads(), os.getcwd(), signal.getsignal(signal.SIGUSR1)) == before
    assert gc.isenabled()
    assert "MPT_TEST_LEFT" not in os.environ
    with left_as_it_was():
        pass


def test_modules_and_tests_are_left_out_of_garbage_collections() -> None:
    assert gc.get_freeze_count() > 100_000
    assert gc.isenabled()  # again: while they were made it was not


def test_a_process_that_only_hands_out_tests_imports_nothing_that_takes_seconds() -> None:
    code = "import sys, conftest; print({'torch', 'mpt', 'ray'} & set(sys.modules))"
    inherited = environment(ROOT, ROOT / "tests")
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=inherited, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("inherited", [None, environment(ROOT)], ids=["inherited", "given"])
def test_a_process_that_a_test_starts_looks_for_garbage_less_often(
    inherited: dict[str, str] | None,
) -> None:
    command = [sys.executable, "-c", "import gc; print(gc.get_threshold()[0], gc.isenabled())"]
    done = subprocess.run(command, env=inherited, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["50000", "True"]
