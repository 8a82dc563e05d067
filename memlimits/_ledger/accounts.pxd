"""Accounts: who is charged for a block, and bytes that are kept for those who will ask for them.

A budget is an account with a limit; a reservation one that keeps bytes. They nest: what is charged
to one is charged to those above it, until the block is freed. An account claims what is charged to
it directly and what those below it claim, and at least what it keeps; what all claim, less what all
are charged, is `Limits.reserved`. Every function is called under the allocator's lock, Heaps.lock.
"""

from libc.stdint cimport uint32_t, uint64_t

from memlimits._heap.resource cimport Resource
from memlimits._ledger.limits cimport Limits

cdef enum:
    LONGEST_NAME = 127      # bytes
    DEEPEST = 100           # accounts, one in another

cdef struct Account:
    Account *parent         # a reference to it
    Account *next           # of all there are
    uint64_t references     # to it: those who opened it, accounts below, charged blocks
    uint64_t depth
    uint64_t limit          # UINT64_MAX: none
    uint64_t reservation
    uint64_t active         # charged, by accounts below, too
    uint64_t peak           # of active
    uint64_t claimed        # by direct charges and accounts below; what it claims may be more
    bint is_budget
    char name[LONGEST_NAME + 1]

cdef struct Accounts:
    Account *first
    void *open              # not NULL: one is open somewhere, so that whoever allocates looks
    uint64_t opened         # in how many contexts
    # Not NULL: what is allocated may have to be noted, for an account or for who holds it.
    void *noting
    bint samples            # the latter

# The account of this name below `parent`, or a new one, with a reference for the caller. NULL
# without memory.
cdef extern Account *accounts_open(
    Accounts *accounts, Account *parent, const char *name, bint is_budget) noexcept nogil
cdef extern void account_release(Accounts *accounts, Account *account) noexcept nogil
# In one context more, or less, is one open.
cdef extern void accounts_opened(Accounts *accounts, bint opened) noexcept nogil
# From now on some blocks are noted for who holds them, or none.
cdef extern void accounts_sample(Accounts *accounts, bint samples) noexcept nogil

# How many of n bytes that were to be charged are reserved for them.
cdef extern uint64_t account_reserved_for(const Account *account, uint64_t n) noexcept nogil
# How much more is claimed in all if the account claims at least so much; the reservation stays.
cdef extern uint64_t account_reservation_costs(
    const Account *account, uint64_t reservation) noexcept nogil
# A new one. Limits.reserved changes with it.
cdef extern void account_set_reservation(
    Account *account, uint64_t reservation, Limits *limits) noexcept nogil

# The account whose limit does not allow n bytes more, itself or above; or NULL.
cdef extern Account *account_blocks(Account *account, uint64_t n) noexcept nogil
# Whether it keeps room for those who ask on it, itself or one above; not where it is NULL.
cdef extern bint account_keeps(const Account *account) noexcept nogil
# Charges n bytes. Returns how many of them were reserved; Limits.reserved is for the caller to
# lower, when the bytes are had.
cdef extern uint64_t account_charge(Account *account, uint64_t n) noexcept nogil
# The reverse. Returns how many are reserved again: for the caller to add.
cdef extern uint64_t account_discharge(Account *account, uint64_t n) noexcept nogil

# Notes who is charged for a block that was had, NULL for nobody, and of a slab's block who took it:
# a heap, and who holds it, or 0. From then on peaks count it. A slab keeps a list of these as long
# as one of its blocks is noted. False without memory: then nothing is noted.
cdef extern bint account_note(
    Account *account, Resource *resource, void *start, uint64_t n, const void *taker,
    uint32_t holder
) noexcept nogil
# Whether any block of a slab that is noted was taken by this one.
cdef extern bint account_took(const Resource *slab, const void *taker) noexcept nogil
# Who holds the block of a slab with a list: the first, the second, ...; 0: nobody knows.
cdef extern uint32_t account_holder(const Resource *slab, int block) noexcept nogil
# Who was charged for it, and for how many bytes; NULL for nobody. It is not noted any more.
cdef extern Account *account_take_note(
    Resource *resource, void *start, uint64_t *n) noexcept nogil
