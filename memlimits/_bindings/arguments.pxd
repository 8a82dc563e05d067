"""Arguments from Python, checked."""

from libc.stdint cimport int64_t, uint64_t

# An argument as an int: anything with __index__ but bool. `meaning` says what the number is.
cdef extern object as_integer(object value, str name, str meaning)
# In bytes: from 0 to 2**63 - 1, or a size such as "2GiB".
cdef extern int64_t as_nbytes(object value, str name) except -1
# A limit in bytes: from 0 to 2**64 - 1, or such a size. From 2**63 on it bounds nothing.
cdef extern uint64_t as_limit(object value, str name) except? 0
# A real number; infinity for an integer that is longer than a double. `meaning` as above.
cdef extern double as_real(object value, str name, str meaning) except? -1
# In seconds: a real number from 0 to 10**9. `none` is what None means.
cdef extern int64_t as_nanoseconds(object value, str name, str none) except -1
# The reverse; None for UINT64_MAX.
cdef extern object seconds_or_none(uint64_t nanoseconds)
# An argument for an error message, however long it is, and whatever its repr does.
cdef extern str shown(object value)
