"""What the quick path, and types that only functions make, need of Python.h."""

from cpython.object cimport PyObject, PyTypeObject

cdef extern from *:
    """
    /* The value of an int of one digit, so below 2^30; -1 for any other object. */
    static inline Py_ssize_t small_int(PyObject *object)
    {
        if (!PyLong_CheckExact(object))
            return -1;
    #if PY_VERSION_HEX >= 0x030C0000
        PyLongObject *number = (PyLongObject *)object;
        return PyUnstable_Long_IsCompact(number) ? PyUnstable_Long_CompactValue(number) : -1;
    #else
        Py_ssize_t size = Py_SIZE(object);
        return size == 0 || size == 1 ? size * ((PyLongObject *)object)->ob_digit[0] : -1;
    #endif
    }

    /* A new reference to an object that was deallocated, and whose memory was not freed. */
    static inline PyObject *revive(PyObject *object)
    {
    #if defined(Py_REF_DEBUG) || defined(Py_GIL_DISABLED)
        return PyObject_Init(object, Py_TYPE(object));
    #else
        Py_SET_REFCNT(object, 1);
        return object;
    #endif
    }

    /* Has every way to call the type, or its __new__, end in `made`. Cython code that knows the
       type does not come by here. */
    static inline void set_new(PyTypeObject *type, newfunc made)
    {
        type->tp_new = made;
        type->tp_vectorcall = NULL;
    }
    """
    ctypedef void (*PyCFunction)() noexcept
    ctypedef struct PyMethodDef:
        PyCFunction ml_meth
    ctypedef struct PyCFunctionObject:
        PyMethodDef *m_ml

    Py_ssize_t small_int(PyObject *object)
    PyObject *revive(PyObject *object)
    ctypedef PyObject *(*NewFunction "newfunc")(
        PyTypeObject *type, PyObject *args, PyObject *keywords) except NULL
    void set_new(PyTypeObject *type, NewFunction made)

# The PyCFunction of METH_FASTCALL | METH_KEYWORDS.
ctypedef PyObject *(*FastFunction)(
    PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *keywords) noexcept
