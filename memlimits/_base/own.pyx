from libc.stdlib cimport calloc
from libc.string cimport memset

cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

cdef enum:
    LINE = 64       # of the processor's cache

cdef OwnStep begin, end, objects_begin, objects_end


cdef void own_interposed(OwnStep begin_, OwnStep end_) noexcept nogil:
    global begin, end
    begin, end = begin_, end_


cdef void own_begin() noexcept nogil:
    if begin != NULL:
        begin()


cdef void own_end() noexcept nogil:
    if end != NULL:
        end()


cdef void own_objects_governed(OwnStep begin_, OwnStep end_) noexcept nogil:
    global objects_begin, objects_end
    objects_begin, objects_end = begin_, end_


cdef void own_objects_begin() noexcept nogil:
    own_begin()
    if objects_begin != NULL:
        objects_begin()


cdef void own_objects_end() noexcept nogil:
    if objects_end != NULL:
        objects_end()
    own_end()


cdef void *own_calloc(uint64_t count, uint64_t n) noexcept nogil:
    cdef void *start
    own_begin()
    start = calloc(count, n)
    own_end()
    return start


cdef void *own_lines(uint64_t n) noexcept nogil:
    cdef uint64_t whole = (n + LINE - 1) // LINE * LINE
    cdef void *start
    own_begin()
    start = aligned_alloc(LINE, whole)
    own_end()
    return start if start == NULL else memset(start, 0, whole)
