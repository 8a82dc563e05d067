"""What processes tell of themselves in their pages, read by others."""

import os
import stat

from libc.stdint cimport INT64_MAX, int64_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from memlimits._device.page cimport (
    MLIM_PAGE_MAGIC, MLIM_PAGE_VERSION, mlim_page, mlim_page_of_self,
)
from memlimits._ledger.limits cimport BLOCKERS
from memlimits._ledger.told cimport Told, told_in

from memlimits._bindings.allocator import BLOCKED_BY, COUNTS, POLICIES

cdef enum:
    LOOKS = 20      # at a page that is being written


cdef object limit_of(uint64_t limit):
    return None if limit > <uint64_t> INT64_MAX else limit


cdef object name_of(names, uint64_t number):
    return names[number] if number < <uint64_t> len(names) else "unknown"


cdef mlim_page look(path, int file) except *:
    cdef mlim_page page
    cdef bytes words = os.pread(file, sizeof(mlim_page), 0)
    memset(&page, 0, sizeof(mlim_page))
    memcpy(&page, <const char *> words, len(words))
    if memcmp(page.magic, MLIM_PAGE_MAGIC, sizeof(page.magic)) != 0:
        raise ValueError(f"{path} is no page of a process, or not yet")
    if page.version != MLIM_PAGE_VERSION:
        raise ValueError(
            f"{path} is of another version of memlimits: {page.version}, not {MLIM_PAGE_VERSION}")
    return page


cdef uint64_t changes_of(mlim_page *page) noexcept:
    return told_in(page).changes


cdef mlim_page look_at_one_instant(path, int file) except *:
    """Where its process ended or was stopped amid writing, what stands there is taken."""
    cdef mlim_page after, page = look(path, file)
    cdef int _i
    for _i in range(LOOKS):
        after = look(path, file)
        if changes_of(&after) == changes_of(&page) and changes_of(&page) % 2 == 0:
            break
        page = after
    return page


def is_told():
    """Whether this process has a page."""
    return mlim_page_of_self() != NULL


def read(path):
    """What stands in a page, as a dict.

    Raises
    ------
    ValueError
        It is none, or of another version.
    OSError
    """
    cdef mlim_page page
    cdef Told told
    cdef uint64_t active, held
    cdef int i
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        facts = os.fstat(file)
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError(f"{path} is no page of a process: it is no ordinary file")
        page = look_at_one_instant(path, file)
    finally:
        os.close(file)
    told = told_in(&page)[0]
    held = told.footprint - min(told.pending, told.footprint)
    active = min(<uint64_t> max(told.claimed, <int64_t> 0), held)
    refusals = {
        name_of(BLOCKED_BY, i): told.refusals[i]
        for i in range(1, <int> BLOCKERS) if told.refusals[i]}
    return {
        "owner": facts.st_uid,
        "pid": page.pid,
        "clock_ticks": page.started,
        "began": page.began / 1e9,
        "told_at": told.at,
        "memory_limit": limit_of(told.memory_limit),
        "cache_limit": limit_of(told.cache_limit),
        "wired_limit": told.wired_limit,
        "policy": name_of(POLICIES, told.policy),
        "memory_count": name_of(COUNTS, told.count),
        "pool_limit": limit_of(told.pool_limit),
        "footprint": told.footprint,
        "pending": told.pending,
        "active": active,
        "idle": held - active,
        "peak": told.peak,
        "wired": told.wired,
        "reserved": told.reserved,
        "mlx_active": told.library_active,
        "mlx_cache": told.library_cache,
        "mlx_peak": told.library_peak,
        "mlx_tickets": told.admitted,
        "misses": told.misses,
        "overruns": told.overruns,
        "evictions": told.evictions,
        "evicted": told.evicted,
        "trims": told.trims,
        "pressure_trims": told.pressure_trims,
        "decays": told.decays,
        "waiting": told.waiting,
        "waits": told.waits,
        "waited_seconds": told.waited / 1e9,
        "refusals": sum(refusals.values()),
        "refusals_by": refusals,
    }
