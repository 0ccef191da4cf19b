"""Replay best settings on all partitions' target tasks, compared with prompt tuning.

python tune_jobs/replay.py                              embedded model and gym, its own settings
python tune_jobs/replay.py --from results/per_setting   the best points that a search has found
python tune_jobs/replay.py --sweep target_shots         Table 3 of the paper; also: sources, …
python tune_jobs/replay.py --backbones google/t5-large-lm-adapt,facebook/bart-large --gym DIR
python tune_jobs/replay.py --help                       all flags; exit codes as in maml_rr.py
"""

import sys

try:
    from mpt.cli.replay import main
except ModuleNotFoundError as error:
    sys.exit(f"package {error.name!r} is missing in {sys.executable}: run pip install -e PROJECT")

if __name__ == "__main__":
    sys.exit(main())
