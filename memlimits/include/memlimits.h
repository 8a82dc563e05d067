/* memlimits from C: malloc, calloc, realloc and free, from the process's default allocator.
 *
 *     if (memlimits_import() < 0)      // once in every source file, with the GIL
 *         return NULL;
 *     void *block = memlimits->malloc(n);
 *
 * The functions may be called on any thread, with the GIL or without; they neither take it nor give
 * it up. They are as C's, except that
 *
 * - blocks are aligned to 64 bytes, and to the page from 32 KiB on;
 * - no bytes are a block all the same, also to realloc;
 * - NULL is a refusal, whose numbers memlimits.last_refusal() has in Python, on the same thread.
 *
 * Compile with memlimits.get_include() among the include directories. Nothing needs linking.
 */
#ifndef MEMLIMITS_H
#define MEMLIMITS_H

#include <Python.h>

typedef struct memlimits_functions {
    void *(*malloc)(size_t n);
    void *(*calloc)(size_t count, size_t n);
    void *(*realloc)(void *start, size_t n);
    void (*free)(void *start);
} memlimits_functions;

#define MEMLIMITS_CAPSULE "memlimits.functions"

static const memlimits_functions *memlimits;

/* -1 with a Python exception where memlimits cannot be imported. */
static inline int memlimits_import(void)
{
    PyObject *module = PyImport_ImportModule("memlimits._malloc");
    PyObject *capsule = module ? PyObject_GetAttrString(module, "functions") : NULL;
    if (capsule)
        memlimits = (const memlimits_functions *)PyCapsule_GetPointer(capsule, MEMLIMITS_CAPSULE);
    Py_XDECREF(capsule);
    Py_XDECREF(module);
    return memlimits ? 0 : -1;
}

#endif
