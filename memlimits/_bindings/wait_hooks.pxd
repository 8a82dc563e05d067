"""What a thread does around a wait for memory, for the sake of others and of the interpreter."""

from memlimits._engine.waiting cimport WaitHooks

# Called without the GIL, by who can raise: collects garbage once, and lets signals' handlers run
# now and then. Where one raises, `gave_up` is set, and so is the exception.
cdef extern WaitHooks python_wait_hooks() noexcept nogil
# Called with the GIL or without, in the midst of what may be anyone's C code: gives up the GIL, and
# runs no Python. SIGINT ends the wait, and is handled when that code is left.
cdef extern WaitHooks c_wait_hooks() noexcept nogil
# Whether what this thread asks for as C code may wait, as it does unless told; without, it is
# refused at once, and the GIL is kept.
cdef extern void c_wait_hooks_allow(bint may) noexcept nogil
# When all else is done, since the thread may end in it: takes the GIL back.
cdef extern void c_wait_hooks_end(WaitHooks *hooks) noexcept nogil
# Once it is set: passes it on.
cdef extern from *:
    """
    static inline int raise_what_is_set(void)
    {
        return -1;
    }
    """
    int raise_what_is_set() except -1
