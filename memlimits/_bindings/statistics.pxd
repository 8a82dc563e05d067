"""Statistics as Python sees them."""

from memlimits._engine.controls cimport Snapshot

# Sizes in bytes, the others counts, in the order in which they are shown. Whoever adds one adds it
# here, and to `Stats` in snapshot.py. `causes` are the names of what refuses, by Blocker.
cdef extern dict statistics(const Snapshot *snapshot, tuple causes)
# Those that the tests' bookkeeping follows.
cdef extern dict counters(const Snapshot *snapshot)
