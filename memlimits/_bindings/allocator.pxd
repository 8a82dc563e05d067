"""The core as Python sees it: limits checked, refusals raised, warnings given."""

from libc.stdint cimport uint64_t

from memlimits._device.device cimport Device
from memlimits._device.mlim cimport mlim_process
from memlimits._engine.controls cimport Snapshot
from memlimits._engine.core cimport Core
from memlimits._engine.settings cimport Layer, Settings
from memlimits._ledger.calls cimport CallTree
from memlimits._ledger.queue cimport Holder


cdef class Allocator:
    """Memory from one device within one set of limits. Blocks keep it alive through a reference."""
    cdef Core core
    cdef Settings settings
    cdef Device device
    cdef bint reported_failures         # a warning has been given about failed wires
    cdef bint reported_registrations    # and about failed registrations
    # Arguments of setters and scopes, checked and added to what `layer` gives. Nothing is set yet.
    cdef int give_memory(self, Layer *layer, limit, str name) except -1
    cdef int give_cache(self, Layer *layer, limit, str name) except -1
    cdef int give_wired(self, Layer *layer, limit, str name) except -1
    cdef int give_policy(self, Layer *layer, policy, timeout) except -1
    cdef int give_count(self, Layer *layer, count) except -1
    # Raises what setting a wired limit may raise, and gives its warning.
    cdef int may_wire(self, uint64_t limit) except -1
    cdef bint is_metal(self)
    cdef bint lacks_residency(self)
    cdef str way_to_wire_more(self)
    # They warn, the first time only: when wires, or registrations with CUDA, have failed; of what
    # bounds memory and cannot be read. They never raise.
    cdef void report_wire_failures(self) noexcept
    cdef void report_registrations(self) noexcept
    cdef void report_unread(self) noexcept
    cdef void warn(self, bytes text) noexcept


# How many frames up a warning's line is, as `warnings.warn` counts: that of the program, whichever
# of the package's functions in Python it came through.
cdef extern Py_ssize_t callers_level() noexcept

# Raises this thread's last refusal, by `allocator`: MemoryLimitError, or DeviceError in a forked
# child whose device did not survive.
cdef extern int raise_refusal(Allocator allocator) except -1

# Has the holders of refusals be put into words by `words`, from when any can be noted.
ctypedef object (*HoldersInWords)(const CallTree *calls, const Holder *holders)
cdef extern void put_holders_by(HoldersInWords words) noexcept

# What `Stats` is made of.
cdef extern dict with_settings(const Snapshot *snapshot, const mlim_process *process)

# The process's own: made on first use, never freed, since blocks may outlive the interpreter.
cdef extern Allocator get_default()
