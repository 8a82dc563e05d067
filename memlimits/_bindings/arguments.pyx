from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from cpython.number cimport PyIndex_Check, PyNumber_Index
from libc.math cimport INFINITY
from libc.stdint cimport UINT64_MAX

cdef enum:
    MOST_SECONDS = 1000000000       # about 30 years
    LONGEST_SHOWN = 100


cdef bint is_bool(object value) except -1:
    # NumPy's has __index__ before NumPy 2.3.
    return isinstance(value, bool) or (
        getattr(getattr(value, "dtype", None), "kind", "") == "b")


cdef object as_integer(object value, str name, str meaning):
    if is_bool(value) or not PyIndex_Check(value):
        raise TypeError(
            f"{name} must be an integer, {meaning}, not the {type(value).__name__:.50} "
            f"{shown(value)}")
    return PyNumber_Index(value)


cdef object as_size(object value, str name, str meaning):
    """An argument in bytes as an int."""
    if isinstance(value, str):
        from memlimits.sizes import in_bytes    # there already, since `memlimits.memory` has it
        return in_bytes(value, name)
    return as_integer(value, name, meaning)


cdef int64_t as_nbytes(object value, str name) except -1:
    cdef int overflow = 0
    cdef int64_t number
    cdef object given = value
    if not PyLong_CheckExact(value):
        value = as_size(value, name, "in bytes, or a size such as '2GiB'")
    number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow or number < 0:
        given = given if isinstance(given, str) else value
        raise ValueError(f"{name} must be from 0 to 2**63 - 1 bytes, not {shown(given)}")
    return number


cdef uint64_t as_limit(object value, str name) except? 0:
    cdef int overflow = 0
    cdef int64_t number
    if not PyLong_CheckExact(value):
        value = as_size(
            value, name, "in bytes, from 2**63 on for none, or a size such as '2GiB'")
    number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow > 0 and value <= UINT64_MAX:
        return value
    if overflow or number < 0:
        raise ValueError(
            f"{name} must be from 0 to 2**64 - 1 bytes, from 2**63 on for none, "
            f"not {shown(value)}")
    return number


cdef double as_real(object value, str name, str meaning) except? -1:
    if is_bool(value) or not hasattr(value, "__float__") and not PyIndex_Check(value):
        raise TypeError(f"{name} must be a number, {meaning}, not {shown(value)}")
    try:
        return value
    except OverflowError:
        return INFINITY


cdef int64_t as_nanoseconds(object value, str name, str none) except -1:
    cdef double seconds = as_real(value, name, f"in seconds, or None for {none}")
    if not 0 <= seconds <= MOST_SECONDS:
        raise ValueError(
            f"{name} must be from 0 to {MOST_SECONDS} seconds, or None for {none}, "
            f"not {shown(value)}")
    return <int64_t> (seconds * 1e9)


cdef object seconds_or_none(uint64_t nanoseconds):
    return None if nanoseconds == UINT64_MAX else nanoseconds / 1e9


cdef str shown(object value):
    if type(value) is int and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    try:
        text = repr(value)
    except Exception:
        text = object.__repr__(value)
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "..."
