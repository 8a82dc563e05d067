"""Where Python's code stands in a thread, read without making anything or running any Python.

Of the interpreter's own headers, whose frames no documented function shows without an object being
made for them.
"""

from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #ifndef Py_BUILD_CORE
    #define Py_BUILD_CORE 1
    #endif
    #pragma GCC diagnostic push
    #pragma GCC diagnostic ignored "-Wextra"
    #if PY_VERSION_HEX >= 0x030E0000
    #include "internal/pycore_interpframe.h"
    #else
    #include "internal/pycore_frame.h"
    #endif
    #pragma GCC diagnostic pop

    #if PY_VERSION_HEX < 0x030D0000
    #define INTERPRETER_ENDS _Py_IsFinalizing
    #else
    #define INTERPRETER_ENDS Py_IsFinalizing
    #endif

    /* The code of the innermost frame of Python in this thread, which may be detached from Python,
     * and what a traceback calls tb_lasti. NULL: there is none. */
    static const void *python_place(int *lasti)
    {
        PyThreadState *thread = INTERPRETER_ENDS() ? NULL : PyGILState_GetThisThreadState();
        if (thread == NULL)
            return NULL;
    #if PY_VERSION_HEX < 0x030D0000
        struct _PyInterpreterFrame *frame = thread->cframe->current_frame;
    #else
        struct _PyInterpreterFrame *frame = thread->current_frame;
    #endif
        while (frame != NULL && _PyFrame_IsIncomplete(frame))
            frame = frame->previous;
        if (frame == NULL)
            return NULL;
        *lasti = _PyInterpreterFrame_LASTI(frame) * (int)sizeof(_Py_CODEUNIT);
    #if PY_VERSION_HEX < 0x030D0000
        return frame->f_code;
    #else
        return _PyFrame_GetCode(frame);
    #endif
    }

    /* Tells a code object from the next one at its address. The code is not to go meanwhile. */
    static uint64_t code_mark(const void *place)
    {
        const PyCodeObject *code = place;
        if (code == NULL)
            return 0;
    #if PY_VERSION_HEX >= 0x030C0000
        return code->co_version;
    #else
        uint64_t mark = (uint64_t)code->co_firstlineno;
        Py_ssize_t n = PyTuple_GET_SIZE(code->co_names);
        mark = mark * 1000003 + (uint64_t)Py_SIZE((PyObject *)code);
        mark = mark * 1000003 + (uint64_t)code->co_stacksize;
        mark = mark * 1000003 + (uint64_t)PyTuple_GET_SIZE(code->co_consts);
        for (Py_ssize_t i = 0; i < n; i++) {
            /* Names are interned, so have been hashed. */
            PyObject *name = PyTuple_GET_ITEM(code->co_names, i);
            mark = mark * 1000003 + (uint64_t)((PyASCIIObject *)name)->hash;
        }
        return mark;
    #endif
    }
    """
    const void *python_place(int *lasti) nogil
    uint64_t code_mark(const void *place) nogil
