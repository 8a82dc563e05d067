"""The page map: which resource an address belongs to.

A radix tree over 48-bit addresses, two levels of 2^18 entries, one entry a 4 KiB page; the system
gives what of a node is used. Entries are written under the allocator's lock before the block is
handed out and cleared after it came back, so whoever holds a block may look its address up without
the lock. So may whoever holds any other address: nodes, once there, stay, and a page has an entry
only as long as it is the allocator's, so nothing is found for memory of others.
"""

from libc.stdint cimport uint64_t

from memlimits._base.sync cimport load_acquire
from memlimits._heap.resource cimport Resource

cdef enum:
    PAGE_BITS = 12
    LEVEL_BITS = 18
    FANOUT = 1 << LEVEL_BITS
    ADDRESS_BITS = PAGE_BITS + 2 * LEVEL_BITS

cdef struct PageMap:
    void **root             # owned, with every node below it
    void *spare             # owned: the next node, or NULL

cdef extern int pagemap_init(PageMap *pages) noexcept nogil        # -1 without memory
cdef extern void pagemap_close(PageMap *pages) noexcept nogil
# Makes [base, base + n) find the resource. -1 without memory, and then nothing is changed. With a
# node to spare, which it takes over, what lies in one node's range cannot fail; else NULL.
cdef extern int pagemap_add(
    PageMap *pages, Resource *resource, uint64_t n, void *spare) noexcept nogil
# A node to spare. NULL without memory.
cdef extern void *pagemap_spare(PageMap *pages) noexcept nogil
# Makes the nodes of the first and the last byte of [base, base + n): what then is added there, and
# is no longer than a node reaches, cannot fail. False without memory.
cdef extern bint pagemap_reach(PageMap *pages, const char *base, uint64_t n) noexcept nogil
# Whether that is so, if `base` is in the map; and adds what then cannot fail. Without the lock, by
# whom all of it belongs to.
cdef extern bint pagemap_reaches(
    const PageMap *pages, const char *base, uint64_t n) noexcept nogil
cdef extern void pagemap_write(PageMap *pages, Resource *resource, uint64_t n) noexcept nogil
cdef extern void pagemap_remove(PageMap *pages, Resource *resource, uint64_t n) noexcept nogil
# The page of one address finds a resource, or none with NULL. -1 without memory; never with NULL.
cdef extern int pagemap_set(
    PageMap *pages, const void *address, Resource *resource) noexcept nogil
# The resource that holds the page of an address below 2^48, as the map knows it: every page of what
# can be a slab, the first of what is longer. NULL for other pages.
cdef inline Resource *pagemap_find(const PageMap *pages, const void *address) noexcept nogil:
    cdef uint64_t page = <uint64_t> address >> PAGE_BITS
    cdef void **node = <void **> load_acquire(&pages.root[page >> LEVEL_BITS & (FANOUT - 1)])
    return NULL if node == NULL else <Resource *> load_acquire(&node[page & (FANOUT - 1)])

# The resource of a block of ours; NULL for any other address that somebody holds, and for NULL.
cdef inline Resource *pagemap_find_any(
    const PageMap *pages, const void *address
) noexcept nogil:
    return NULL if <uint64_t> address >> ADDRESS_BITS else pagemap_find(pages, address)
