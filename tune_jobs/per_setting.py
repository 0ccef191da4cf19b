"""Search every method in every setting, on validation tasks outside its sources and targets.

python tune_jobs/per_setting.py --methods maml,multitask --partitions cls_to_cls,qa_to_qa
python tune_jobs/per_setting.py --dry-run --price 2.5 --plan-gpus 8      what it would cost
python tune_jobs/per_setting.py --help                  all flags; exit codes as in maml_rr.py
"""

import sys

try:
    from mpt.cli.per_setting import main
except ModuleNotFoundError as error:
    sys.exit(f"package {error.name!r} is missing in {sys.executable}: run pip install -e PROJECT")

if __name__ == "__main__":
    sys.exit(main())
