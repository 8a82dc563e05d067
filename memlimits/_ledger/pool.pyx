from libc.stdint cimport UINT64_MAX, uint32_t
from libc.string cimport memcmp, memcpy, memset, strncpy
from posix.time cimport CLOCK_REALTIME

from memlimits._base.arithmetic cimport saturating_add, saturating_sub
from memlimits._base.sync cimport (
    add_word, load_word, replace_word, store_word, time_of,
)

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef enum:
    FIELD = 31              # bits of the word for each of the two
    # Passed over after so many ns: it is stopped, or starved. It looks every 20 ms.
    ABSENT = 1000000000
    YIELDS = 100            # for a draft of a member that comes first
    OF_LATE = 2000000000    # ns: who did not grow for so long is not about to

cdef extern from *:
    """
    #define MOST_UNITS (((uint64_t)1 << 31) - 1)
    #define DRAFT ((uint64_t)1 << 62)
    #define MAGIC "mlimpool"
    """
    uint64_t MOST_UNITS
    uint64_t DRAFT
    const char *MAGIC


cdef uint64_t size_of_head() noexcept nogil:
    return (sizeof(PoolHeader) + 4095) // 4096 * 4096


cdef uint64_t pool_size() noexcept nogil:
    return size_of_head() + POOL_SLOTS * sizeof(PoolMember) + POOL_RECORDS * sizeof(PoolRecord)


cdef void pool_make_header(
    PoolHeader *header, const char *name, uint64_t limit, uint64_t unit, uint64_t wired_limit
) noexcept nogil:
    memset(header, 0, sizeof(PoolHeader))
    memcpy(header.magic, MAGIC, sizeof(header.magic))
    header.version = POOL_VERSION
    header.slots, header.records = POOL_SLOTS, POOL_RECORDS
    header.member_size = sizeof(PoolMember)
    # Two fields of a word are to hold the limit and more.
    while limit // unit > MOST_LIMIT:
        unit *= 2
    header.unit, header.limit = unit, limit // unit
    header.wired_limit = wired_limit
    header.made = time_of(CLOCK_REALTIME)
    strncpy(header.name, name, LONGEST_POOL_NAME)


cdef const char *pool_why_not(const PoolHeader *header) noexcept nogil:
    cdef uint64_t unit = header.unit
    if memcmp(header.magic, MAGIC, sizeof(header.magic)) != 0:
        return b"it is no pool of memlimits"
    if header.version != POOL_VERSION or header.member_size != sizeof(PoolMember):
        return b"it was made by another version of memlimits"
    if (
        header.slots != POOL_SLOTS or header.records != POOL_RECORDS
        or unit < 512 or unit > <uint64_t> 1 << 40 or unit & (unit - 1)
        or header.limit > MOST_UNITS or header.name[LONGEST_POOL_NAME] != 0
    ):
        return b"it is damaged"
    return NULL


cdef void pool_attach(Pool *pool, void *words) noexcept nogil:
    cdef char *start = <char *> words
    pool.header = <PoolHeader *> words
    pool.members = <PoolMember *> (start + size_of_head())
    pool.records = <PoolRecord *> (pool.members + POOL_SLOTS)
    pool.mine = NULL
    pool.shift = 0
    while <uint64_t> 1 << pool.shift < pool.header.unit and pool.shift < 40:
        pool.shift += 1


# ---- words ----

cdef inline uint64_t used_of(uint64_t word) noexcept nogil:
    return word & MOST_UNITS


cdef inline uint64_t held_of(uint64_t word) noexcept nogil:
    return max(word >> FIELD & MOST_UNITS, used_of(word))


cdef inline uint64_t word_of(uint64_t used, uint64_t held) noexcept nogil:
    used = min(used, MOST_UNITS)
    return used | min(max(held, used), MOST_UNITS) << FIELD


cdef uint64_t pool_limit(const Pool *pool) noexcept nogil:
    return pool_bytes(pool, min(load_word(&pool.header.limit), MOST_UNITS))


cdef uint64_t pool_used(const PoolMember *member) noexcept nogil:
    return used_of(load_word(&member.word))


cdef uint64_t pool_held(const PoolMember *member) noexcept nogil:
    return held_of(load_word(&member.word))


cdef inline uint64_t least_of(const PoolMember *member) noexcept nogil:
    return min(load_word(&member.least), MOST_UNITS)


cdef inline uint64_t loose_in(const PoolMember *member, uint64_t word) noexcept nogil:
    return saturating_sub(held_of(word), max(used_of(word), least_of(member)))


cdef PoolMember *pool_end(const Pool *pool) noexcept nogil:
    """Behind the last slot that was ever used."""
    return pool.members + min(load_word(&pool.header.highest), <uint64_t> POOL_SLOTS)


cdef void pool_sums(const Pool *pool, PoolSums *sums) noexcept nogil:
    cdef const PoolMember *member = pool.members
    cdef const PoolMember *behind = pool_end(pool)
    cdef uint64_t word
    memset(sums, 0, sizeof(PoolSums))
    while member < behind:
        if member != pool.mine:
            word = load_word(&member.word)
            sums.held += max(held_of(word), least_of(member))
            sums.used += used_of(word)
            sums.loose += loose_in(member, word)
            sums.members += word != 0
        member += 1


cdef void add_peak(Pool *pool, uint64_t used) noexcept nogil:
    cdef uint64_t before = load_word(&pool.header.peak)
    while used > before and not replace_word(&pool.header.peak, before, used):
        before = load_word(&pool.header.peak)


cdef void pool_note_peak(Pool *pool) noexcept nogil:
    cdef const PoolMember *member = pool.members
    cdef const PoolMember *behind = pool_end(pool)
    cdef uint64_t used = 0
    while member < behind:
        used += pool_used(member)
        member += 1
    if load_word(&pool.header.overruns) == 0:
        # Others may have given and taken between two looks.
        used = min(used, load_word(&pool.header.limit))
    add_peak(pool, used)


cdef bint take_loose_of(Pool *pool, PoolMember *member, uint64_t *need) noexcept nogil:
    cdef uint64_t word = load_word(&member.word)
    cdef uint64_t loose = loose_in(member, word)
    cdef uint64_t n = loose if word & DRAFT else min(loose, need[0])
    if n == 0 or not replace_word(
        &member.word, word, word_of(used_of(word), held_of(word) - n)
    ):
        return False
    need[0] = saturating_sub(need[0], n)
    return True


cdef void take_loose(Pool *pool, uint64_t need, bint all_drafts) noexcept nogil:
    """From others; of those amid a draft only from those that come behind, unless from all."""
    cdef PoolMember *member = pool.members
    cdef PoolMember *behind = pool_end(pool)
    while member < behind and need:
        if member != pool.mine and (
            all_drafts or member > pool.mine or not load_word(&member.word) & DRAFT
        ):
            take_loose_of(pool, member, &need)
        member += 1


cdef bint draw_once(Pool *pool, uint64_t was, uint64_t goal, int tries) noexcept nogil:
    """Whether the draft was made good. Else nothing is changed, or what was loose is taken."""
    cdef uint64_t limit = load_word(&pool.header.limit)
    cdef uint64_t draft = word_of(used_of(was), goal) | DRAFT
    cdef PoolSums sums
    if not replace_word(&pool.mine.word, was, draft):
        return False
    pool_sums(pool, &sums)
    if sums.held + goal > limit:
        take_loose(pool, sums.held + goal - limit, tries > YIELDS)
        pool_sums(pool, &sums)
    if sums.held + goal <= limit:
        return replace_word(&pool.mine.word, draft, draft & ~DRAFT)
    replace_word(&pool.mine.word, draft, was)
    sched_yield()
    return False


cdef bint pool_draw(Pool *pool, uint64_t want, uint64_t ahead) noexcept nogil:
    cdef uint64_t was, limit, room
    cdef PoolSums sums
    cdef int tries = 0
    if want > min(MOST_UNITS, load_word(&pool.mine.most)):
        return False
    while True:
        was = load_word(&pool.mine.word)
        if held_of(was) >= want:
            return True
        limit = load_word(&pool.header.limit)
        pool_sums(pool, &sums)
        if sums.held - sums.loose + want > limit:
            return False
        room = saturating_sub(limit, sums.held + want) // (2 * (sums.members + 1))
        room = min(room, saturating_sub(load_word(&pool.mine.most), want))
        if draw_once(pool, was, want + min(ahead, room), tries):
            return True
        tries += 1


cdef void pool_draw_some(Pool *pool, uint64_t least, uint64_t want) noexcept nogil:
    cdef PoolSums sums
    cdef uint64_t most = want
    while True:
        pool_sums(pool, &sums)
        most = min(most, saturating_sub(load_word(&pool.header.limit), sums.held - sums.loose))
        most = min(most, load_word(&pool.mine.most))
        if most < least or pool_draw(pool, most, 0):
            return


cdef bint pool_take(Pool *pool, uint64_t want) noexcept nogil:
    cdef uint64_t was = load_word(&pool.mine.word)
    while held_of(was) >= want:
        if used_of(was) >= want or replace_word(
            &pool.mine.word, was, word_of(want, held_of(was))
        ):
            note_use(pool, want)
            return True
        was = load_word(&pool.mine.word)
    return False


cdef bint pool_force(Pool *pool, uint64_t want) noexcept nogil:
    cdef uint64_t was
    cdef PoolSums sums
    while True:
        was = load_word(&pool.mine.word)
        if used_of(was) >= want:
            return False
        if replace_word(&pool.mine.word, was, word_of(want, max(want, held_of(was)))):
            pool_sums(pool, &sums)
            return sums.held + want > load_word(&pool.header.limit)


cdef bint pool_settle(Pool *pool, uint64_t used, uint64_t ahead) noexcept nogil:
    cdef uint64_t was, now
    while True:
        was = load_word(&pool.mine.word)
        if used_of(was) <= used and held_of(was) <= used + ahead:
            return False
        now = min(used_of(was), used)
        if now < used_of(was):
            pool_note_peak(pool)
        now = word_of(now, min(held_of(was), now + ahead))
        if was == now or replace_word(&pool.mine.word, was, now):
            note_use(pool, used_of(now))
            return was != now


cdef uint64_t pool_wirable(const Pool *pool) noexcept nogil:
    cdef const PoolMember *member = pool.members
    cdef const PoolMember *behind
    cdef uint64_t others = 0
    if pool.mine == NULL:
        return UINT64_MAX
    behind = pool_end(pool)
    while member < behind:
        if member != pool.mine:
            others = saturating_add(others, load_word(&member.wired))
        member += 1
    return saturating_sub(load_word(&pool.header.wired_limit), others)


cdef bint pool_wire(Pool *pool, uint64_t wired, uint64_t more) noexcept nogil:
    store_word(&pool.mine.wired, wired + more)
    if more == 0 or wired + more <= pool_wirable(pool):
        return True
    store_word(&pool.mine.wired, wired)
    return False


cdef bint pool_guarantee(Pool *pool, uint64_t least) noexcept nogil:
    cdef PoolSums sums
    cdef uint64_t held, before = load_word(&pool.mine.least)
    store_word(&pool.mine.least, least)
    pool_sums(pool, &sums)
    held = max(pool_held(pool.mine), least)
    if sums.held + held > load_word(&pool.header.limit):
        take_loose(pool, sums.held + held - load_word(&pool.header.limit), True)
        pool_sums(pool, &sums)
    if least <= before or sums.held + held <= load_word(&pool.header.limit):
        return True
    store_word(&pool.mine.least, before)
    return False


# ---- waiting ----

cdef inline bint is_waiting(const PoolMember *member, uint64_t now) noexcept nogil:
    return load_word(&member.ticket) != 0 and (
        saturating_sub(now, load_word(&member.seen)) < ABSENT)


cdef uint64_t used_by_waiting(const Pool *pool, uint64_t now) noexcept nogil:
    cdef const PoolMember *member = pool.members
    cdef const PoolMember *behind = pool_end(pool)
    cdef uint64_t used = 0
    while member < behind:
        if member == pool.mine or is_waiting(member, now):
            used += pool_used(member)
        member += 1
    return used


# Where a request stands in line.
cdef struct Place:
    int rank
    uint64_t needs          # of those that are amid something, the one that needs least goes first
    uint64_t ticket


cdef Place place_of(
    uint64_t used, uint64_t needs, uint64_t ticket, uint64_t used_by_all, uint64_t limit
) noexcept nogil:
    cdef Place place
    place.needs, place.ticket = 0, ticket
    if saturating_add(used_by_all, needs) > limit:
        place.rank = 2
    elif needs > used:
        place.rank = 1
    else:
        place.rank, place.needs = 0, needs
    return place


cdef bint comes_before(const Place *one, const Place *other) noexcept nogil:
    if one.rank != other.rank:
        return one.rank < other.rank
    if one.needs != other.needs:
        return one.needs < other.needs
    return one.ticket < other.ticket


cdef Place place_of_member(
    const PoolMember *member, uint64_t used_by_all, uint64_t limit
) noexcept nogil:
    return place_of(
        pool_used(member), load_word(&member.needs), load_word(&member.ticket), used_by_all, limit)


cdef bint pool_is_turn(const Pool *pool, uint64_t needs, uint64_t now) noexcept nogil:
    cdef const PoolMember *member = pool.members
    cdef const PoolMember *behind = pool_end(pool)
    cdef uint64_t limit, used
    cdef Place mine, other
    if not pool_anyone_waits(pool, now):
        return True
    limit = load_word(&pool.header.limit)
    used = used_by_waiting(pool, now)
    if load_word(&pool.mine.ticket):
        # As others see it: by other numbers each of two could take the other for the first.
        mine = place_of_member(pool.mine, used, limit)
    else:
        mine = place_of(pool_used(pool.mine), needs, UINT64_MAX, used, limit)
    while member < behind:
        if member != pool.mine and is_waiting(member, now):
            other = place_of_member(member, used, limit)
            if comes_before(&other, &mine):
                return False
        member += 1
    return True


cdef PoolMember *pool_next(const Pool *pool, uint64_t now) noexcept nogil:
    cdef PoolMember *member = pool.members
    cdef PoolMember *behind = pool_end(pool)
    cdef PoolMember *first = NULL
    cdef uint64_t limit = load_word(&pool.header.limit)
    cdef uint64_t used = used_by_waiting(pool, now)
    cdef Place place, of_first
    while member < behind:
        if is_waiting(member, now):
            place = place_of_member(member, used, limit)
            if first == NULL or comes_before(&place, &of_first):
                first, of_first = member, place
        member += 1
    return first


# ---- safety ----

cdef inline uint64_t wanted_by(const PoolMember *member) noexcept nogil:
    return min(load_word(&member.wants), MOST_UNITS)


# Those who count, packed, with what each may need yet, and what it gives back when it is done.
cdef struct Holders:
    uint32_t count
    uint32_t needs[POOL_SLOTS + 1]
    uint32_t gives[POOL_SLOTS + 1]


cdef inline uint64_t longest_of(const PoolMember *member) noexcept nogil:
    return min(load_word(&member.longest), MOST_UNITS)


cdef bint is_amid(const PoolMember *member) noexcept nogil:
    """Whether it has a good part of what it needed at once, or is about to."""
    cdef uint64_t stays = min(load_word(&member.stays), MOST_UNITS)
    return load_word(&member.pid) != 0 and load_word(&member.longest) != 0 and (
        pool_used(member) + wanted_by(member) >= stays + longest_of(member) // 2)


cdef void add_holder(
    Holders *holders, const PoolMember *member, uint64_t limit
) noexcept nogil:
    """With what it is about to use.

    One that was back is taken to need what it needed then. Another one as much as twice its
    longest: an array, and a second one to put what comes of it.
    """
    cdef uint64_t used = pool_used(member) + wanted_by(member)
    cdef uint64_t stays = min(load_word(&member.stays), used)
    cdef uint64_t most = load_word(&member.most_used)
    if not load_word(&member.was_back) and stays + 2 * longest_of(member) <= limit:
        most = max(most, stays + 2 * longest_of(member))
    holders.needs[holders.count] = <uint32_t> min(saturating_sub(most, used), MOST_UNITS)
    holders.gives[holders.count] = <uint32_t> (used - stays)
    holders.count += 1


cdef uint32_t served(Holders *holders, uint64_t room) noexcept nogil:
    """How many can be served in some order. They are no more in the list then."""
    cdef uint32_t before = holders.count, i = 0
    while i < holders.count:
        if holders.needs[i] <= room:
            room += holders.gives[i]
            holders.count -= 1
            holders.needs[i] = holders.needs[holders.count]
            holders.gives[i] = holders.gives[holders.count]
            i = 0
        else:
            i += 1
    return before - holders.count


cdef void list_holders(const Pool *pool, uint64_t now, Holders *holders) noexcept nogil:
    """But for this one."""
    cdef const PoolMember *member = pool.members
    cdef const PoolMember *behind = pool_end(pool)
    cdef uint64_t limit = load_word(&pool.header.limit)
    holders.count = 0
    while member < behind:
        if member != pool.mine and is_amid(member) and (
            is_waiting(member, now) or saturating_sub(now, load_word(&member.grew)) < OF_LATE
        ):
            add_holder(holders, member, limit)
        member += 1


cdef uint64_t room_beside_all(const Pool *pool) noexcept nogil:
    """With what they want."""
    cdef const PoolMember *member = pool.members
    cdef const PoolMember *behind = pool_end(pool)
    cdef uint64_t room = load_word(&pool.header.limit)
    while member < behind:
        room = saturating_sub(
            room, max(pool_used(member), least_of(member)) + wanted_by(member))
        member += 1
    return room


cdef bint pool_want(Pool *pool, uint64_t n, uint64_t now) noexcept nogil:
    cdef Holders holders
    cdef uint64_t room
    cdef uint32_t before
    cdef uint64_t used = pool_used(pool.mine)
    if pool.mine.longest == 0 or used < pool.mine.stays:
        store_word(&pool.mine.stays, used)
    store_word(&pool.mine.longest, max(pool.mine.longest, n))
    store_word(&pool.mine.grew, now)
    store_word(&pool.mine.wants, n)
    list_holders(pool, now, &holders)
    if holders.count == 0:
        return True
    room = room_beside_all(pool)
    before = served(&holders, room + n)
    if before == 0:
        return True     # nobody is there to be kept from going on
    list_holders(pool, now, &holders)
    add_holder(&holders, pool.mine, load_word(&pool.header.limit))
    # Whoever holds much already is not kept from going on by what it might need after this.
    if served(&holders, room) + (used > load_word(&pool.mine.stays)) > before:
        return True
    store_word(&pool.mine.wants, 0)
    return False


cdef void pool_want_no_more(Pool *pool) noexcept nogil:
    if pool.mine != NULL and load_word(&pool.mine.wants):
        store_word(&pool.mine.wants, 0)


cdef void pool_note_refused(Pool *pool, uint64_t n) noexcept nogil:
    cdef uint64_t most = pool_used(pool.mine) + min(n, MOST_UNITS)
    # What could never have been served is no need of its.
    if pool.mine.most_used < most <= load_word(&pool.header.limit):
        store_word(&pool.mine.most_used, most)


cdef void note_use(Pool *pool, uint64_t used) noexcept nogil:
    cdef uint64_t most = pool.mine.most_used
    if used > most:
        store_word(&pool.mine.most_used, used)
    elif pool.mine.longest and used + pool.mine.longest <= most:
        store_word(&pool.mine.was_back, True)


cdef uint64_t pool_ticket(Pool *pool) noexcept nogil:
    cdef uint64_t ticket = 0
    while ticket == 0:      # which stands for none
        ticket = add_word(&pool.header.tickets, 1) + 1
    return ticket


cdef void pool_wait(
    Pool *pool, uint64_t ticket, uint64_t needs, uint64_t since, uint64_t now
) noexcept nogil:
    store_word(&pool.mine.seen, now)
    store_word(&pool.mine.needs, needs)
    store_word(&pool.mine.since, since)
    store_word(&pool.mine.ticket, ticket)
    store_word(&pool.header.last_waited, now)


cdef void pool_wait_no_more(Pool *pool) noexcept nogil:
    if load_word(&pool.mine.ticket) != 0:
        store_word(&pool.mine.ticket, 0)


cdef bint pool_anyone_waits(const Pool *pool, uint64_t now) noexcept nogil:
    cdef uint64_t last = load_word(&pool.header.last_waited)
    return last != 0 and saturating_sub(now, last) < ABSENT


# ---- others' idle memory ----

cdef void pool_ask(PoolMember *member, uint64_t n) noexcept nogil:
    cdef uint64_t before = load_word(&member.asked)
    while before < n and not replace_word(&member.asked, before, n):
        before = load_word(&member.asked)


# ---- the end of a member ----

cdef void pool_bury(Pool *pool, PoolMember *member, Ending ending) noexcept nogil:
    cdef uint64_t number = add_word(&pool.header.recorded, 1) + 1
    cdef PoolRecord *record = pool.records + (number - 1) % POOL_RECORDS
    pool_note_peak(pool)
    if ending == VANISHED:
        add_word(&pool.header.vanished, 1)
    store_word(&record.number, 0)
    record.ending = ending
    record.member = member[0]
    store_word(&record.number, number)
    store_word(&member.ticket, 0)
    store_word(&member.word, 0)
    store_word(&member.least, 0)
    store_word(&member.wired, 0)
    store_word(&member.asked, 0)
    store_word(&member.pid, 0)
