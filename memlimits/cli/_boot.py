# The command again, in an interpreter with options of its own, which may keep this package from
# being found: so it is loaded from where this file is.
import sys

known = list(sys.modules)

import os.path  # noqa: E402
from _frozen_importlib import _load  # noqa: E402
from _frozen_importlib_external import PathFinder  # noqa: E402

place = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_load(PathFinder.find_spec("memlimits", [place]))

from memlimits.cli import main  # noqa: E402

sys.exit(main(known=known))
