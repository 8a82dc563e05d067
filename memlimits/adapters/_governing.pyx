"""What `govern_numpy` and `govern_python` return."""

cimport cython
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport int64_t

from memlimits._base.python cimport Destructor, exception_under_way, replace_dealloc
from memlimits._base.sync cimport count_atomically, take_count


@cython.final
@cython.no_gc   # it refers to nothing that could refer to it
cdef class Governing:
    """A kind of memory is allocated by memlimits until it is closed. Made by `govern_numpy`.

    And by `govern_python`. Several may be open at once, closed in any order, on any thread and in
    any context; a second ``close`` does nothing. One that is dropped without ``close`` stays open,
    but for one that an exception took from whoever was to get it.

    Attributes
    ----------
    ungoverned : str or None
        A sentence on what of it cannot be governed in this interpreter; None where all is.

    See Also
    --------
    govern_numpy : make one, for arrays.
    govern_python : make one, for Python's objects.
    """

    def __dealloc__(self):
        # An exception came before anyone had it, or between the start of the block and its first
        # line.
        if self.entered or self.lost:
            end(self)

    def close(self):
        """Leave new allocations to who made them before, unless another Governing is open."""
        end(self)

    def __enter__(self):
        self.entered = True
        return self

    def __exit__(self, kind, error, traceback):
        end(self)

    def __reduce__(self):
        raise TypeError(
            "a Governing cannot be copied or pickled: call the function that made it for another")


cdef inline void end(Governing governing) noexcept:
    cdef int64_t counted = take_count(&governing.counted)
    if counted:
        count_atomically(governing.count, -counted)
        if governing.closed != NULL:
            governing.closed()


cdef Governing new_governing(int64_t *count, int64_t counted):
    cdef Governing governing = Governing.__new__(Governing)
    governing.count = count
    governing.counted = counted
    count_atomically(count, counted)
    return governing


cdef Destructor dealloc_governing

cdef void drop_governing(PyObject *governing) noexcept:
    (<Governing> governing).lost = exception_under_way() != NULL
    dealloc_governing(governing)

replace_dealloc(<PyTypeObject *> Governing, drop_governing, &dealloc_governing)
