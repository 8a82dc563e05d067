/* What includes memlimits.h: the functions of in_cython.pyx. It is compiled as C11 and as C++. */
#define PY_SSIZE_T_CLEAN
#include "memlimits.h"

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

static PyMethodDef methods[] = {
    {"malloc", in_malloc, METH_VARARGS, NULL},
    {"calloc", in_calloc, METH_VARARGS, NULL},
    {"realloc", in_realloc, METH_VARARGS, NULL},
    {"free", in_free, METH_VARARGS, NULL},
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
