"""Pools of processes: files, membership, and what their words say. Paths are bytes or str."""

import os

from libc.errno cimport ENOSPC
from libc.stdint cimport UINT64_MAX, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME
from posix.unistd cimport usleep

from memlimits._base.own cimport own_calloc
from memlimits._base.sync cimport load_word, store_word, time_of
from memlimits._bindings.allocator cimport get_default
from memlimits._device.mlim cimport (
    MLIM_NO_DEVICE, MLIM_NO_MEMORY, MLIM_OK, MLIM_UNSUPPORTED, mlim_error, mlim_status,
)
from memlimits._device.shared cimport (
    mlim_shared, mlim_shared_close, mlim_shared_create, mlim_shared_is, mlim_shared_open,
    mlim_shared_owner, mlim_shared_wake, mlim_shared_words,
)
from memlimits._engine.core cimport Core, core_resume, core_stop
from memlimits._engine.members cimport (
    JOINED, NO_ROOM, NO_SLOT, Joined, members_are_in, members_borrow, members_bury_ended,
    members_give_back, members_join, members_leave,
)
from memlimits._ledger.pool cimport (
    LONGEST_POOL_NAME, MOST_LIMIT, POOL_RECORDS, VANISHED, Pool, PoolHeader, PoolMember, PoolRecord,
    pool_ask, pool_attach, pool_bytes, pool_end, pool_held, pool_make_header, pool_note_peak,
    pool_size, pool_used, pool_why_not,
)

cdef enum:
    A_MOMENT = 2000     # us: who listens answers in a tenth of that, where a processor is idle


cdef object error_of(mlim_status status, const mlim_error *error):
    text = (<const char *> error.message).decode("utf-8", "replace")
    if status == MLIM_NO_MEMORY and error.code != ENOSPC:
        return MemoryError(text)
    if status == MLIM_UNSUPPORTED:
        return FileExistsError(error.code, text)
    if status == MLIM_NO_DEVICE:
        return FileNotFoundError(error.code, text)
    return OSError(error.code, text) if error.code else OSError(text)


def create(
    path, str name, uint64_t limit, unsigned int mode, uint64_t wired_limit=UINT64_MAX
):
    """Make the file of a pool.

    Parameters
    ----------
    path : str or bytes
        Where it is to be; there must be nothing.
    name : str
        The pool's; empty for one of a tree of processes.
    limit : int
        In bytes.
    mode : int
        The file's: who may read it, and who may join.
    wired_limit : int
        Bytes that its members may wire together.
    """
    cdef PoolHeader header
    cdef mlim_error error
    cdef mlim_status status
    cdef bytes where = os.fsencode(path)
    cdef bytes called = name.encode()
    cdef const char *at = where
    cdef Core *core = &get_default().core
    if len(called) > LONGEST_POOL_NAME:
        raise ValueError(f"a pool's name has at most {LONGEST_POOL_NAME} bytes, not {len(called)}")
    pool_make_header(&header, called, limit, core.page_size, wired_limit)
    with nogil:
        status = mlim_shared_create(at, mode, pool_size(), &header, sizeof(header), &error)
    if status != MLIM_OK:
        raise error_of(status, &error)


cdef mlim_shared *open_file(path) except NULL:
    cdef bytes where = os.fsencode(path)
    cdef const char *at = where
    cdef mlim_shared *shared = NULL
    cdef mlim_error error
    cdef mlim_status status
    cdef const char *why
    with nogil:
        status = mlim_shared_open(at, pool_size(), &shared, &error)
    if status != MLIM_OK:
        raise error_of(status, &error)
    why = pool_why_not(<const PoolHeader *> mlim_shared_words(shared))
    if why != NULL:
        mlim_shared_close(shared)
        raise OSError(f"{os.fsdecode(path)}: {why.decode()}")
    return shared


cdef int borrow(path, mlim_shared **shared) except -1:
    """The file at a path; this process's own, if it is that. Whether it is."""
    cdef bytes where = os.fsencode(path)
    cdef mlim_shared *own
    own = members_borrow()
    if own != NULL and mlim_shared_is(own, where):
        shared[0] = own
        return True
    members_give_back()
    shared[0] = open_file(path)
    return False


cdef bint attach(path, mlim_shared **shared, Pool *pool) except -1:
    """Likewise, with its words."""
    cdef Core *core = &get_default().core
    cdef bint own = borrow(path, shared)
    pool_attach(pool, mlim_shared_words(shared[0]))
    if own:
        pool.mine = core.pool.mine
    return own


cdef void done(mlim_shared *shared, bint own) noexcept:
    if own:
        members_give_back()
    else:
        mlim_shared_close(shared)


def join(path, uint64_t least=0, uint64_t most=UINT64_MAX, uint64_t priority=0, bint forced=False):
    """Become a member; how it went: "joined", "no slot", "no room" or "is member"."""
    cdef Core *core = &get_default().core
    cdef mlim_shared *shared
    cdef Joined joined
    cdef mlim_shared *own = members_borrow()
    members_give_back()
    if own != NULL:
        return "is member"
    shared = open_file(path)
    with nogil:
        joined = members_join(core, shared, least, most, priority, forced)
    if joined != JOINED:
        mlim_shared_close(shared)
    return {JOINED: "joined", NO_SLOT: "no slot", NO_ROOM: "no room"}.get(joined, "is member")


def leave():
    """Leave the pool; whether this process was a member."""
    cdef bint was
    with nogil:
        was = members_leave()
    return was


def is_own(path):
    """Whether it is the file of the pool that this process is a member of."""
    cdef bytes where = os.fsencode(path)
    cdef mlim_shared *own = members_borrow()
    cdef bint same = own != NULL and mlim_shared_is(own, where)
    members_give_back()
    return same


cdef double in_seconds(uint64_t since) noexcept:
    """Since 1970, of a time by the clock that nobody sets."""
    return (time_of(CLOCK_REALTIME) - (time_of(CLOCK_MONOTONIC) - <double> since)) / 1e9


cdef dict member_facts(const Pool *pool, const PoolMember *member):
    return {
        "pid": member.pid,
        "command": (<const char *> member.command)[:sizeof(member.command)].split(b"\0")[0].decode(
            "utf-8", "replace"),
        "used": pool_bytes(pool, pool_used(member)),
        "held": pool_bytes(pool, pool_held(member)),
        "minimum": pool_bytes(pool, member.least),
        "maximum": None if member.most == UINT64_MAX else pool_bytes(pool, member.most),
        "priority": member.priority,
        "active": member.active,
        "cached": member.cached,
        "wired": member.wired,
        "inherited": member.inherited,
        "peak": member.peak,
        "waiting_since": in_seconds(member.since) if member.ticket else None,
        "waiting_for": pool_bytes(pool, member.needs) if member.ticket else 0,
        "refusals": member.refusals,
        "waits": member.waits,
        "waited_seconds": member.waited / 1e9,
        "overruns": member.overruns,
        "returned": member.returned,
        "joined": member.joined / 1e9,
    }


cdef bint ring(Pool *pool) noexcept nogil:
    """Has those who listen say what they have by now; whether there are any."""
    cdef PoolMember *member = pool.members
    cdef PoolMember *behind = pool_end(pool)
    cdef bint any = False
    while member < behind:
        if member != pool.mine and load_word(&member.pid) and member.listens:
            mlim_shared_wake(&member.bell)
            any = True
        member += 1
    return any


def refresh(path):
    """Has members say what they have by now: at their slow steps they said it last."""
    cdef mlim_shared *shared
    cdef Pool pool
    cdef Core *core = &get_default().core
    cdef bint own = attach(path, &shared, &pool)
    cdef bint any = ring(&pool)
    done(shared, own)
    with nogil:
        if own:
            core_stop(core)
            core_resume(core, False)
        if any:
            usleep(A_MOMENT)


cdef void *copy_of(path, uint64_t *owner) except NULL:
    """A pool's words as they are, to be freed; members that ended are buried before.

    Nothing of Python's is made while the lock is held that growth takes, too.
    """
    cdef mlim_shared *shared
    cdef Pool pool
    cdef void *copy = own_calloc(1, pool_size())
    cdef bint own
    if copy == NULL:
        raise MemoryError
    try:
        own = attach(path, &shared, &pool)
    except BaseException:
        free(copy)
        raise
    if own and not members_are_in():
        pool.mine = NULL
    pool_note_peak(&pool)
    members_bury_ended(shared, &pool)
    memcpy(copy, mlim_shared_words(shared), pool_size())
    owner[0] = mlim_shared_owner(shared)
    done(shared, own)
    return copy


def read(path, bint ended=False):
    """What a pool's words say, as a dict; of the members that ended, too, if that is asked for."""
    cdef Pool pool
    cdef PoolMember *place
    cdef PoolRecord *record
    cdef uint64_t i, owner = 0
    cdef void *copy
    copy = copy_of(path, &owner)
    try:
        pool_attach(&pool, copy)
        facts = {
            "name": (<const char *> pool.header.name)[:LONGEST_POOL_NAME].split(b"\0")[0].decode(
                "utf-8", "replace"),
            "owner": owner,
            "limit": pool_bytes(&pool, pool.header.limit),
            "unit": pool.header.unit,
            "wired_limit": pool.header.wired_limit,
            "peak": pool_bytes(&pool, pool.header.peak),
            "refusals": pool.header.refusals,
            "waits": pool.header.waits,
            "overruns": pool.header.overruns,
            "moved": pool.header.moved,
            "ended": pool.header.recorded,
            "vanished": pool.header.vanished,
            "made": pool.header.made / 1e9,
        }
        members = []
        place = pool.members
        while place < pool_end(&pool):
            if place.pid:
                members.append(member_facts(&pool, place))
            place += 1
        facts["members"] = members
        if ended:
            records = []
            for i in range(<uint64_t> POOL_RECORDS):
                record = pool.records + i
                if record.number:
                    records.append((record.number, {
                        **member_facts(&pool, &record.member),
                        "ending": "vanished" if record.ending == VANISHED else "left"}))
            facts["ended_members"] = [facts for _number, facts in sorted(
                records, key=lambda pair: pair[0])]
        return facts
    finally:
        free(copy)


def set_limit(path, uint64_t limit):
    """Set a pool's limit, in bytes; the previous one. Members are asked for what is above it."""
    cdef mlim_shared *shared
    cdef Pool pool
    cdef PoolMember *place
    cdef uint64_t before, most
    cdef bint own = attach(path, &shared, &pool)
    before = pool_bytes(&pool, load_word(&pool.header.limit))
    most = pool_bytes(&pool, MOST_LIMIT)
    if limit > most:
        done(shared, own)
        raise ValueError(
            f"this pool's limit can be {most} bytes at most, not {limit}: a new one has no such "
            "bound, since it counts in longer units")
    store_word(&pool.header.limit, limit >> pool.shift)
    place = pool.members
    while limit < before and place < pool_end(&pool):
        if load_word(&place.pid):
            pool_ask(place, before - limit)
            mlim_shared_wake(&place.bell)
        place += 1
    done(shared, own)
    return before
