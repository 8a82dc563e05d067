from libc.stdint cimport UINT64_MAX, int64_t
from posix.time cimport CLOCK_MONOTONIC

from memlimits._base.arithmetic cimport saturating_add, saturating_sub
from memlimits._base.sync cimport add_word, load_word, store_count, time_of
from memlimits._ledger.limits cimport (
    COUNT_GIVEN, POLICY_GUIDELINE, POLICY_WAIT, limits_counted, limits_kept_back,
    limits_library, limits_wanted_back,
)
from memlimits._ledger.pool cimport (
    PoolSums, pool_bytes, pool_draw, pool_draw_some, pool_force, pool_held, pool_is_turn,
    pool_limit, pool_settle, pool_sums, pool_take, pool_units, pool_used, pool_want,
    pool_want_no_more,
)

cdef enum:
    AHEAD = 16 << 20        # bytes that are held beyond what is used, where there is enough
    LONG = 4 << 20          # growth by less is not what processes wait for each other for


cdef uint64_t inherited(const Limits *limits) noexcept nogil:
    """What of it counts at all: what nobody touched may not, and pays for nothing else then."""
    return min(limits.inherited, limits_counted(limits, 0))


cdef uint64_t counted(
    const Limits *limits, const Pool *pool, uint64_t n, uint64_t kept, uint64_t own
) noexcept nogil:
    """In units."""
    cdef uint64_t others = saturating_sub(limits.reserved, own) + limits_library(limits)
    cdef uint64_t own_bytes = limits_counted(limits, n) - inherited(limits)
    return pool_units(pool, own_bytes + others + kept)


cdef uint64_t share_wanted(
    const Limits *limits, const Pool *pool, uint64_t n, uint64_t own
) noexcept nogil:
    return counted(limits, pool, n, limits_kept_back(limits, n), own)


cdef void note(Limits *limits, Pool *pool) noexcept nogil:
    limits.share = saturating_add(
        pool_bytes(pool, pool_held(pool.mine)), inherited(limits))


cdef uint64_t share_limit(const Pool *pool) noexcept nogil:
    cdef uint64_t most = load_word(&pool.mine.most)
    if most > UINT64_MAX >> pool.shift:
        return pool_limit(pool)
    return min(pool_limit(pool), pool_bytes(pool, most))


cdef void share_look(Limits *limits, const Pool *pool) noexcept nogil:
    cdef PoolSums sums
    if pool.mine == NULL:
        return
    pool_sums(pool, &sums)
    limits.pool_limit = share_limit(pool)
    # What is set aside for one of them is as good as used.
    limits.others_used = pool_bytes(pool, sums.held - sums.loose)
    limits.fair_share = limits.pool_limit // (sums.members + 1)


cdef bint may_draw(Pool *pool, uint64_t needs, uint64_t now) noexcept nogil:
    """Under the policy to wait."""
    if not pool_is_turn(pool, needs, now):
        return False
    if pool_bytes(pool, needs) < <uint64_t> LONG:
        return True
    return pool_want(pool, needs, now)


cdef bint cannot_be(const Limits *limits, uint64_t n) noexcept nogil:
    """Whether the process's own limit surely forbids growth by n, whatever is idle."""
    return limits.policy != POLICY_GUIDELINE and limits.count == COUNT_GIVEN and (
        limits.footprint - limits.cache + limits.library + n > limits.memory_limit)


cdef uint64_t share_draw(
    Limits *limits, Pool *pool, uint64_t n, uint64_t own, bint passes
) noexcept nogil:
    cdef uint64_t want, wanted, needs, now
    if pool.mine == NULL:
        return 0
    want = share_wanted(limits, pool, n, own)
    if pool_held(pool.mine) < want:
        share_look(limits, pool)
        now = time_of(CLOCK_MONOTONIC)
        needs = saturating_sub(want, pool_used(pool.mine))
        if not cannot_be(limits, n) and (
            passes or limits.policy != POLICY_WAIT or may_draw(pool, needs, now)
        ):
            wanted = counted(limits, pool, n, limits_wanted_back(limits), own)
            # What is to be kept back for errors besides, if there is that much.
            if (wanted <= want or not pool_draw(pool, wanted, AHEAD >> pool.shift)) and (
                not pool_draw(pool, want, AHEAD >> pool.shift)
            ):
                # For the rest its own idle memory has to go.
                pool_draw_some(pool, saturating_sub(want, pool_units(pool, limits.cache)), want)
    note(limits, pool)
    return want


cdef bint share_take(
    Limits *limits, Pool *pool, uint64_t n, uint64_t trim, uint64_t own
) noexcept nogil:
    # Where as much goes it needs none, however much else counts.
    return pool.mine == NULL or n <= trim or share_take_units(
        limits, pool, share_wanted(limits, pool, n - trim, own))


cdef bint share_take_units(Limits *limits, Pool *pool, uint64_t want) noexcept nogil:
    if pool.mine == NULL:
        return True
    if pool_take(pool, want):
        pool_want_no_more(pool)
        return True
    if limits.policy != POLICY_GUIDELINE:
        return False
    if pool_force(pool, want):
        add_word(&pool.header.overruns, 1)
        add_word(&pool.mine.overruns, 1)
    note(limits, pool)
    return True


cdef bint share_take_ahead(const Limits *limits, Pool *pool, uint64_t n) noexcept nogil:
    return pool.mine == NULL or pool_take(pool, share_wanted(limits, pool, n, 0))


cdef bint settle(Limits *limits, Pool *pool, uint64_t ahead) noexcept nogil:
    cdef uint64_t least
    cdef bint given
    if pool.mine == NULL:
        return False
    if limits.count != COUNT_GIVEN or limits.library > limits.admitted:
        least = counted(limits, pool, 0, 0, limits.reserved)
        if pool_used(pool.mine) < least:
            pool_force(pool, least)     # what was given is touched only now, or is a library's
            note(limits, pool)
    given = pool_settle(
        pool, counted(limits, pool, 0, limits_wanted_back(limits), 0), ahead >> pool.shift)
    if given:
        note(limits, pool)
    return given


cdef void share_reserve(Limits *limits, Pool *pool) noexcept nogil:
    if pool.mine != NULL:
        pool_take(pool, counted(limits, pool, 0, 0, 0))
        note(limits, pool)


cdef bint share_settle(Limits *limits, Pool *pool) noexcept nogil:
    return settle(limits, pool, 0 if limits.others_wait else <uint64_t> 2 * AHEAD)


cdef bint share_settle_closely(Limits *limits, Pool *pool) noexcept nogil:
    return settle(limits, pool, 0)


cdef void share_tell(const Limits *limits, Pool *pool) noexcept nogil:
    if pool.mine == NULL:
        return
    pool_want_no_more(pool)
    store_count(<int64_t *> &pool.mine.active, limits.active)
    store_count(<int64_t *> &pool.mine.cached, limits.cache)
    store_count(<int64_t *> &pool.mine.inherited, limits.inherited)
    store_count(<int64_t *> &pool.mine.peak, max(
        pool.mine.peak, limits.footprint + limits_library(limits)))


cdef void share_none(Limits *limits, Pool *pool) noexcept nogil:
    pool.mine = NULL
    if pool.header == NULL:
        limits.share = limits.pool_limit = limits.fair_share = UINT64_MAX
    else:
        limits.share = limits.inherited
        limits.pool_limit = pool_limit(pool)
    limits.others_wait = False
