"""Which account is open here, in the context of a thread or an async task."""

from memlimits._engine.core cimport Core
from memlimits._ledger.accounts cimport Account


cdef class Opened:
    """An account in a context. Contexts copied meanwhile, as tasks do, keep it when it is left."""
    cdef Core *core             # the default one, which is never freed
    cdef Account *account       # a reference
    cdef Opened outer           # in which it was opened, or None
    cdef bint lost              # nobody can leave it any more: the outer one counts instead


# One whose account is for the caller to set: it takes over a reference, and that it is open.
cdef extern Opened new_opened()
# The innermost one here, or None.
cdef extern Opened opened_here()
# Makes it the innermost one, until what this returns is given back. ValueError: not here.
cdef extern object context_enter(Opened opened)
cdef extern int context_leave(object token) except -1

# With the GIL: the account that this context's allocations from the core are charged to, or NULL.
cdef extern Account *account_here(Core *core) noexcept
# The same for whoever calls; for a thread that is not attached to Python there is none.
cdef extern Account *account_of_caller(Core *core) noexcept nogil

# The budgets around an account, as a path.
cdef extern str path_of(Account *account)
# What the budgets open here leave: ("budget", path, bytes) each.
cdef extern list rooms_here(Core *core)
