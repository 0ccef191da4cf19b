"""Search MAML's inner and outer learning rate and steps on random → random.

The published grid has 27 points, that of the embedded model 18.

    python tune_jobs/maml_rr.py                                   embedded model and gym, minutes
    python tune_jobs/maml_rr.py --smoke                           the whole path within a minute
    python tune_jobs/maml_rr.py --backbone google/t5-large-lm-adapt --gym DIR --gpus-per-trial 1
    python tune_jobs/maml_rr.py --help                            all flags

The same command again resumes. Exit codes: 0 done, 2 usage, 3 bad data, 4 some trials failed,
75 interrupted.
"""

import sys

try:
    from mpt.cli.search import main
except ModuleNotFoundError as error:
    sys.exit(f"package {error.name!r} is missing in {sys.executable}: run pip install -e PROJECT")

if __name__ == "__main__":
    sys.exit(main("maml"))
