/* What includes memlimits.h: the functions of in_cython.pyx. It is compiled as C11 and as C++. */
#define PY_SSIZE_T_CLEAN
#include "memlimits.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static PyObject *as_address(void *start)
{
    return PyLong_FromSize_t((size_t)start);
}

static PyObject *in_malloc(PyObject *self, PyObject *args)
{
    Py_ssize_t n;
    void *start;
    (void)self;
    if (!PyArg_ParseTuple(args, "n", &n))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    start = memlimits->malloc((size_t)n);
    Py_END_ALLOW_THREADS
    return as_address(start);
}

static PyObject *in_calloc(PyObject *self, PyObject *args)
{
    Py_ssize_t count, n;
    void *start;
    (void)self;
    if (!PyArg_ParseTuple(args, "nn", &count, &n))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    start = memlimits->calloc((size_t)count, (size_t)n);
    Py_END_ALLOW_THREADS
    return as_address(start);
}

static PyObject *in_realloc(PyObject *self, PyObject *args)
{
    Py_ssize_t address, n;
    void *start;
    (void)self;
    if (!PyArg_ParseTuple(args, "nn", &address, &n))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    start = memlimits->realloc((void *)address, (size_t)n);
    Py_END_ALLOW_THREADS
    return as_address(start);
}

static PyObject *in_free(PyObject *self, PyObject *args)
{
    Py_ssize_t address;
    (void)self;
    if (!PyArg_ParseTuple(args, "n", &address))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    memlimits->free((void *)address);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *in_aligned_alloc(PyObject *self, PyObject *args)
{
    Py_ssize_t n;
    size_t alignment;
    void *start;
    (void)self;
    if (!PyArg_ParseTuple(args, "nn", (Py_ssize_t *)&alignment, &n))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    start = memlimits->aligned_alloc(alignment, (size_t)n);
    Py_END_ALLOW_THREADS
    return as_address(start);
}

static PyObject *in_usable_size(PyObject *self, PyObject *args)
{
    Py_ssize_t address;
    size_t n;
    (void)self;
    if (!PyArg_ParseTuple(args, "n", &address))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    n = memlimits->usable_size((void *)address);
    Py_END_ALLOW_THREADS
    return PyLong_FromSize_t(n);
}

static PyObject *in_rezalloc(PyObject *self, PyObject *args)
{
    Py_ssize_t address, n;
    void *start;
    (void)self;
    if (!PyArg_ParseTuple(args, "nn", &address, &n))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    start = memlimits->rezalloc((void *)address, (size_t)n);
    Py_END_ALLOW_THREADS
    return as_address(start);
}

/* errno after each function is called with errno 77: {name: (errno after a success, after a
 * refusal)}, -1 for what is never refused. */
static PyObject *in_errnos(PyObject *self, PyObject *args)
{
    Py_ssize_t fits, too_much;
    int given[7] = {0}, refused[7] = {0};
    void *block, *other;
    (void)self;
    if (!PyArg_ParseTuple(args, "nn", &fits, &too_much))
        return NULL;
    size_t n = (size_t)fits, most = (size_t)too_much;
#define NOTED(where, statement) \
    do {                        \
        errno = 77;             \
        statement;              \
        where = errno;          \
    } while (0)
    NOTED(given[0], block = memlimits->malloc(n));
    NOTED(refused[0], other = memlimits->malloc(most));
    NOTED(given[1], memlimits->free(block));
    NOTED(given[2], block = memlimits->calloc(n, 1));
    NOTED(refused[2], other = memlimits->calloc(most, 1));
    NOTED(given[3], block = memlimits->realloc(block, 3 * n));
    NOTED(refused[3], other = memlimits->realloc(block, most));
    NOTED(given[4], memlimits->usable_size(block));
    memlimits->free(block);
    block = memlimits->calloc(1, n);
    NOTED(given[5], block = memlimits->rezalloc(block, 3 * n));
    NOTED(refused[5], other = memlimits->rezalloc(block, most));
    memlimits->free(block);
    NOTED(given[6], block = memlimits->aligned_alloc(65536, n));
    NOTED(refused[6], other = memlimits->aligned_alloc(65536, most));
    memlimits->free(block);
    (void)other;
    return Py_BuildValue("{s(ii)s(ii)s(ii)s(ii)s(ii)s(ii)s(ii)}", "malloc", given[0], refused[0],
                         "free", given[1], -1, "calloc", given[2], refused[2], "realloc", given[3],
                         refused[3], "usable_size", given[4], -1, "rezalloc", given[5], refused[5],
                         "aligned_alloc", given[6], refused[6]);
}

/* errno after one call with errno 77, for arguments that no number of bytes has. */
static PyObject *in_errno_of(PyObject *self, PyObject *args)
{
    const char *name;
    Py_ssize_t first, second;
    void *start = NULL;
    (void)self;
    if (!PyArg_ParseTuple(args, "snn", &name, &first, &second))
        return NULL;
    errno = 77;
    if (strcmp(name, "calloc") == 0)
        start = memlimits->calloc((size_t)first, (size_t)second);
    else
        start = memlimits->aligned_alloc((size_t)first, (size_t)second);
    int after = errno;
    memlimits->free(start);
    return Py_BuildValue("(ii)", start != NULL, after);
}

/* A handler that frees what it was given, a block each time, and then gives up. */
static void *spare[8];
static int spares, calls, most_attempts;
static char causes[64];

static int free_one(void *state, const memlimits_refusal *refusal)
{
    calls++;
    if ((int)refusal->attempt > most_attempts)
        most_attempts = (int)refusal->attempt;
    strncpy(causes, refusal->blocked_by, sizeof causes - 1);
    /* Its own requests are refused without it. */
    if (state && memlimits->malloc(2 * refusal->requested))
        abort();
    if (!spares)
        return 0;
    memlimits->free(spare[--spares]);
    return 1;
}

static memlimits_refusal_handler freeing = {free_one, NULL}, asking = {free_one, &freeing};

/* handle(asks, *blocks): from now on these are freed, one a refusal. What is returned says whether
 * a handler was set before. */
static PyObject *in_handle(PyObject *self, PyObject *args)
{
    (void)self;
    spares = calls = most_attempts = 0;
    causes[0] = 0;
    for (Py_ssize_t i = 1; i < PyTuple_GET_SIZE(args); i++)
        spare[spares++] = PyLong_AsVoidPtr(PyTuple_GET_ITEM(args, i));
    int asks = PyObject_IsTrue(PyTuple_GET_ITEM(args, 0));
    return PyBool_FromLong(memlimits->set_refusal_handler(asks ? &asking : &freeing) != NULL);
}

static PyObject *in_handled(PyObject *self, PyObject *args)
{
    (void)self;
    (void)args;
    memlimits->set_refusal_handler(NULL);
    return Py_BuildValue("(iiis)", calls, most_attempts, spares, causes);
}

static PyMethodDef methods[] = {
    {"malloc", in_malloc, METH_VARARGS, NULL},
    {"calloc", in_calloc, METH_VARARGS, NULL},
    {"realloc", in_realloc, METH_VARARGS, NULL},
    {"free", in_free, METH_VARARGS, NULL},
    {"aligned_alloc", in_aligned_alloc, METH_VARARGS, NULL},
    {"usable_size", in_usable_size, METH_VARARGS, NULL},
    {"rezalloc", in_rezalloc, METH_VARARGS, NULL},
    {"errnos", in_errnos, METH_VARARGS, NULL},
    {"errno_of", in_errno_of, METH_VARARGS, NULL},
    {"handle", in_handle, METH_VARARGS, NULL},
    {"handled", in_handled, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, MODULE_NAME, NULL, -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC MODULE_INIT(void)
{
    if (memlimits_import() < 0)
        return NULL;
    return PyModule_Create(&definition);
}
