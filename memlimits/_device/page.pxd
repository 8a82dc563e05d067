"""objc/page.h, word for word."""

from libc.stdint cimport uint64_t

cdef extern from "page.h" nogil:
    const char *MLIM_PAGE_MAGIC
    enum:
        MLIM_PAGE_VERSION
        MLIM_PAGE_WORDS

    ctypedef struct mlim_page:
        char magic[8]
        uint64_t version
        uint64_t pid
        uint64_t started
        uint64_t space
        uint64_t began
        uint64_t words[MLIM_PAGE_WORDS]

    mlim_page *mlim_page_of_self()
    void mlim_page_forget()
