"""Sizes."""

import os

PAGE = os.sysconf("SC_PAGESIZE")
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
