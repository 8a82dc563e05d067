"""Budgets and reservations: accounts as context managers."""

cimport cython
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport INT64_MAX, UINT64_MAX, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from memlimits._base.own cimport own_calloc
from memlimits._base.python cimport ObjectLock, change_state, lock_object, set_new, unlock_object
from memlimits._base.sync cimport pthread_mutex_lock, pthread_mutex_unlock
from memlimits._bindings.allocator cimport Allocator, get_default, raise_refusal
from memlimits._bindings.arguments cimport as_limit, as_nbytes, shown
from memlimits._bindings.contexts cimport (
    Opened, account_here, context_enter, context_leave, new_opened, opened_here, path_of,
)
from memlimits._bindings.wait_hooks cimport python_wait_hooks, raise_what_is_set
from memlimits._engine.charging cimport charging_release, charging_would_fit
from memlimits._engine.controls cimport controls_read
from memlimits._engine.core cimport Core
from memlimits._engine.reservations cimport reservations_end, reservations_set
from memlimits._engine.waiting cimport WaitHooks
from memlimits._ledger.accounts cimport (
    DEEPEST, LONGEST_NAME, Account, accounts_open, accounts_opened,
)
from memlimits._ledger.limits cimport NOTHING, Blocker

from memlimits._bindings.allocator import BLOCKED_BY

cdef enum:
    MOST_FINISHED = 1000        # budgets that are remembered after their end

cdef enum State:
    CLOSED
    CHANGING    # by one thread: what follows `state` is its alone
    OPEN

# Budgets that were left, by path: limit and peak, the one left last at the end.
cdef dict finished = {}
cdef object finished_lock = object()    # whose lock guards them


cdef int raise_elsewhere(Scope scope) except -1:
    raise RuntimeError(
        f"{scope} was opened in another thread or task: leave it there. It ends by itself when "
        "nothing refers to it and to that task any more")


@cython.no_gc_clear     # its end takes what it refers to
cdef class Scope:
    """What budgets and reservations have in common: they are open from `with` to its end."""
    cdef Core *core
    # Under the object's lock (_base.python).
    cdef int state              # a State
    cdef Account *account       # a reference, from the first opening on
    cdef Opened opened          # None: not open
    cdef object token

    def __dealloc__(self):
        if self.account != NULL:
            charging_release(self.core, self.account)

    cdef int prepare(self) except -1:
        """Before it counts as open."""
        return 0

    cdef void become(self, State state, Opened opened, object token) noexcept:
        cdef ObjectLock lock
        lock_object(&lock, <PyObject *> self)
        self.state, self.opened, self.token = state, opened, token
        unlock_object(&lock)

    cdef Account *replace_account(self, Account *account) noexcept:
        cdef ObjectLock lock
        lock_object(&lock, <PyObject *> self)
        account, self.account = self.account, account
        unlock_object(&lock)
        return account

    cdef Account figures(self) noexcept:
        """Those of its account; all 0 if it was never open. Nothing is to be reached from them."""
        cdef ObjectLock lock
        cdef Account figures
        memset(&figures, 0, sizeof(Account))
        lock_object(&lock, <PyObject *> self)
        if self.account != NULL:
            pthread_mutex_lock(&self.core.heaps.lock)
            figures = self.account[0]
            pthread_mutex_unlock(&self.core.heaps.lock)
        unlock_object(&lock)
        return figures

    def __enter__(self):
        cdef Opened opened = None
        if not change_state(self, &self.state, CLOSED, CHANGING):
            raise RuntimeError(f"{self} is open already: it can be opened again when it was left")
        try:
            opened = self.open_account()
            self.prepare()
            token = context_enter(opened)
        except BaseException:
            self.become(CLOSED, None, None)
            raise
        self.become(OPEN, opened, token)
        return self

    cdef Opened open_account(self):
        cdef Opened outer = opened_here()
        cdef Opened opened = new_opened()
        cdef Core *core = &get_default().core
        cdef Account *account
        cdef Account *before
        if outer is not None and outer.account.depth + 1 >= DEEPEST:
            raise RuntimeError(
                f"budgets and reservations nest at most {DEEPEST} deep: leave one before {self}")
        pthread_mutex_lock(&core.heaps.lock)
        account = accounts_open(
            &core.accounts, NULL if outer is None else outer.account, self.label(),
            self.is_budget())
        if account != NULL:
            account.references += 1     # one for the context, one for this
            accounts_opened(&core.accounts, True)
        pthread_mutex_unlock(&core.heaps.lock)
        if account == NULL:
            raise MemoryError
        opened.core, opened.account, opened.outer = core, account, outer
        self.core = core
        before = self.replace_account(account)
        if before != NULL:
            charging_release(core, before)
        return opened

    cdef const char *label(self) noexcept:
        return b""

    cdef bint is_budget(self) noexcept:
        return False

    cdef int leave(self) except -1:
        return 0

    def close(self):
        """Leave it, where and when the end of its ``with`` block would.

        Raises
        ------
        RuntimeError
            It is not open, not the innermost here, or was opened in another thread or task; it
            stays as it is.
        """
        cdef ObjectLock lock
        cdef Opened opened, inner
        lock_object(&lock, <PyObject *> self)
        opened, token = self.opened, self.token     # until `leave` is done
        unlock_object(&lock)
        if opened is None:
            raise RuntimeError(f"{self} is not open: it was left, or never opened")
        inner = opened_here()
        if inner is not opened:
            while inner is not None and inner is not opened:
                inner = inner.outer
            if inner is None:
                raise_elsewhere(self)
            raise RuntimeError(
                f"{self} is not the innermost budget or reservation open here: leave those inside "
                "first, in the thread or task that opened them")
        try:
            context_leave(token)    # once, and in one context, which is one thread's
        except ValueError:
            raise_elsewhere(self)
        self.become(CHANGING, None, None)
        try:
            self.leave()
        finally:
            self.become(CLOSED, None, None)

    def __exit__(self, *exc_info):
        self.close()

    cdef int lose(self) except -1:
        """Before it is gone: a signal's exception may come after __enter__ and before the block."""
        cdef bint here
        if self.state != OPEN:
            return 0
        here = opened_here() is self.opened
        try:
            if not here:
                raise ValueError
            context_leave(self.token)
        except (ValueError, RuntimeError):
            # Others are open inside it, or this is another context, or the collector of garbage
            # was at the token before.
            self.opened.lost = True
            if here:
                context_enter(self.opened.outer)
        self.leave()
        return 0


@cython.final
@cython.no_gc_clear
cdef class Budget(Scope):
    """A named share of memory. Made by `budget`.

    Attributes
    ----------
    name : str
        As it was given.
    limit : int or None
        In bytes; None where it was given none.
    active, peak : int
        Bytes charged to it now, and at most since it is in use.

    See Also
    --------
    budget : make one.
    Reservation : room instead of a bound.
    """
    cdef readonly str name
    cdef readonly object limit
    cdef bytes encoded

    def __dealloc__(self):
        self.lose()

    cdef const char *label(self) noexcept:
        return self.encoded

    cdef bint is_budget(self) noexcept:
        return True

    cdef int prepare(self) except -1:
        cdef uint64_t limit
        if self.limit is not None:
            limit = UINT64_MAX if self.limit > INT64_MAX else self.limit
            pthread_mutex_lock(&self.core.heaps.lock)
            self.account.limit = limit
            pthread_mutex_unlock(&self.core.heaps.lock)
        return 0

    cdef int leave(self) except -1:
        path, peak = path_of(self.account), self.peak
        with cython.critical_section(finished_lock):
            before = finished.pop(path, {"peak": 0})
            finished[path] = {"limit": self.limit, "peak": max(before["peak"], peak)}
            if len(finished) > MOST_FINISHED:
                del finished[next(iter(finished))]
        return 0

    @property
    def active(self):
        return self.figures().active

    @property
    def peak(self):
        return self.figures().peak

    def __repr__(self):
        return f"the budget {self.name!r}"


@cython.final
@cython.no_gc_clear
cdef class Reservation(Scope):
    """Room within the memory limit, for those who allocate inside. Made by `reserve`.

    Attributes
    ----------
    nbytes : int
        What was reserved.
    remaining : int
        How much of it nothing was allocated on, in bytes; 0 when it is not open.

    See Also
    --------
    reserve : make one.
    Budget : a bound instead of room.
    """
    cdef readonly uint64_t nbytes

    def __dealloc__(self):
        self.lose()

    cdef int prepare(self) except -1:
        cdef WaitHooks hooks = python_wait_hooks()
        cdef Blocker blocker
        with nogil:
            blocker = reservations_set(self.core, self.account, self.nbytes, &hooks)
        if blocker != NOTHING:
            if hooks.gave_up:
                raise_what_is_set()
            raise_refusal(get_default())
        return 0

    cdef int leave(self) except -1:
        reservations_end(self.core, self.account)
        return 0

    @property
    def remaining(self):
        cdef uint64_t claimed = self.figures().claimed
        if self.state != OPEN:
            return 0
        return self.nbytes - claimed if self.nbytes > claimed else 0

    def __repr__(self):
        from memlimits.sizes import format_exact
        return f"the reservation of {format_exact(self.nbytes)}"


cdef PyObject *refuse(PyTypeObject *kind, PyObject *args, PyObject *keywords) except NULL:
    raise TypeError(
        f"a {(<type> kind).__name__} is not made by its class: memlimits.budget(name) makes a "
        "Budget, and memlimits.reserve(nbytes) a Reservation")


# So that none is without what the functions below check.
set_new(<PyTypeObject *> Scope, refuse)
set_new(<PyTypeObject *> Budget, refuse)
set_new(<PyTypeObject *> Reservation, refuse)


def budget(name, limit=None):
    """Charge what is allocated inside a ``with`` block to a name, within a limit.

    Charged is what this thread or async task allocates inside, and what tasks allocate that were
    started there, through memlimits or NumPy under `govern_numpy`: each block from then on until it
    is freed, wherever that is, at its length rounded up to its size class, or to whole pages above
    32 KiB. Other threads, and C code without the GIL, are not charged.

    Budgets nest: what is charged to one is charged to those around it. The same name in the same
    place is the same budget, also on another thread, as long as it is open somewhere or anything is
    charged to it.

    Parameters
    ----------
    name : str
        1 to 127 bytes in UTF-8.
    limit : int or str, optional
        Bytes, from 0 to 2**64 - 1, or a size such as ``"2GiB"``; an allocation beyond is refused,
        whatever the memory policy. From 2**63 on there is no limit, whatever there was before.
        It counts from the opening on, for all who have the budget open. By default the limit stays
        as it is, at first there is none.

    Returns
    -------
    Budget
        A context manager, with ``active`` and ``peak``.

    Raises
    ------
    TypeError, ValueError
        `name` or `limit` is no such string, integer or size.
    RuntimeError
        On opening: it is open, or more than 100 are nested. On leaving: it is not open, not the
        innermost, or was opened elsewhere.

    See Also
    --------
    Budget : what it returns.
    limits : limits of the whole process, for a time.
    memlimits.pools : budgets that processes share.

    Examples
    --------
    >>> import memlimits
    >>> with memlimits.budget("load", limit=2 << 20) as load:
    ...     block = memlimits.allocate(1 << 20)
    ...     try:
    ...         memlimits.allocate(2 << 20)
    ...     except memlimits.MemoryLimitError as error:
    ...         print(error.blocked_by, error.budget, load.active)
    budget load 1048576
    """
    cdef Budget new = Budget.__new__(Budget)
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, not {shown(name)}")
    new.encoded = name.encode(errors="replace")
    if not 1 <= len(new.encoded) <= LONGEST_NAME or "\0" in name:
        raise ValueError(
            f"name must be of 1 to {LONGEST_NAME} bytes in UTF-8, none of them 0, "
            f"not {name[:LONGEST_NAME]!r}")
    new.name = str(name)
    new.limit = None if limit is None else as_limit(limit, "limit")
    return new


def reserve(nbytes):
    """Hold room within the memory limit that other threads cannot take.

    What is allocated inside the ``with`` block, by this thread or async task and by tasks started
    there, draws on it, and gives it back when it is freed inside. What is left over returns at the
    end. A reservation inside another draws on that.

    Under the ``"guideline"`` policy others may pass the memory limit; they cannot take what the
    system would need for the reservation. A memory limit that is lowered below what is in use and
    reserved takes the reservation with it.

    Parameters
    ----------
    nbytes : int or str
        Bytes, from 0 to 2**63 - 1, or a size such as ``"2GiB"``.

    Returns
    -------
    Reservation
        A context manager, with ``remaining``.

    Raises
    ------
    MemoryLimitError
        On opening: there is no such room within the memory limit, or the system has not that much.
        Under the policy ``"wait"`` it waits first.
    TypeError, ValueError
        `nbytes` is no such integer or size.
    RuntimeError
        As for `budget`.

    See Also
    --------
    Reservation : what it returns.
    would_fit : ask, and reserve nothing.

    Examples
    --------
    >>> import memlimits
    >>> with memlimits.reserve(8 << 20) as room:
    ...     block = memlimits.allocate(1 << 20)
    ...     room.remaining >> 20
    7
    """
    cdef Reservation new = Reservation.__new__(Reservation)
    new.nbytes = as_nbytes(nbytes, "nbytes")
    return new


def what_blocks(nbytes):
    """The number, and what would refuse so many bytes now, as in MemoryLimitError; or None."""
    cdef uint64_t n = as_nbytes(nbytes, "nbytes")
    cdef Allocator allocator = get_default()
    cdef Account *account = account_here(&allocator.core)
    cdef Blocker blocker
    if n == 0:
        return n, None
    with nogil:
        blocker = charging_would_fit(&allocator.core, account, n)
    return n, BLOCKED_BY[<int> blocker]


cdef Account **hold_all(Core *core, size_t *count) noexcept:
    """Every account there is, with a reference each; NULL without memory."""
    cdef Account *account
    cdef Account **held
    count[0] = 0
    pthread_mutex_lock(&core.heaps.lock)
    account = core.accounts.first
    while account != NULL:
        count[0] += 1
        account = account.next
    held = <Account **> own_calloc(count[0] + 1, sizeof(Account *))
    account = core.accounts.first
    if held != NULL:
        for i in range(count[0]):
            held[i] = account
            account.references += 1
            account = account.next
    pthread_mutex_unlock(&core.heaps.lock)
    return held


def budgets():
    """Every budget that is open, or charged, or was left: path, limit, active and peak.

    Those that are one inside a reservation and one outside share a path.
    """
    cdef Core *core = &get_default().core
    cdef size_t count, i
    cdef Account **held = hold_all(core, &count)
    cdef uint64_t limit
    if held == NULL:
        raise MemoryError
    found, live = [], set()
    with cython.critical_section(finished_lock):
        left = dict(finished)
    for i in range(count):
        if held[i].is_budget:
            path = path_of(held[i])
            live.add(path)
            before = left.get(path, {"peak": 0})["peak"]
            limit = controls_read(core, &held[i].limit)
            peak = max(controls_read(core, &held[i].peak), before)
            found.append({
                "name": path,
                "limit": None if limit == UINT64_MAX else limit,
                "active": controls_read(core, &held[i].active),
                "peak": peak,
            })
    for i in range(count):
        charging_release(core, held[i])
    free(held)
    for path, numbers in left.items():
        if path not in live:
            found.append(
                {"name": path, "limit": numbers["limit"], "active": 0, "peak": numbers["peak"]})
    return sorted(found, key=lambda budget: budget["name"])
