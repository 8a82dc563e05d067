"""Found by a thread that imports `memlimits._malloc` while another imports the package."""

import sys

from memlimits import _modules

sys.modules[__name__] = _modules.for_c()
