"""Score the start itself, with nothing learned: the control (1 point); flags as in maml_rr.py."""

import sys

try:
    from mpt.cli.search import main
except ModuleNotFoundError as error:
    sys.exit(f"package {error.name!r} is missing in {sys.executable}: run pip install -e PROJECT")

if __name__ == "__main__":
    sys.exit(main("untrained"))
