/* A library that knows of no limits: it allocates here or on a thread of its own, without the GIL,
 * and raises an error of its own where there is no memory. */
#define PY_SSIZE_T_CLEAN
#include "memlimits.h"

#include <pthread.h>

struct task {
    size_t n;
    void *start;
};

static void *allocate(void *given)
{
    struct task *task = given;
    task->start = memlimits->malloc(task->n);
    return NULL;
}

static PyObject *finish(struct task *task, const char *text)
{
    if (task->start == NULL) {
        PyErr_SetString(PyExc_RuntimeError, text);
        return NULL;
    }
    memlimits->free(task->start);
    Py_RETURN_NONE;
}

static PyObject *here(PyObject *self, PyObject *args)
{
    struct task task = {0, NULL};
    const char *text;
    Py_ssize_t n;
    (void)self;
    if (!PyArg_ParseTuple(args, "ns", &n, &text))
        return NULL;
    task.n = (size_t)n;
    Py_BEGIN_ALLOW_THREADS
    allocate(&task);
    Py_END_ALLOW_THREADS
    return finish(&task, text);
}

static PyObject *in_pool(PyObject *self, PyObject *args)
{
    struct task task = {0, NULL};
    const char *text;
    Py_ssize_t n;
    pthread_t thread;
    (void)self;
    if (!PyArg_ParseTuple(args, "ns", &n, &text))
        return NULL;
    task.n = (size_t)n;
    Py_BEGIN_ALLOW_THREADS
    if (pthread_create(&thread, NULL, allocate, &task) == 0)
        pthread_join(thread, NULL);
    Py_END_ALLOW_THREADS
    return finish(&task, text);
}

static PyMethodDef methods[] = {
    {"here", here, METH_VARARGS, "here(n, text): None, or a RuntimeError of that text"},
    {"in_pool", in_pool, METH_VARARGS, "the same on a thread of its own"},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "pool", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_pool(void)
{
    if (memlimits_import() < 0)
        return NULL;
    return PyModule_Create(&module);
}
