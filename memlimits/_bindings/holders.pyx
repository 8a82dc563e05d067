"""Who holds memory, for Python: what the engine noted and added up, as Holders and Snapshots."""

import os

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free

from memlimits._base.own cimport own_calloc, own_objects_begin, own_objects_end
from memlimits._base.sync cimport load_count
from memlimits._bindings.allocator cimport get_default, put_holders_by, with_settings
from memlimits._bindings.arguments cimport as_integer, as_nbytes, shown
from memlimits._device.mlim cimport mlim_process
from memlimits._engine.controls cimport controls_read_process
from memlimits._engine.core cimport Core, core_resume, core_stop
from memlimits._engine.picture cimport (
    Extent, Picture, picture_free, picture_keep, picture_kept, picture_take,
)
from memlimits._engine.samples cimport samples_collect, samples_take_every
from memlimits._ledger.calls cimport (
    CALLS, NO_CALL, Call, CallTree, calls_file, calls_function,
)
from memlimits._ledger.queue cimport MOST_HOLDERS, Holder

from memlimits._bindings.budgets import budgets
from memlimits.figures import Holder as Line
from memlimits.figures import MemoryBlock, Snapshot, Stats

STATES = ("idle", "block", "slab")      # by Kind

cdef Core *core = &get_default().core

cdef enum:
    LEAST_SAMPLE = 4096
    MOST_BITS = 40

cdef bytes standard = os.fsencode(os.path.dirname(os.__file__)) + b"/"
cdef bytes own = os.fsencode(os.path.dirname(__file__)) + b"/"


def sample_every(nbytes):
    """As `set_holder_sampling`."""
    cdef const char *pythons = standard
    cdef const char *ours = own
    cdef int64_t every = 0, before
    if nbytes is not None:
        every = as_nbytes(nbytes, "nbytes")
        if not LEAST_SAMPLE <= every <= <int64_t> 1 << MOST_BITS:
            raise ValueError(
                f"nbytes must be from {LEAST_SAMPLE} to 2**{MOST_BITS}, or None for no samples, "
                f"not {shown(nbytes)}")
        every = <int64_t> 1 << (every - 1).bit_length()
    with nogil:
        before = samples_take_every(core, every, pythons, ours)
    if before < 0:
        raise MemoryError("no memory for the table of who holds what, some 9 MiB of addresses")
    return before or None


def sampled_every():
    """As `get_holder_sampling`."""
    return load_count(&core.sample_every) or None


cdef str text(const char *text):
    return text.decode("utf-8", "surrogatepass")


cdef tuple place(const CallTree *tree, uint32_t site, int line):
    cdef const Call *at = &tree.calls[site]
    return text(calls_file(tree, at)), line, text(calls_function(tree, at))


cdef tuple stack_of(const CallTree *tree, uint32_t number):
    cdef const Call *call
    stack = []
    while number != NO_CALL:
        call = &tree.calls[number]
        stack.append(place(tree, call.here, call.line))
        number = call.caller
    return tuple(stack[::-1])


cdef object line_of(const CallTree *tree, uint32_t call, uint64_t nbytes, uint64_t blocks):
    cdef uint32_t site = tree.calls[call].site
    return Line(*place(tree, site, tree.calls[site].line), nbytes, blocks, stack_of(tree, call))


cdef object in_words(const CallTree *tree, const Holder *holders):
    lines = []
    cdef int i
    for i in range(MOST_HOLDERS):
        if holders[i].call != NO_CALL:
            lines.append(line_of(tree, holders[i].call, holders[i].bytes, holders[i].blocks))
    return tuple(lines)


put_holders_by(in_words)


cdef list in_tuples(const Holder *found, uint64_t count):
    """The call, the bytes and the blocks of each."""
    cdef uint64_t i
    return [(found[i].call, found[i].bytes, found[i].blocks) for i in range(count)]


cdef list held():
    """Of each call that holds any."""
    cdef Holder *found = <Holder *> own_calloc(CALLS, sizeof(Holder))
    cdef uint32_t count
    if found == NULL:
        raise MemoryError("no memory to list who holds what")
    with nogil:
        core_stop(core)
        count = samples_collect(core, found)
        core_resume(core, False)
    try:
        return in_tuples(found, count)
    finally:
        free(found)


cdef list lines_of(calls, limit):
    """Those that hold most, by lines, of calls with what they hold."""
    cdef const CallTree *tree = &core.calls
    cdef uint32_t call
    lines = {}
    for call, nbytes, blocks in sorted(calls, key=lambda one: -one[1]):
        line = lines.setdefault(tree.calls[call].site, [call, 0, 0])
        line[1] += nbytes
        line[2] += blocks
    ranked = sorted(lines.values(), key=lambda line: -line[1])
    return [line_of(tree, call, nbytes, blocks) for call, nbytes, blocks in ranked[:limit]]


def holders(limit):
    """As `memlimits.holders`."""
    if limit is not None:
        limit = as_integer(limit, "limit", "how many at most, or None for all")
        if limit < 0:
            raise ValueError(
                f"limit must be from 0 on, how many at most, or None for all, not {shown(limit)}")
    own_objects_begin()
    try:
        return lines_of(held(), limit)
    finally:
        own_objects_end()


# ---- snapshots ----

cdef tuple blocks_of(const Picture *picture):
    """One stack is one object, however many blocks have it."""
    cdef const Extent *extent
    cdef uint64_t i
    blocks, stacks = [], {NO_CALL: None}
    for i in range(picture.extents_count):
        extent = &picture.extents[i]
        if extent.call not in stacks:
            stacks[extent.call] = stack_of(&core.calls, extent.call)
        blocks.append(MemoryBlock(
            <uint64_t> extent.base, extent.bytes, extent.used, STATES[<int> extent.kind],
            stacks[extent.call]))
    blocks.sort()
    return tuple(blocks)


cdef object in_python(Picture *picture, const mlim_process *process):
    own_objects_begin()
    try:
        holders = in_tuples(picture.holders, picture.holders_count)
        return Snapshot(
            picture.at / 1e9, os.getpid(), Stats(with_settings(&picture.snapshot, process)),
            tuple(lines_of(holders, None)), tuple(budgets()), blocks_of(picture))
    finally:
        picture_free(picture)
        own_objects_end()


def snapshot():
    """As `memlimits.snapshot`."""
    cdef Picture picture
    cdef mlim_process process
    cdef bint taken
    with nogil:
        process = controls_read_process(core)
        core_stop(core)
        taken = picture_take(core, &picture)
        core_resume(core, False)
    if not taken:
        raise MemoryError("no memory for a snapshot")
    return in_python(&picture, &process)


def keep_refusals(bint keep):
    """As `memlimits.set_refusal_snapshots`."""
    cdef bint before
    with nogil:
        before = picture_keep(core, keep)
    return before


def of_refusal():
    """As `memlimits.refusal_snapshot`."""
    cdef Picture picture
    cdef mlim_process process
    cdef bint found
    with nogil:
        process = controls_read_process(core)
        found = picture_kept(core, &picture)
    return in_python(&picture, &process) if found else None
