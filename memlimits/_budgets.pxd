"""Accounts as context managers, and which one is open here.

The context variable that says so is this module's; what is allocated in the context of a thread or
an async task is charged to the innermost account open there.
"""

from memlimits._accounts cimport Account
from memlimits._core cimport Core

# With the GIL: the account that this context's allocations from the core are charged to, or NULL.
cdef Account *account_here(Core *core) noexcept
# The same for whoever calls; without the GIL there is none.
cdef Account *account_of_caller(Core *core) noexcept nogil

# What the budgets open here leave: ("budget", path, bytes) each.
cdef list rooms_here(Core *core)
