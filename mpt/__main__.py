"""``python -m mpt``: the same as ``mpt``."""

import sys

from mpt.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
