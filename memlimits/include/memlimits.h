/* memlimits from C: malloc and what belongs to it, from the process's default allocator.
 *
 *     if (memlimits_import() < 0)      // once in every source file, with the GIL
 *         return NULL;
 *     void *block = memlimits->malloc(n);
 *
 * The functions may be called on any thread, with the GIL or without; they run no Python, and give
 * the GIL up only to wait for memory, under the policy "wait". They are as C's, except that
 *
 * - blocks are aligned to 64 bytes, and to the page from 32 KiB on;
 * - no bytes are a block all the same, also to realloc;
 * - NULL is a refusal, whose numbers memlimits.last_refusal() has in Python, on the same thread.
 *
 * errno is ENOMEM after a refusal, and as it was before after everything else. An address that is
 * no block which is held ends the process: abort, after a sentence on stderr.
 *
 * Compile with memlimits.get_include() among the include directories. Nothing needs linking.
 */
#ifndef MEMLIMITS_H
#define MEMLIMITS_H

#include <Python.h>
#include <stddef.h>

/* What a refusal's handler is told. */
typedef struct memlimits_refusal {
    size_t requested;       /* bytes */
    const char *blocked_by; /* as MemoryLimitError.blocked_by: "limit", "system", "budget", ... */
    unsigned int attempt;   /* 1, and one more each time that the request was tried again */
} memlimits_refusal;

typedef struct memlimits_refusal_handler {
    int (*refused)(void *state, const memlimits_refusal *refusal);
    void *state;
} memlimits_refusal_handler;

/* Of this layout. What is added later comes behind, so `size` tells whether it is there. */
#define MEMLIMITS_VERSION 1

typedef struct memlimits_functions {
    unsigned int version; /* MEMLIMITS_VERSION of the memlimits that is installed */
    unsigned int size;    /* bytes that its memlimits_functions has */

    void *(*malloc)(size_t n);
    void *(*calloc)(size_t count, size_t n);
    void *(*realloc)(void *start, size_t n);
    void (*free)(void *start);

    /* A block that starts at a multiple of a power of two, for free and realloc, which does not
     * keep the alignment. n is any number. NULL with EINVAL where the alignment is no power of two.
     * Above the page, the bytes that are skipped may count as the block's. */
    void *(*aligned_alloc)(size_t alignment, size_t n);

    /* Bytes of a block that may be used: what was asked for, or more. 0 for NULL. */
    size_t (*usable_size)(const void *start);

    /* As realloc, for NULL and for blocks of calloc and rezalloc: what is longer than before reads
     * as zeros from where it ended. NULL becomes a block of zeros. */
    void *(*rezalloc)(void *start, size_t n);

    /* From now on this handler is called before a request through these functions is refused,
     * NumPy's among them; none with NULL. Returns the one before. As long as it returns other than
     * 0 the request is tried again: it has freed something, or waited. One that never returns 0 has
     * a request tried for ever that nothing can serve, as a new_handler of C++ does; `attempt` is
     * there to give up by. It is the caller's, and stays valid even once it is replaced: other
     * threads may be in it.
     *
     * It runs on the thread that asks, without any lock, and with the GIL if that thread has it. It
     * may call all functions here: what it is refused itself is refused without it. It returns. */
    const memlimits_refusal_handler *(*set_refusal_handler)(
        const memlimits_refusal_handler *handler);
} memlimits_functions;

#define MEMLIMITS_CAPSULE "memlimits.functions_with_size"

static const memlimits_functions *memlimits;

/* How much of memlimits_functions a module uses. One that defines it before, as the offset of a
 * function that was added later, also works where that is missing, and asks for its size. */
#ifndef MEMLIMITS_NEEDED
#define MEMLIMITS_NEEDED sizeof(memlimits_functions)
#endif

/* -1 with a Python exception where memlimits cannot be imported, or is not this header's. */
static inline int memlimits_import(void)
{
    PyObject *module = PyImport_ImportModule("memlimits._malloc");
    PyObject *capsule = module ? PyObject_GetAttrString(module, "functions_with_size") : NULL;
    const memlimits_functions *found = NULL;
    if (capsule)
        found = (const memlimits_functions *)PyCapsule_GetPointer(capsule, MEMLIMITS_CAPSULE);
    Py_XDECREF(capsule);
    int is_old = module && !capsule && PyErr_ExceptionMatches(PyExc_AttributeError);
    Py_XDECREF(module);
    if (is_old || (found && found->size < MEMLIMITS_NEEDED))
        PyErr_SetString(PyExc_ImportError,
                        "the memlimits that is installed is older than the memlimits.h that this "
                        "module was compiled with: upgrade memlimits, or compile the module anew");
    else if (found && found->version != MEMLIMITS_VERSION)
        PyErr_Format(PyExc_ImportError,
                     "this module was compiled with a memlimits.h of version %d, and memlimits is "
                     "of version %u: compile the module anew",
                     MEMLIMITS_VERSION, found->version);
    else
        memlimits = found;
    return memlimits ? 0 : -1;
}

#endif
