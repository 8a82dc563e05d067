"""The core as Python sees it: arguments checked, refusals raised, warnings given."""

from libc.stdint cimport int64_t, uint64_t

from memlimits._core cimport Core, Refusal
from memlimits._device cimport Device

# An argument as an int: anything with __index__ but bool. `meaning` says what the number is.
cdef object as_integer(object value, str name, str meaning)
# An integer for an error message, however long it is.
cdef str shown(object number)
# An argument in bytes: from 0 to 2**63 - 1.
cdef int64_t as_nbytes(object value, str name) except -1

# A refusal as a MemoryLimitError, not raised; None for no refusal.
cdef object refusal_error(Refusal refusal)


cdef class Allocator:
    """Memory from one device within one set of limits. Blocks keep it alive through a reference."""
    cdef Core core
    cdef Device device
    cdef bint reported_failures         # a warning has been given about failed wires
    cdef bint is_metal(self)
    cdef bint lacks_residency(self)
    cdef str way_to_wire_more(self)
    # Warns, the first time only, when wires have failed. Never raises.
    cdef void report_wire_failures(self) noexcept


# Raises this thread's last refusal, by `allocator`: MemoryLimitError, or DeviceError in a forked
# child whose device did not survive.
cdef int raise_refusal(Allocator allocator) except -1

# The process's own: made on first use, never freed, since blocks may outlive the interpreter.
cdef Allocator get_default()
