"""Learn from the source tasks most similar to a target, from random ones, and from the least.

python tune_jobs/similarity.py                          Tables 7 and 8, embedded model and gym
python tune_jobs/similarity.py --only pairs             Table 7 alone: seconds, no training
python tune_jobs/similarity.py --from results/search    with the best point that a search has found
python tune_jobs/similarity.py --targets find-number,choice-odd_one --only pilot
python tune_jobs/similarity.py --help                   all flags; exit codes as in maml_rr.py
"""

import sys

try:
    from mpt.cli.similarity import main
except ModuleNotFoundError as error:
    sys.exit(f"package {error.name!r} is missing in {sys.executable}: run pip install -e PROJECT")

if __name__ == "__main__":
    sys.exit(main())
