"""Search Reptile's rates, inner steps, steps (135 points, embedded 18); flags as in maml_rr.py."""

import sys

try:
    from mpt.cli.search import main
except ModuleNotFoundError as error:
    sys.exit(f"package {error.name!r} is missing in {sys.executable}: run pip install -e PROJECT")

if __name__ == "__main__":
    sys.exit(main("reptile"))
