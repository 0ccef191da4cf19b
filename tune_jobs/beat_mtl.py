"""A contest against multitask learning: search, freeze, confirm on fresh seeds, report.

    python tune_jobs/beat_mtl.py --dry-run                  points, hours by part; writes nothing
    python tune_jobs/beat_mtl.py --contest reduced          about two CPU-hours
    python tune_jobs/beat_mtl.py --partitions qa_to_qa --budgets 3         a part of the whole
    python tune_jobs/beat_mtl.py --help          all flags; exit codes as in maml_rr.py

Contests are tables of search_spaces/beat_mtl.toml. The same command again resumes.
"""

import sys

try:
    from mpt.cli.beat_mtl import main
    from mpt.cli.main import analysis
except ModuleNotFoundError as error:
    sys.exit(f"package {error.name!r} is missing in {sys.executable}: run pip install -e PROJECT")

if __name__ == "__main__":
    sys.exit(main(report=lambda *where: analysis("contest.report").write_contest(*where)))
