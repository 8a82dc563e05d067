"""How much of the drills is run."""

import os

WHOLE = os.environ.get("MEMLIMITS_SUITES") == "whole"
