from libc.stdint cimport uint32_t

from memlimits._base.sync cimport pthread_mutex_lock, pthread_mutex_unlock
from memlimits._engine.core cimport core_free, core_hit, core_return
from memlimits._engine.growth cimport growth_miss_with
from memlimits._engine.record cimport record_step
from memlimits._engine.samples cimport samples_here, samples_set
from memlimits._engine.refusals cimport refusals_add_by_budget
from memlimits._engine.reservations cimport reservations_would_fit
from memlimits._heap.cache cimport (
    LARGEST_SLAB_BLOCK, cache_block_size, cache_coarse, cache_least_growth,
)
from memlimits._heap.heap cimport Heap, heap_put_apart, heap_swap_mine
from memlimits._heap.resource cimport Resource
from memlimits._ledger.accounts cimport (
    account_blocks, account_charge, account_discharge, account_keeps, account_note, account_release,
    account_reserved_for, accounts_opened,
)
from memlimits._ledger.limits cimport BUDGET, DEVICE, NOTHING


cdef uint64_t charge_for(const Core *core, uint64_t n) noexcept nogil:
    """What n bytes are charged as: the block they need, to the size class or the page."""
    if n <= LARGEST_SLAB_BLOCK:
        return cache_block_size(cache_coarse(n))
    return cache_least_growth(core.page_size, n)


cdef Blocker alloc_small(
    Core *core, uint64_t n, uint64_t *own, WaitHooks *hooks, Block *block, Heap **taker
) noexcept nogil:
    """From slabs of the shared heap, which is no thread's.

    So each that is freed goes the slow way, where it is seen whether it is charged.
    """
    cdef Blocker blocker = NOTHING
    hooks.heap = heap_swap_mine(&core.heaps, &core.heaps.shared)
    if not core_hit(core, n, block):
        blocker = growth_miss_with(core, n, own, hooks, block)
    taker[0] = hooks.heap
    heap_swap_mine(&core.heaps, hooks.heap)
    hooks.heap = NULL
    return blocker


cdef bint note(
    Core *core, Account *account, Block *block, uint64_t charge, const Heap *taker,
    uint32_t holder
) noexcept nogil:
    """Under the lock."""
    cdef Resource *resource = block.resource
    if resource.block_size == 0:
        samples_set(resource, holder)
    if not account_note(account, resource, block.start, charge, taker, holder):
        return account == NULL      # then no sample is taken
    if resource.block_size == 0:
        heap_put_apart(&core.heaps, resource)
    return True


cdef bint charge_all(
    Core *core, Account *account, uint64_t n, uint64_t charge, uint64_t *own, WaitHooks *hooks
) noexcept nogil:
    """Whether its budgets allow it: else it is refused."""
    cdef bint charged = False
    while not charged:
        pthread_mutex_lock(&core.heaps.lock)
        charged = account_blocks(account, charge) == NULL
        if charged:
            own[0] = account_charge(account, charge)
            hooks.keeps = account_keeps(account)
        pthread_mutex_unlock(&core.heaps.lock)
        # Meanwhile something may have come back.
        if not charged and refusals_add_by_budget(core, n, account, charge):
            return False
    return True


cdef Blocker charging_alloc(
    Core *core, Account *account, uint64_t n, bint sampled, WaitHooks *hooks, Block *block
) noexcept nogil:
    cdef uint64_t charge = charge_for(core, n)
    cdef uint64_t own = 0
    cdef uint32_t holder = samples_here(core, n) if sampled else 0
    cdef Blocker blocker = NOTHING
    cdef bint noted = False
    cdef Heap *taker = NULL
    block.resource = NULL
    if sampled:
        record_step(core)
    if account != NULL and not charge_all(core, account, n, charge, &own, hooks):
        return BUDGET
    if n <= LARGEST_SLAB_BLOCK:
        blocker = alloc_small(core, n, &own, hooks, block, &taker)
    elif not core_hit(core, n, block):
        blocker = growth_miss_with(core, n, &own, hooks, block)
    if account == NULL and (blocker != NOTHING or block.resource.block_size == 0):
        if blocker == NOTHING:
            samples_set(block.resource, holder)
        return blocker
    pthread_mutex_lock(&core.heaps.lock)
    if blocker == NOTHING:
        core.limits.reserved -= own
        noted = note(core, account, block, charge, taker, holder)
        if not noted:
            own = 0
    if not noted and account != NULL:
        core.limits.reserved += account_discharge(account, charge) - own
        account_release(&core.accounts, account)
    pthread_mutex_unlock(&core.heaps.lock)
    if blocker == NOTHING and not noted:
        core_return(core, core_free(core, block.resource, block.start))
        block.resource = NULL
        return DEVICE
    return blocker


cdef Blocker charging_would_fit(Core *core, Account *account, uint64_t n) noexcept nogil:
    cdef uint64_t charge = charge_for(core, n)
    cdef uint64_t own = 0
    cdef bint blocked = False
    if account != NULL:
        pthread_mutex_lock(&core.heaps.lock)
        blocked = account_blocks(account, charge) != NULL
        if not blocked:
            own = account_reserved_for(account, charge)
        pthread_mutex_unlock(&core.heaps.lock)
    return BUDGET if blocked else reservations_would_fit(core, n, own, account)


cdef void charging_release(Core *core, Account *account) noexcept nogil:
    pthread_mutex_lock(&core.heaps.lock)
    account_release(&core.accounts, account)
    pthread_mutex_unlock(&core.heaps.lock)


cdef void charging_close(Core *core, Account *account) noexcept nogil:
    pthread_mutex_lock(&core.heaps.lock)
    accounts_opened(&core.accounts, False)
    account_release(&core.accounts, account)
    pthread_mutex_unlock(&core.heaps.lock)
