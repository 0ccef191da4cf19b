"""A real model on real tasks: search every method's settings, replay the best, write the report.

    make real GYM=DIR                    DIR: few-shot files as CrossFit has them (mpt gym build)
    python tune_jobs/real.py --gym DIR --dry-run
    python tune_jobs/real.py --help          all flags; exit codes as in maml_rr.py

SmolLM2-135M (`make real-model`) on the random partition: settings are chosen on validation tasks,
and reported on target tasks and upstream seeds that chose nothing (search_spaces/studies.toml,
[smollm2]). The same command again resumes.
"""

import sys

try:
    from mpt.cli.main import report_lines
    from mpt.cli.paper import main
except ModuleNotFoundError as error:
    sys.exit(f"package {error.name!r} is missing in {sys.executable}: run pip install -e PROJECT")

DEFAULTS = (
    *("--backbones", "smollm2", "--stages", "search,replay"),
    *("--methods", "multitask,fomaml,maml,reptile,untrained,zero_shot"),
    *("--partitions", "random_to_random"),
    *("--results", "results/real"),
    "--allow-missing",  # not every task of the gym can be had; results say what is missing
)

if __name__ == "__main__":
    sys.argv[1:1] = DEFAULTS
    sys.exit(main(report=report_lines))
