"""A budget that processes share: words in a file that all of them map, and the arithmetic on them.

Each member has a slot, and writes into no other's but for what is said here. Its `word` says in one
piece how many units it uses and how many it holds; it holds what it uses, and besides what it drew
ahead. The sum of what all hold, or were guaranteed if that is more, is never above the limit:

- To hold more a member writes down what it wants as a draft, then adds up all slots, and makes it
  good only if the sum is within the limit. Of two who do this at once at least one sees the other.
- What a member holds and does not use, a draft included, others may take from its slot, so no room
  is lost to who does not need it. A draft that was taken cannot be made good.
- No step needs another's help, and a member may end or be stopped between any two: what stands in
  its slot then is what it held. It is for others to find out that it ended (_engine/members).

What is read here may have been written by anybody who may write the file. So no index or length is
taken from it, sums do not wrap, and texts are copied by their room.
"""

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    POOL_SLOTS = 1024
    POOL_RECORDS = 1024
    POOL_VERSION = 1
    MOST_LIMIT = 1 << 29    # units
    LONGEST_COMMAND = 63
    LONGEST_POOL_NAME = 63

cdef enum Ending:
    LEFT
    VANISHED        # ended without leaving: killed, or by _exit

cdef struct PoolMember:
    uint64_t word           # units in use, units held, and whether that is a draft
    uint64_t least          # units that it can always have
    uint64_t most           # and that it may hold at most
    uint64_t pid            # 0: nobody's, with a word of 0
    uint64_t started        # as in mlim_identity
    uint64_t space
    uint64_t priority       # idle memory of those with less of it is asked for first
    uint64_t joined         # ns since 1970
    # Its first request that waits. 0: none.
    uint64_t ticket
    uint64_t needs          # units
    uint64_t since          # ns, by a clock that nobody sets
    uint64_t seen           # likewise: when it last looked whether it can go on
    uint64_t asked          # idle bytes that others want of it, until it has answered
    uint32_t bell           # who wants its process's attention rings it
    uint32_t listens        # a thread of its answers
    uint64_t inherited      # bytes that it has from its parent, and does not use besides it
    # In bytes, as of its last slow step.
    uint64_t active
    uint64_t cached
    uint64_t wired
    uint64_t peak           # of what it uses
    uint64_t refusals
    uint64_t waits
    uint64_t waited         # ns
    uint64_t overruns
    uint64_t returned       # idle bytes that it gave back for others
    # What it may need yet, in units: the most it used; the longest growth; the least it used when
    # it grew by much, which is what stays; and whether it has been back from the most since then,
    # as a worker is between two tasks.
    uint64_t most_used
    uint64_t longest
    uint64_t stays
    uint64_t was_back
    uint64_t grew           # ns, as `seen`: when it last grew by much
    uint64_t wants          # units that it is about to use, if that is safe
    uint64_t _spare[1]
    char command[LONGEST_COMMAND + 1]

# A member that ended.
cdef struct PoolRecord:
    uint64_t number         # counts records from 1; written last
    uint64_t ending
    PoolMember member

cdef struct PoolHeader:
    char magic[8]
    uint64_t version
    uint64_t slots
    uint64_t records
    uint64_t member_size
    uint64_t unit           # bytes; a power of two
    uint64_t made           # ns since 1970
    char name[LONGEST_POOL_NAME + 1]    # empty: of one tree of processes
    uint64_t limit          # units
    uint64_t wired_limit    # bytes
    uint64_t _spare[6]
    # Words that change.
    uint64_t highest        # slots that were ever used
    uint64_t tickets        # given so far
    uint64_t last_waited    # ns, as `seen`: when anyone last waited
    uint64_t recorded       # members that ended
    uint64_t vanished       # those of them that did not leave
    uint64_t peak           # units in use at once, as of when one was to use less
    uint64_t refusals
    uint64_t waits
    uint64_t overruns       # growth of a member past the limit, under guideline
    uint64_t moved          # idle bytes that were given back for others
    uint64_t _more[6]

# What one process has of it.
cdef struct Pool:
    PoolHeader *header      # NULL: nothing
    PoolMember *members
    PoolRecord *records
    PoolMember *mine        # NULL: no member
    unsigned int shift      # of the unit

# The sums over all other members, in units.
cdef struct PoolSums:
    uint64_t held           # or guaranteed
    uint64_t used
    uint64_t loose          # held, neither in use nor guaranteed
    uint64_t members

cdef extern uint64_t pool_size() noexcept nogil
cdef extern void pool_make_header(
    PoolHeader *header, const char *name, uint64_t limit, uint64_t unit,
    uint64_t wired_limit) noexcept nogil
# Whether the first bytes of a file are those of a pool that is understood here. Says why not.
cdef extern const char *pool_why_not(const PoolHeader *header) noexcept nogil
cdef extern void pool_attach(Pool *pool, void *words) noexcept nogil

cdef inline uint64_t pool_units(const Pool *pool, uint64_t n) noexcept nogil:
    return (n >> pool.shift) + ((n & ((<uint64_t> 1 << pool.shift) - 1)) != 0)
cdef inline uint64_t pool_bytes(const Pool *pool, uint64_t units) noexcept nogil:
    return units << pool.shift
cdef extern uint64_t pool_limit(const Pool *pool) noexcept nogil        # bytes
cdef extern uint64_t pool_used(const PoolMember *member) noexcept nogil     # units
cdef extern uint64_t pool_held(const PoolMember *member) noexcept nogil
cdef extern void pool_sums(const Pool *pool, PoolSums *sums) noexcept nogil

# Notes what all use, if that is more than ever. Called before any of them uses less.
cdef extern void pool_note_peak(Pool *pool) noexcept nogil

# A member that is `mine`: it holds so many units, or what it can, once they return. `want` is what
# it takes; `ahead` more where there is enough. False: all together hold too much.
cdef extern bint pool_draw(Pool *pool, uint64_t want, uint64_t ahead) noexcept nogil
# Likewise, as many as there are, if that is `least` at least.
cdef extern void pool_draw_some(Pool *pool, uint64_t least, uint64_t want) noexcept nogil
# It uses so many, or more, of what it holds. False: it holds less by now.
cdef extern bint pool_take(Pool *pool, uint64_t want) noexcept nogil
# It uses so many in any case. Whether that is past the limit.
cdef extern bint pool_force(Pool *pool, uint64_t want) noexcept nogil
# It uses no more than so many, and holds `ahead` more at most. Whether others gain by that.
cdef extern bint pool_settle(Pool *pool, uint64_t used, uint64_t ahead) noexcept nogil
# It wires so many bytes more, of what all may wire together. False: there are not so many left.
cdef extern bint pool_wire(Pool *pool, uint64_t wired, uint64_t more) noexcept nogil
# The bytes that it may wire beside the others. Without a pool: any.
cdef extern uint64_t pool_wirable(const Pool *pool) noexcept nogil
# It is guaranteed so many units, from now on. False: there are not enough.
cdef extern bint pool_guarantee(Pool *pool, uint64_t least) noexcept nogil

# Whether a request of `needs` units, which waits or is new, comes before those of all others.
# Whoever uses as much as it needs comes first: what others wait for it may be about to give back.
# Those come last that cannot be served while all who wait keep what they use. Of each kind it is by
# arrival. Who did not look for long is passed over.
cdef extern bint pool_is_turn(const Pool *pool, uint64_t needs, uint64_t now) noexcept nogil
cdef extern uint64_t pool_ticket(Pool *pool) noexcept nogil
# It wants to grow by so many units, which is much, until it has or says otherwise: whether those
# who grew of late, and could be served what they may need yet before that, can be served after it:
# one after the other, each once those before it have given back what they have. Else processes
# could wait for each other that each hold a part. Of two who want too much at once one is told no.
cdef extern bint pool_want(Pool *pool, uint64_t n, uint64_t now) noexcept nogil
cdef extern void pool_want_no_more(Pool *pool) noexcept nogil
# It was refused so many units: what it needed is more than it had.
cdef extern void pool_note_refused(Pool *pool, uint64_t n) noexcept nogil
cdef extern void pool_wait(
    Pool *pool, uint64_t ticket, uint64_t needs, uint64_t since, uint64_t now) noexcept nogil
cdef extern void pool_wait_no_more(Pool *pool) noexcept nogil
cdef extern bint pool_anyone_waits(const Pool *pool, uint64_t now) noexcept nogil
# The member whose turn it is; NULL if none waits.
cdef extern PoolMember *pool_next(const Pool *pool, uint64_t now) noexcept nogil

# Asks a member for n idle bytes, and whether it has answered.
cdef extern void pool_ask(PoolMember *member, uint64_t n) noexcept nogil
cdef extern PoolMember *pool_end(const Pool *pool) noexcept nogil   # behind the last that ever was

# For whoever has made sure that a member ended: its slot is nobody's.
cdef extern void pool_bury(Pool *pool, PoolMember *member, Ending ending) noexcept nogil
