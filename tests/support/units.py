"""Sizes."""

import os

from support.metal import page_size

MACHINES_PAGE = os.sysconf("SC_PAGESIZE")
PAGE = page_size() or MACHINES_PAGE
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def in_pages(n):
    """The bytes of the whole pages that n bytes take."""
    return int(-(-n // PAGE) * PAGE)


# The peak may be so much above the truth for each thread that took blocks, but for the first.
KEPT = 64 * KIB


def peak_bound(truth, threads):
    """What it may be then at most."""
    return max(truth * 1.02, truth + (threads - 1) * KEPT)
