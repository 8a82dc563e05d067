"""Rules by which requests fail, as objects. `memlimits.testing.fail` checks what they are of."""

cimport cython
from libc.stdint cimport uint64_t
from libc.string cimport strcpy

from memlimits._base.python cimport change_state
from memlimits._bindings.allocator cimport Allocator, get_default
from memlimits._engine.failing cimport (
    LONGEST_PLACE, Rule, failing_arm, failing_disarm, failing_read,
)
from memlimits._heap.heap cimport heap_self
from memlimits._ledger.queue cimport C_CODE, MALLOC, NUMPY, PYTHON

LEVELS = {"memlimits": <int> C_CODE, "numpy": <int> NUMPY, "python": <int> PYTHON,
          "malloc": <int> MALLOC}
MOST_BYTES_OF_A_PLACE = LONGEST_PLACE - 1

cdef enum State:
    CLOSED
    OPEN
    CHANGING


@cython.final
@cython.no_gc   # it refers to nothing that could refer to it
cdef class Failing:
    """Requests fail while it is open. Made by `memlimits.testing.fail`.

    A context manager, and a decorator. One object serves several blocks, one after the other, and
    counts anew in each.

    Attributes
    ----------
    requests : int
        How many counted since it was entered last.
    refused : int
        How many of them were refused.

    See Also
    --------
    memlimits.testing.fail : make one.
    """
    cdef Rule rule              # under Heaps.lock while it is open
    cdef Allocator allocator
    cdef tuple made_of
    cdef object may_open        # called before it is entered
    cdef bint any_thread
    cdef int state              # under the object's lock

    def __cinit__(
        self, uint64_t first, uint64_t every, uint64_t least, bytes file, bytes function, levels,
        bint any_thread, may_open
    ):
        self.made_of = first, every, least, file, function, levels, any_thread, may_open
        self.allocator = get_default()
        self.rule.first, self.rule.every, self.rule.least = first, every, least
        strcpy(self.rule.file, file)
        strcpy(self.rule.function, function)
        for level in levels:
            self.rule.levels |= 1 << <int> LEVELS[level]
        self.any_thread = any_thread
        self.may_open = may_open

    def __dealloc__(self):
        # An exception of a signal's may come after __enter__ and before the block.
        if self.state == OPEN:
            failing_disarm(&self.allocator.core, &self.rule)

    @property
    def requests(self):
        return self.read()[0]

    @property
    def refused(self):
        return self.read()[1]

    cdef tuple read(self):
        cdef uint64_t requests, refused
        failing_read(&self.allocator.core, &self.rule, &requests, &refused)
        return requests, refused

    def __enter__(self):
        self.may_open()
        if not change_state(self, &self.state, CLOSED, CHANGING):
            raise RuntimeError("it is in force already: leave it before, or make another")
        self.rule.requests = self.rule.refused = 0
        self.rule.thread = NULL
        if not self.any_thread:
            self.rule.thread = heap_self()
        failing_arm(&self.allocator.core, &self.rule)
        change_state(self, &self.state, CHANGING, OPEN)
        return self

    def __exit__(self, kind, error, traceback):
        # Nothing is made before it is over: that would be another request.
        if not change_state(self, &self.state, OPEN, CHANGING):
            raise RuntimeError("it is not in force: it was left before, or not entered")
        failing_disarm(&self.allocator.core, &self.rule)
        change_state(self, &self.state, CHANGING, CLOSED)

    def __call__(self, function):
        from memlimits.scopes import decorated

        return decorated(self.again, function)

    def again(self):
        """Return another one of the same values."""
        return Failing(*self.made_of)

    def __reduce__(self):
        raise TypeError("it cannot be copied or pickled: it is for one process")
