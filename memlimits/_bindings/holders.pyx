"""Who holds memory, for Python: what the engine noted and added up, as Holders."""

import os

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free

from memlimits._base.own cimport own_calloc, own_objects_begin, own_objects_end
from memlimits._base.sync cimport load_count
from memlimits._bindings.allocator cimport get_default, put_holders_by
from memlimits._bindings.arguments cimport as_nbytes, shown
from memlimits._engine.core cimport Core, core_resume, core_stop
from memlimits._engine.samples cimport (
    samples_add_up, samples_forget, samples_take_every,
)
from memlimits._ledger.calls cimport (
    CALLS, NO_CALL, Call, CallTree, calls_file, calls_function,
)
from memlimits._ledger.queue cimport MOST_HOLDERS, Holder

from memlimits.snapshot import Holder as Line

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


cdef list held():
    """The call, the bytes and the blocks of each that holds any."""
    cdef Holder *found
    cdef uint32_t call, first
    cdef int count = 0
    if core.held == NULL:
        return []
    found = <Holder *> own_calloc(CALLS, sizeof(Holder))
    if found == NULL:
        raise MemoryError("no memory to list who holds what")
    with nogil:
        core_stop(core)
        call = first = samples_add_up(core)
        while call != NO_CALL:
            found[count] = Holder(
                call, <uint64_t> core.held[call].bytes, <uint64_t> (core.held[call].blocks + 0.5))
            count += 1
            call = core.held[call].next
        samples_forget(core, first)
        core_resume(core, False)
    try:
        return [(found[i].call, found[i].bytes, found[i].blocks) for i in range(count)]
    finally:
        free(found)


def holders(limit):
    """As `memlimits.holders`."""
    cdef const CallTree *tree = &core.calls
    cdef uint32_t call
    lines = {}
    if limit is not None:
        limit = as_nbytes(limit, "limit")
    own_objects_begin()
    try:
        for call, nbytes, blocks in sorted(held(), key=lambda one: -one[1]):
            line = lines.setdefault(tree.calls[call].site, [call, 0, 0])
            line[1] += nbytes
            line[2] += blocks
        ranked = sorted(lines.values(), key=lambda line: -line[1])
        return [line_of(tree, call, nbytes, blocks) for call, nbytes, blocks in ranked[:limit]]
    finally:
        own_objects_end()
