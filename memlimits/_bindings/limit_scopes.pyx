cimport cython

from memlimits._base.python cimport change_state
from memlimits._bindings.allocator cimport Allocator, get_default
from memlimits._bindings.arguments cimport shown
from memlimits._engine.settings cimport WIRED, Layer, settings_end, settings_layer, settings_open

cdef enum State:
    CLOSED
    OPEN
    CHANGING

cdef object NOT_GIVEN = object()


@cython.final
@cython.no_gc   # an Allocator refers to no Python object but its device
cdef class limits:
    """Limits for a part of a program: a context manager, and a decorator.

    Those that are given are set at the start of the block and restored at its end, in whatever way
    it ends. Limits are the process's: they hold for all threads and tasks meanwhile. Where blocks
    overlap, each limit is as the newest open block that gives it says, in whatever order they end.

    A setter called meanwhile changes what the newest open block gave, so the end of that block
    undoes it. A limit that no open block gives is set for good.

    A decorated function runs as if all of its body stood in such a block, a new one for each call:
    a coroutine until it is done, a generator from its first step until it is exhausted or closed.

    Parameters
    ----------
    memory : int or str, optional
        The memory limit in bytes, or as ``"2GiB"``, as for `set_memory_limit`.
    cache : int, str or None, optional
        The cache limit in bytes, as for `set_cache_limit`; None has it follow the memory limit.
    wired : int or str, optional
        The wired limit in bytes, as for `set_wired_limit`.
    policy : {"guideline", "strict", "wait"}, optional
        As for `set_memory_policy`.
    timeout : float, optional
        Seconds, with ``policy="wait"``, as for `set_memory_policy`.
    count : {"given", "resident", "process"}, optional
        As for `set_memory_count`.

    Raises
    ------
    TypeError, ValueError, WiredLimitError
        When it is made: a value is none that the setter takes. Nothing is set.
    DeviceError
        At the start of the block, as from `set_wired_limit`. Nothing is set.
    RuntimeError
        The block is open already, or not open at its end. One object serves several blocks, one
        after the other. It may be left on another thread than it was entered.

    Warns
    -----
    RuntimeWarning
        At the start of the block, as from `set_wired_limit`.

    See Also
    --------
    set_memory_limit, set_cache_limit, set_wired_limit : set one for good.
    budget : a limit on what is allocated inside alone.

    Examples
    --------
    >>> import memlimits
    >>> with memlimits.limits(memory=16 << 20, policy="strict"):
    ...     memlimits.get_memory_limit() >> 20
    16
    >>> memlimits.get_memory_policy()
    'guideline'

    For a function:

    >>> @memlimits.limits(cache=0)
    ... def work():
    ...     return memlimits.get_cache_limit()
    >>> work()
    0
    """
    cdef Layer layer            # Settings.mutex guards it, once others may have this object
    cdef Allocator allocator
    cdef int state              # a State, under the object's lock (_base.python)

    def __cinit__(
        self, *values, memory=NOT_GIVEN, cache=NOT_GIVEN, wired=NOT_GIVEN, policy=NOT_GIVEN,
        timeout=None, count=NOT_GIVEN, **others
    ):
        # By itself the message would speak of __cinit__().
        if values:
            raise TypeError(
                f"limits() takes keyword arguments only, such as memory=..., not "
                f"{shown(values[0])}")
        for name in others:
            raise TypeError(
                f"limits() got an unexpected keyword argument {name!r}: "
                "it takes memory, cache, wired, policy, timeout and count")
        self.allocator = get_default()
        if memory is not NOT_GIVEN:
            self.allocator.give_memory(&self.layer, memory, "memory")
        if cache is not NOT_GIVEN:
            self.allocator.give_cache(&self.layer, cache, "cache")
        if wired is not NOT_GIVEN:
            self.allocator.give_wired(&self.layer, wired, "wired")
        if policy is not NOT_GIVEN:
            self.allocator.give_policy(&self.layer, policy, timeout)
        elif timeout is not None:
            raise ValueError("timeout is of the policy 'wait': give that, too")
        if count is not NOT_GIVEN:
            self.allocator.give_count(&self.layer, count)

    def __dealloc__(self):
        # An open layer stays where it is as long as anyone could end it. A signal's exception may
        # come after __enter__ and before the block, and then nobody can.
        if self.state == OPEN:
            with nogil:
                settings_end(&self.allocator.settings, &self.layer)

    def __enter__(self):
        if self.state == CLOSED and self.layer.given & WIRED:
            self.allocator.may_wire(self.layer.wired)
        # From here to the end no Python runs, so no signal handler: it is entered or it is not.
        if not change_state(self, &self.state, CLOSED, CHANGING):
            raise RuntimeError(
                "these limits are in force already: leave them before, or make others")
        with nogil:
            settings_open(&self.allocator.settings, &self.layer)
        change_state(self, &self.state, CHANGING, OPEN)
        self.allocator.report_wire_failures()
        return self

    def __exit__(self, kind, error, traceback):
        if not change_state(self, &self.state, OPEN, CHANGING):
            raise RuntimeError(
                "these limits are not in force: they were left before, or not entered")
        with nogil:
            settings_end(&self.allocator.settings, &self.layer)
        change_state(self, &self.state, CHANGING, CLOSED)
        self.allocator.report_wire_failures()

    def __call__(self, function):
        from memlimits.scopes import decorated

        return decorated(self.again, function)

    def again(self):
        """Return another one with the same values."""
        cdef limits other = limits()
        with nogil:
            other.layer = settings_layer(&self.allocator.settings, &self.layer)
        return other
