"""``python -m memlimits``: the ``memlimits`` command."""

import sys

from memlimits.cli import main

if __name__ == "__main__":
    sys.exit(main())
