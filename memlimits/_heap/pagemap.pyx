from libc.stdlib cimport free

from memlimits._base.own cimport own_calloc
from memlimits._base.sync cimport store_release


cdef int pagemap_init(PageMap *pages) noexcept nogil:
    pages.root = <void **> own_calloc(FANOUT, sizeof(void *))
    if pages.root == NULL:
        return -1
    pages.spare = own_calloc(FANOUT, sizeof(void *))
    return 0


cdef void pagemap_close(PageMap *pages) noexcept nogil:
    cdef int i
    if pages.root == NULL:
        return
    for i in range(FANOUT):
        free(pages.root[i])
    free(pages.spare)
    free(pages.root)
    pages.root = NULL


cdef void *pagemap_spare(PageMap *pages) noexcept nogil:
    cdef void *node = pages.spare
    pages.spare = NULL
    return node if node != NULL else own_calloc(FANOUT, sizeof(void *))


cdef void **entry(PageMap *pages, uint64_t address, bint make) noexcept nogil:
    """Where the entry of an address stands; NULL where there is none (to be had)."""
    cdef uint64_t page = address >> PAGE_BITS
    cdef void **leaf
    if address >> ADDRESS_BITS:
        return NULL
    leaf = <void **> pages.root[page >> LEVEL_BITS]
    if leaf == NULL and make:
        leaf = <void **> pagemap_spare(pages)
        store_release(&pages.root[page >> LEVEL_BITS], leaf)
        # For what lies across two nodes. One is there before anybody asks how much room there is.
        if pages.spare == NULL:
            pages.spare = own_calloc(FANOUT, sizeof(void *))
    return NULL if leaf == NULL else &leaf[page & (FANOUT - 1)]


cdef int pagemap_add(
    PageMap *pages, Resource *resource, uint64_t n, void *spare
) noexcept nogil:
    cdef uint64_t page
    cdef void **at
    if pages.spare == NULL:
        pages.spare = spare
    else:
        free(spare)
    for page in range(n >> PAGE_BITS):
        at = entry(pages, <uint64_t> resource.base + (page << PAGE_BITS), True)
        if at == NULL:
            pagemap_remove(pages, resource, page << PAGE_BITS)
            return -1
        store_release(at, resource)
    return 0


cdef bint pagemap_reach(PageMap *pages, const char *base, uint64_t n) noexcept nogil:
    cdef uint64_t start = <uint64_t> base
    return entry(pages, start, True) != NULL and entry(pages, start + n - 1, True) != NULL


cdef bint pagemap_reaches(const PageMap *pages, const char *base, uint64_t n) noexcept nogil:
    cdef uint64_t last = (<uint64_t> base + n - 1) >> PAGE_BITS
    return n <= <uint64_t> FANOUT << PAGE_BITS and (
        load_acquire(&pages.root[last >> LEVEL_BITS]) != NULL)


cdef void write(PageMap *pages, const char *base, uint64_t n, Resource *resource) noexcept nogil:
    cdef uint64_t page
    for page in range(n >> PAGE_BITS):
        store_release(entry(pages, <uint64_t> base + (page << PAGE_BITS), False), resource)


cdef void pagemap_write(PageMap *pages, Resource *resource, uint64_t n) noexcept nogil:
    write(pages, resource.base, n, resource)


cdef void pagemap_remove(PageMap *pages, Resource *resource, uint64_t n) noexcept nogil:
    write(pages, resource.base, n, NULL)


cdef int pagemap_set(
    PageMap *pages, const void *address, Resource *resource
) noexcept nogil:
    cdef void **at = entry(pages, <uint64_t> address, resource != NULL)
    if at == NULL:
        return -1
    store_release(at, resource)
    return 0
