"""The folder of a report: what stood there before and is not ours stays as it is."""

from __future__ import annotations

from pathlib import Path

from mpt.errors import UsageError

from .page import MARK, TITLE

FOLDERS = ("cells", "tables", "figures", "records")
LIST = ".report-files"
"""Lists the files of the report, so that the next one removes what it does not write again."""
_SIGNS = {"index.html": MARK, "report.md": f"# {TITLE}"}


class ReportFolder:
    """Where a report goes.

    Args:
        results: results directory that it is of.
        out: the folder; it is made.

    Raises:
        UsageError: it is the results directory, or holds a page that is not of a report.
        OSError: it cannot be read or written.
    """

    def __init__(self, results: Path, out: Path) -> None:
        if out.resolve() == results.resolve():
            raise UsageError(
                f"--out {out} is the results directory; give another, or one inside it"
            )
        for name, sign in _SIGNS.items():
            path = out / name
            if path.is_file() and sign not in path.read_text("utf-8", errors="replace")[:1000]:
                raise UsageError(
                    f"--out {out} holds a {name} that no report wrote; give another folder, "
                    "nothing of others is overwritten"
                )
        self._out = out
        self._foreign = self._files() - self._listed()

    def clear(self) -> None:
        """Remove the files of the report before, and make the folders."""
        for name in self._listed() - self._foreign:
            (self._out / name).unlink(missing_ok=True)
        for name in FOLDERS[:3]:
            (self._out / name).mkdir(parents=True, exist_ok=True)

    def keep(self) -> None:
        """List what was written since `clear`."""
        own = sorted(self._files() - self._foreign)
        (self._out / LIST).write_text("".join(f"{name}\n" for name in own), encoding="utf-8")

    def _listed(self) -> set[str]:
        path = self._out / LIST
        names = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return {name for name in names if _inside(name)}

    def _files(self) -> set[str]:
        paths = (path for name in FOLDERS for path in (self._out / name).glob("*"))
        return {path.relative_to(self._out).as_posix() for path in paths if path.is_file()}


def _inside(name: str) -> bool:
    folder, _, file = name.partition("/")
    return folder in FOLDERS and file not in ("", ".", "..") and "/" not in file
