"""The whole study: searches, replay, sweeps, backbones, report.

python tune_jobs/paper.py              the paper in miniature: embedded models and gym
python tune_jobs/paper.py --dry-run    what it will cost, stage by stage
python tune_jobs/paper.py --backbones google/t5-large-lm-adapt,facebook/bart-large --gym DIR
python tune_jobs/paper.py --help       all flags; exit codes as in maml_rr.py
"""

import sys

try:
    from mpt.cli.main import report_lines
    from mpt.cli.paper import main
except ModuleNotFoundError as error:
    sys.exit(f"package {error.name!r} is missing in {sys.executable}: run pip install -e PROJECT")

if __name__ == "__main__":
    sys.exit(main(report=report_lines))
