from libc.stdint cimport UINT64_MAX, uint32_t
from libc.stdlib cimport free
from libc.string cimport strcmp, strcpy

from memlimits._base.own cimport own_calloc
from memlimits._base.sync cimport store_release


cdef Account *accounts_open(
    Accounts *accounts, Account *parent, const char *name, bint is_budget
) noexcept nogil:
    cdef Account *account = accounts.first if is_budget else NULL
    while account != NULL and not (
        account.parent == parent and account.is_budget and strcmp(account.name, name) == 0
    ):
        account = account.next
    if account == NULL:
        account = <Account *> own_calloc(1, sizeof(Account))
        if account == NULL:
            return NULL
        account.limit = UINT64_MAX
        account.is_budget = is_budget
        strcpy(account.name, name)
        account.parent = parent
        if parent != NULL:
            parent.references += 1
            account.depth = parent.depth + 1
        account.next = accounts.first
        accounts.first = account
    account.references += 1
    return account


cdef void account_release(Accounts *accounts, Account *account) noexcept nogil:
    cdef Account **link
    cdef Account *parent
    while account != NULL:
        account.references -= 1
        if account.references:
            return
        link = &accounts.first
        while link[0] != account:
            link = &link[0].next
        link[0] = account.next
        parent = account.parent
        free(account)
        account = parent


cdef void accounts_opened(Accounts *accounts, bint opened) noexcept nogil:
    if opened:
        accounts.opened += 1
    else:
        accounts.opened -= 1
    # Whoever allocates reads it without the lock.
    store_release(&accounts.open, accounts if accounts.opened else NULL)
    accounts_sample(accounts, accounts.samples)


cdef void accounts_sample(Accounts *accounts, bint samples) noexcept nogil:
    accounts.samples = samples
    store_release(&accounts.noting, accounts if accounts.opened or samples else NULL)


# ---- claims ----

cdef inline uint64_t claim_of(const Account *account) noexcept nogil:
    return max(account.reservation, account.claimed)


cdef uint64_t claim_more(Account *account, uint64_t n) noexcept nogil:
    """n bytes more are claimed below or by the account; returns how many more are in all."""
    cdef uint64_t before
    while account != NULL and n:
        before = claim_of(account)
        account.claimed += n
        n = claim_of(account) - before
        account = account.parent
    return n


cdef uint64_t claim_less(Account *account, uint64_t n) noexcept nogil:
    cdef uint64_t before
    while account != NULL and n:
        before = claim_of(account)
        account.claimed -= n
        n = before - claim_of(account)
        account = account.parent
    return n


cdef uint64_t cost_of(const Account *account, uint64_t n) noexcept nogil:
    """What claim_more would return."""
    while account != NULL and n:
        n = max(account.reservation, account.claimed + n) - claim_of(account)
        account = account.parent
    return n


cdef uint64_t account_reserved_for(const Account *account, uint64_t n) noexcept nogil:
    return n - cost_of(account, n)


cdef uint64_t account_reservation_costs(
    const Account *account, uint64_t reservation
) noexcept nogil:
    return cost_of(account.parent, max(account.claimed, reservation) - claim_of(account))


cdef void account_set_reservation(
    Account *account, uint64_t reservation, Limits *limits
) noexcept nogil:
    cdef uint64_t before = claim_of(account)
    account.reservation = reservation
    if claim_of(account) > before:
        limits.reserved += claim_more(account.parent, claim_of(account) - before)
    else:
        limits.reserved -= claim_less(account.parent, before - claim_of(account))


# ---- charges ----

cdef Account *account_blocks(Account *account, uint64_t n) noexcept nogil:
    while account != NULL and (account.active <= account.limit and (
        n <= account.limit - account.active
    )):
        account = account.parent
    return account


cdef bint account_keeps(const Account *account) noexcept nogil:
    while account != NULL and account.reservation == 0:
        account = account.parent
    return account != NULL


cdef uint64_t account_charge(Account *account, uint64_t n) noexcept nogil:
    cdef Account *at = account
    account.references += 1
    while at != NULL:
        at.active += n
        at = at.parent
    return n - claim_more(account, n)


cdef uint64_t account_discharge(Account *account, uint64_t n) noexcept nogil:
    cdef Account *at = account
    while at != NULL:
        at.active -= n
        at = at.parent
    return n - claim_less(account, n)


# ---- whose a block is ----

# Of a block of a slab.
cdef struct Note:
    Account *account
    const void *taker
    uint32_t holder


cdef inline Note *note_of(Resource *slab, void *start) noexcept nogil:
    return <Note *> slab.charge + (<char *> start - slab.base) // slab.block_size


cdef void note_peaks(Account *account) noexcept nogil:
    while account != NULL:
        account.peak = max(account.peak, account.active)
        account = account.parent


cdef bint account_note(
    Account *account, Resource *resource, void *start, uint64_t n, const void *taker,
    uint32_t holder
) noexcept nogil:
    if resource.block_size == 0:
        store_release(&resource.charge, account)
        resource.charged = n
        note_peaks(account)
        return True
    if resource.charge == NULL:
        # Who frees another block of the slab looks whether there is a list, without the lock.
        store_release(&resource.charge, own_calloc(resource.blocks, sizeof(Note)))
        if resource.charge == NULL:
            return False
    note_of(resource, start)[0] = Note(account, taker, holder)
    resource.charged += 1
    note_peaks(account)
    return True


cdef bint account_took(const Resource *slab, const void *taker) noexcept nogil:
    cdef const Note *notes = <const Note *> slab.charge
    cdef int blocks = 0 if notes == NULL else slab.blocks
    while blocks > 0 and notes[blocks - 1].taker != taker:
        blocks -= 1
    return blocks > 0


cdef uint32_t account_holder(const Resource *slab, int block) noexcept nogil:
    return (<const Note *> slab.charge)[block].holder


cdef Account *account_take_note(
    Resource *resource, void *start, uint64_t *n
) noexcept nogil:
    cdef Note *note
    cdef Account *account = <Account *> resource.charge
    if account == NULL:
        return NULL
    if resource.block_size == 0:
        n[0] = resource.charged
        resource.charged = 0    # a slab that is cut from it counts from there
        store_release(&resource.charge, NULL)
        return account
    if <char *> start >= resource.base + <uint64_t> resource.blocks * resource.block_size:
        return NULL     # no block at all: who takes it back sees that
    note = note_of(resource, start)
    account = note.account
    if account != NULL or note.holder:
        n[0] = resource.block_size
        note[0] = Note(NULL, NULL, 0)
        resource.charged -= 1
        if resource.charged == 0:
            free(resource.charge)
            store_release(&resource.charge, NULL)
    return account
