from libc cimport errno
from libc.stdint cimport uint64_t
from libc.stdlib cimport abort
from posix.unistd cimport STDERR_FILENO, write

from memlimits._base.lines cimport Line, put, put_number
from memlimits._heap.resource cimport (
    DETACHED, IDLE, resource_given, slab_bound, slab_has_free, slab_place,
)

cdef void put_signed(Line *line, int64_t number) noexcept nogil:
    if number < 0:
        put(line, b"-")
    put_number(line, -<uint64_t> number if number < 0 else <uint64_t> number, 10)


cdef void put_address(Line *line, const void *address) noexcept nogil:
    put(line, b"0x")
    put_number(line, <uint64_t> address, 16)


cdef void put_block(Line *line, const char *start, uint64_t n) noexcept nogil:
    put(line, b"the block of ")
    put_number(line, n, 10)
    put(line, b" bytes at ")
    put_address(line, start)


cdef void put_what_is_there(
    Line *line, const Resource *resource, const char *address
) noexcept nogil:
    cdef uint64_t n = resource_given(resource) - resource.shift
    cdef const char *start = resource.base + resource.shift
    cdef bint held = resource.use != IDLE and resource.use != DETACHED
    if resource.block_size:
        n = resource.block_size
        start = address - <uint64_t> (address - resource.base) % n
        if slab_place(resource, start) >= slab_bound(resource):
            put(line, b"no block was ever handed out there")
            return
        held = resource.live > 0 and not slab_has_free(resource, start)
    if address != start:
        put(line, b"it is not the start of a block, but ")
        put_number(line, address - start if address > start else start - address, 10)
        put(line, b" bytes inside " if address > start else b" bytes before ")
    put_block(line, start, n)
    if not held:
        put(line, b" was freed before" if address == start else b", which was freed before")
    elif address == start:
        put(line, b" is being resized")


cdef void say_and_abort(Line *line) noexcept nogil:
    put(line, b"\n")
    while write(STDERR_FILENO, line.text, line.length) < 0 and errno.errno == errno.EINTR:
        pass
    abort()


cdef void misuse_abort(
    const Resource *resource, const char *function, const void *address
) noexcept nogil:
    cdef const char *at = <const char *> address
    cdef Line line
    line.length = 0
    put(&line, b"memlimits: ")
    put(&line, function)
    put(&line, b"(")
    put_address(&line, address)
    put(&line, b"): ")
    # The page map takes an address modulo 2^48.
    if resource != NULL and resource.base <= at < resource.base + resource.bytes:
        put_what_is_there(&line, resource, at)
    else:
        put(&line, b"it is not a block of memlimits")
    say_and_abort(&line)


cdef void rule_broken(const char *rule, int64_t one, int64_t other) noexcept nogil:
    cdef Line line
    line.length = 0
    put(&line, b"memlimits: a rule of its own does not hold: ")
    put(&line, rule)
    put(&line, b" (")
    put_signed(&line, one)
    put(&line, b" and ")
    put_signed(&line, other)
    put(&line, b")")
    say_and_abort(&line)
