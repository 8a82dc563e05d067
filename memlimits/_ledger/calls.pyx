from libc.stdlib cimport free
from libc.string cimport memcpy, strlen, strncmp, strstr

from memlimits._base.frames cimport (
    file_of_code, function_mark, function_of_code, line_of, python_stack,
)
from memlimits._base.own cimport own_calloc
from memlimits._base.sync cimport add_atomically, load_count, replace_count, store_count

cdef enum:
    TEXTS = 4 << 20         # bytes, of which only those in use are touched
    PROBES = 32
    # A call is at a place that the code says, a site at a line: nobody called it.
    SITE = 2
    NO_PYTHONS = 3          # the site
    FIRST = 8               # number in the tree

    EMPTY = 0
    BEING_MADE = 1
    MADE = 2


cdef int calls_open(CallTree *tree) noexcept nogil:
    cdef Call *calls = <Call *> own_calloc(CALLS, sizeof(Call))
    cdef const char *none = b"code without Python"
    tree.texts = <char *> own_calloc(1, TEXTS)
    if calls == NULL or tree.texts == NULL:
        free(calls)
        free(tree.texts)
        return -1
    tree.used = 1           # the first says nothing
    calls[NO_PYTHON].here = calls[NO_PYTHON].site = NO_PYTHONS
    calls[NO_PYTHONS].function = keep(tree, none, <int> strlen(none))
    tree.calls = calls
    return 0


cdef bint is_library(const CallTree *tree, const char *file) noexcept nogil:
    return (
        strncmp(file, tree.standard, strlen(tree.standard)) == 0
        or strncmp(file, tree.ours, strlen(tree.ours)) == 0
        or strstr(file, b"/site-packages/") != NULL or strstr(file, b"/dist-packages/") != NULL
        or strncmp(file, b"<frozen ", 8) == 0)


cdef uint32_t keep(CallTree *tree, const char *text, int n) noexcept nogil:
    """Where it begins; where there is no room, at one that says nothing."""
    cdef int64_t at = add_atomically(&tree.used, n + 1)
    if at + n + 1 > TEXTS:
        return 0
    memcpy(tree.texts + at, text, n)
    return <uint32_t> at


cdef void complete_site(CallTree *tree, Call *site) noexcept nogil:
    cdef char text[LONGEST_TEXT]
    site.line = site.lasti
    site.file = keep(tree, text, file_of_code(site.code, text, LONGEST_TEXT))
    site.function = keep(tree, text, function_of_code(site.code, text, LONGEST_TEXT))
    site.of_library = is_library(tree, calls_file(tree, site))


cdef void complete_call(CallTree *tree, Call *call) noexcept nogil:
    cdef Call site = call[0]
    cdef uint32_t callers = tree.calls[call.caller].site
    site.caller = SITE
    site.lasti = call.line = line_of(call.code, call.lasti)
    call.here = call.site = find(tree, &site)
    if tree.calls[call.here].of_library and callers and not tree.calls[callers].of_library:
        call.site = callers


cdef inline uint64_t hash_of(const Call *call) noexcept nogil:
    cdef uint64_t mixed = <uint64_t> call.code + call.mark + <uint64_t> call.lasti
    mixed = (mixed ^ mixed >> 31) * <uint64_t> 0x9E3779B97F4A7C15 + call.caller
    return (mixed ^ mixed >> 29) * <uint64_t> 0xBF58476D1CE4E5B9 >> 32


cdef inline bint is_same(const Call *one, const Call *other) noexcept nogil:
    return one.code == other.code and one.caller == other.caller and (
        one.lasti == other.lasti and one.mark == other.mark)


cdef uint32_t find(CallTree *tree, const Call *wanted) noexcept nogil:
    """Its number, once it is in the tree; its caller's where it could not be put there."""
    cdef uint64_t at = hash_of(wanted)
    cdef uint32_t number
    cdef Call *call
    cdef int64_t state
    cdef int _i
    for _i in range(PROBES):
        number = FIRST + <uint32_t> (at % (CALLS - FIRST))
        call = &tree.calls[number]
        state = load_count(&call.state)
        if state == MADE and is_same(call, wanted):
            return number
        if state == BEING_MADE or state == EMPTY and (
            not replace_count(&call.state, EMPTY, BEING_MADE)
        ):
            break
        if state == EMPTY:
            call.code, call.mark = wanted.code, wanted.mark
            call.caller, call.lasti = wanted.caller, wanted.lasti
            if call.caller == SITE:
                complete_site(tree, call)
            else:
                complete_call(tree, call)
            store_count(&call.state, MADE)
            return number
        at += 1
    return wanted.caller


cdef uint32_t calls_here(CallTree *tree) noexcept nogil:
    cdef const void *codes[MOST_FRAMES]
    cdef int lastis[MOST_FRAMES]
    cdef int n = python_stack(codes, lastis, MOST_FRAMES)
    cdef uint32_t number = NO_CALL if n else NO_PYTHON
    cdef Call call
    while n:
        n -= 1
        call.code, call.mark = codes[n], function_mark(codes[n])
        call.caller, call.lasti = number, lastis[n]
        number = find(tree, &call)
    return number or NO_PYTHON
