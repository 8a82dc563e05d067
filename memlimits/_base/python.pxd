"""What the quick path, our types, and threads need of Python.h."""

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

    /* Has what is dropped go to `by` first, which is to call `before` then. Once: the type stays
     * when its module is made anew. */
    static inline void replace_dealloc(PyTypeObject *type, destructor by, destructor *before)
    {
        if (type->tp_dealloc == by)
            return;
        *before = type->tp_dealloc;
        type->tp_dealloc = by;
    }

    /* Around a few steps on the fields of an object that no other thread is to see half done. Where
     * there is a GIL it is that, as long as they run no Python. Nothing in between may run any. */
    #ifdef Py_GIL_DISABLED
    typedef PyCriticalSection ObjectLock;

    static inline void lock_object(ObjectLock *lock, PyObject *object)
    {
        PyCriticalSection_Begin(lock, object);
    }

    static inline void unlock_object(ObjectLock *lock)
    {
        PyCriticalSection_End(lock);
    }
    #else
    typedef struct { char none; } ObjectLock;

    static inline void lock_object(ObjectLock *Py_UNUSED(lock), PyObject *Py_UNUSED(object))
    {
    }

    static inline void unlock_object(ObjectLock *Py_UNUSED(lock))
    {
    }
    #endif
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

    ctypedef void (*Destructor "destructor")(PyObject *object) noexcept
    void replace_dealloc(PyTypeObject *type, Destructor by, Destructor *before)
    # Whether an exception is under way; not, within __dealloc__.
    PyObject *exception_under_way "PyErr_Occurred"()

    ctypedef struct ObjectLock:
        pass
    void lock_object(ObjectLock *lock, PyObject *object)
    void unlock_object(ObjectLock *lock)

cdef inline bint change_state(object whose, int *state, int before, int after) noexcept:
    """In one step under the object's lock: whether it was that, and is this now."""
    cdef ObjectLock lock
    cdef bint was
    lock_object(&lock, <PyObject *> whose)
    was = state[0] == before
    if was:
        state[0] = after
    unlock_object(&lock)
    return was

# The PyCFunction of METH_FASTCALL | METH_KEYWORDS.
ctypedef PyObject *(*FastFunction)(
    PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *keywords) noexcept

cdef extern from *:
    """
    /* PyGILState_Check() says yes to every thread once there was a subinterpreter. */
    static inline PyThreadState *attached_thread(void)
    {
    #if PY_VERSION_HEX >= 0x030D0000
        return PyThreadState_GetUnchecked();
    #elif PY_VERSION_HEX >= 0x030C0000
        return _PyThreadState_UncheckedGet();
    #else
        /* There is one for all threads: that of the thread with the GIL. PyGILState_* know only the
         * first of a thread's own, which may be of several interpreters. */
        PyThreadState *holder = _PyThreadState_UncheckedGet();
        if (holder == NULL || holder == PyGILState_GetThisThreadState())
            return holder;
        if (!PyGILState_Check())
            return NULL;
        return holder->thread_id == PyThread_get_thread_ident() ? holder : NULL;
    #endif
    }

    static inline int in_main_interpreter(void)
    {
        PyThreadState *thread = attached_thread();
        return thread != NULL && PyThreadState_GetInterpreter(thread) == PyInterpreterState_Main();
    }
    """
    # The state that this thread, whichever it is, is attached to an interpreter with, or NULL.
    void *attached_thread() nogil
    # Whether it is attached to the main interpreter, the one that memlimits is imported in.
    bint in_main_interpreter() nogil
