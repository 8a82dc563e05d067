"""Tickets of a library that has its memory from elsewhere, and what it says of itself."""

cimport cython
from libc.stdint cimport uint64_t

from memlimits._base.python cimport change_state
from memlimits._bindings.allocator cimport get_default, raise_refusal
from memlimits._bindings.arguments cimport as_nanoseconds, as_nbytes
from memlimits._bindings.wait_hooks cimport python_wait_hooks, raise_what_is_set
from memlimits._engine.core cimport Core
from memlimits._engine.reservations cimport (
    reservations_close, reservations_note, reservations_open,
)
from memlimits._engine.waiting cimport WaitHooks
from memlimits._ledger.limits cimport NOTHING, Blocker
from memlimits._ledger.tickets cimport Ticket

from sys import intern

cdef enum State:
    CLOSED
    OPEN
    CHANGING    # by one thread: the ticket is its alone


@cython.final
@cython.no_gc   # it refers to a str alone
cdef class Admission:
    """A ticket: open or not. It is closed when it is gone.

    Parameters
    ----------
    nbytes : int
    group : str or None
        That of which the largest alone counts.
    timeout : float or None
        Seconds to wait under the policy "wait", if not as long as that says.
    """
    cdef Core *core
    cdef int state              # a State, under the object's lock (_base.python)
    cdef Ticket ticket
    cdef readonly str group     # interned: as long as any ticket has it, it is at one address
    cdef bint timed
    cdef uint64_t timeout

    def __cinit__(self, nbytes, group=None, timeout=None):
        self.core = &get_default().core
        self.ticket.nbytes = as_nbytes(nbytes, "nbytes")
        if group is not None:
            self.group = intern(group)
            self.ticket.group = <void *> self.group
        if timeout is not None:
            self.timed, self.timeout = True, as_nanoseconds(timeout, "timeout", "the policy's")

    def __dealloc__(self):
        if self.state == OPEN:
            reservations_close(self.core, &self.ticket)

    @property
    def nbytes(self):
        return self.ticket.nbytes

    def open(self):
        """Open it; False if it is open, or about to be.

        Raises
        ------
        MemoryLimitError
            It does not fit.
        """
        cdef WaitHooks hooks = python_wait_hooks()
        cdef Blocker blocker
        if not change_state(self, &self.state, CLOSED, CHANGING):
            return False
        hooks.timed, hooks.timeout = self.timed, self.timeout
        with nogil:
            blocker = reservations_open(self.core, &self.ticket, &hooks)
        change_state(self, &self.state, CHANGING, OPEN if blocker == NOTHING else CLOSED)
        if blocker != NOTHING:
            if hooks.gave_up:
                raise_what_is_set()
            raise_refusal(get_default())
        return True

    def close(self):
        """Close it; False if it is not open."""
        if not change_state(self, &self.state, OPEN, CHANGING):
            return False
        with nogil:
            reservations_close(self.core, &self.ticket)
        change_state(self, &self.state, CHANGING, CLOSED)
        return True


def note(uint64_t active, uint64_t cache, uint64_t peak):
    """What the library has in use, keeps idle, and had in use at most, in bytes.

    The bytes that it may hold in all, and whether anyone waits for memory, here or in the pool.
    """
    cdef Core *core = &get_default().core
    cdef bint wanted = False
    cdef uint64_t room
    with nogil:
        room = reservations_note(core, active, cache, peak, &wanted)
    return room, wanted
