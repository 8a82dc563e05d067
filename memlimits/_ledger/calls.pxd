"""Where Python's code stood: a tree of calls, each at a place in a function that another called.

A call's site is the line that is told of it: of the program's own code, the innermost that there is
in its stack, else of a library's.

A call is a number, which stays: nothing is taken out of the tree, so that whoever has a number may
read what it says at any time. Calls are added by any thread, without a lock: where two of them add
one at the same place, one has to do with the caller's number.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

cdef enum:
    CALLS = 1 << 16         # numbers that there are
    MOST_FRAMES = 128       # of a stack: the innermost
    LONGEST_TEXT = 1024
    # Of no call in the tree:
    NO_CALL = 0
    NO_PYTHON = 1           # the thread ran none

cdef struct Call:
    int64_t state           # atomic: once it is MADE what follows stays as it is
    const void *code        # an address that is only compared
    uint64_t mark           # of the function whose code was there
    uint32_t caller         # or NO_CALL
    int32_t lasti
    int32_t line
    uint32_t here           # the site of its own line, whoever called it
    uint32_t site
    uint32_t file           # of a site: where its text begins, with a NUL behind
    uint32_t function
    bint of_library

cdef struct CallTree:
    Call *calls             # by number; NULL until it is open
    char *texts
    int64_t used            # of the texts; atomic
    # Files below these are of libraries.
    char standard[LONGEST_TEXT]
    char ours[LONGEST_TEXT]

# Once, under a lock. -1 without memory.
cdef extern int calls_open(CallTree *tree) noexcept nogil
# This thread's innermost call.
cdef extern uint32_t calls_here(CallTree *tree) noexcept nogil
# Of a site, in UTF-8, with surrogates as Python has them.
cdef inline const char *calls_file(const CallTree *tree, const Call *site) noexcept nogil:
    return tree.texts + site.file

cdef inline const char *calls_function(const CallTree *tree, const Call *site) noexcept nogil:
    return tree.texts + site.function
