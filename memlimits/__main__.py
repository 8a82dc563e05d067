"""``python -m memlimits``: the ``memlimits`` command."""

import sys

from memlimits.cli import main

sys.exit(main())
