"""The page map: which resource an address belongs to.

A radix tree over 48-bit addresses, two levels of 2^18 entries, one entry a 4 KiB page; the system
gives what of a node is used. Entries are written under the allocator's lock before the block is
handed out and cleared after it came back, so whoever holds a block may look its address up without
the lock. So may whoever holds memory of another's: no entry of a page that is mapped by others is
set, and nodes, once there, stay.
"""

from libc.stdint cimport uint64_t

from memlimits._resource cimport Resource
from memlimits._sync cimport load_acquire

cdef enum:
    PAGE_BITS = 12
    LEVEL_BITS = 18
    FANOUT = 1 << LEVEL_BITS
    ADDRESS_BITS = PAGE_BITS + 2 * LEVEL_BITS

cdef struct PageMap:
    void **root             # owned, with every node below it
    void *spare             # owned: a node that was not needed, or NULL

cdef int pagemap_init(PageMap *pages) noexcept nogil        # -1 without memory
cdef void pagemap_close(PageMap *pages) noexcept nogil
# Makes [base, base + n) find the resource. -1 without memory, and then nothing is changed. With a
# node to spare, which it takes over, what lies in one node's range cannot fail; else NULL.
cdef int pagemap_add(
    PageMap *pages, Resource *resource, uint64_t n, void *spare) noexcept nogil
# A node to spare. NULL without memory.
cdef void *pagemap_spare(PageMap *pages) noexcept nogil
cdef void pagemap_remove(PageMap *pages, Resource *resource, uint64_t n) noexcept nogil
# The resource that holds the page of an address handed out; NULL for others below 2**48.
cdef inline Resource *pagemap_find(const PageMap *pages, const void *address) noexcept nogil:
    cdef uint64_t page = <uint64_t> address >> PAGE_BITS
    cdef void **node = <void **> pages.root[page >> LEVEL_BITS & (FANOUT - 1)]
    return NULL if node == NULL else <Resource *> node[page & (FANOUT - 1)]

# Whether an address that somebody holds, or NULL, is a block's of ours.
cdef inline bint pagemap_owns(const PageMap *pages, const void *address) noexcept nogil:
    cdef uint64_t page = <uint64_t> address >> PAGE_BITS
    cdef void **node
    if page >> 2 * LEVEL_BITS:
        return False
    # A node may just have been made for an address near by.
    node = <void **> load_acquire(&pages.root[page >> LEVEL_BITS])
    return node != NULL and node[page & (FANOUT - 1)] != NULL
