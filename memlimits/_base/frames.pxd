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

    /* A frame of Python's, or of a caller of it. */
    static struct _PyInterpreterFrame *complete(struct _PyInterpreterFrame *frame)
    {
        while (frame != NULL && _PyFrame_IsIncomplete(frame))
            frame = frame->previous;
        return frame;
    }

    /* The innermost one of this thread, which may be detached from Python. NULL: there is none. */
    static struct _PyInterpreterFrame *innermost_frame(void)
    {
        PyThreadState *thread = INTERPRETER_ENDS() ? NULL : PyGILState_GetThisThreadState();
        if (thread == NULL)
            return NULL;
    #if PY_VERSION_HEX < 0x030D0000
        return complete(thread->cframe->current_frame);
    #else
        return complete(thread->current_frame);
    #endif
    }

    static const void *place_of(struct _PyInterpreterFrame *frame, int *lasti)
    {
        *lasti = _PyInterpreterFrame_LASTI(frame) * (int)sizeof(_Py_CODEUNIT);
    #if PY_VERSION_HEX < 0x030D0000
        return frame->f_code;
    #else
        return _PyFrame_GetCode(frame);
    #endif
    }

    static const void *python_place(int *lasti)
    {
        struct _PyInterpreterFrame *frame = innermost_frame();
        return frame == NULL ? NULL : place_of(frame, lasti);
    }

    static int python_stack(const void **codes, int *lastis, int most)
    {
        struct _PyInterpreterFrame *frame = innermost_frame();
        int n = 0;
        for (; frame != NULL && n < most; frame = complete(frame->previous), n++)
            codes[n] = place_of(frame, &lastis[n]);
        return n;
    }

    /* Tells a function's code from what came to its address later, but for the same function's
     * again. */
    static uint64_t function_mark(const void *place)
    {
        const PyCodeObject *code = place;
        uint64_t mark = (uint64_t)code->co_firstlineno;
        mark = mark * 1000003 + (uint64_t)Py_SIZE((PyObject *)code);
        mark = mark * 1000003 + ((uintptr_t)code->co_qualname >> 4);
        return mark * 1000003 + ((uintptr_t)code->co_filename >> 4);
    }

    static int line_of(const void *code, int lasti)
    {
        return PyCode_Addr2Line((PyCodeObject *)code, lasti);
    }

    /* Its bytes in UTF-8, up to `most`. Nothing is made for it, as for what Python would return. */
    static int text_of(PyObject *string, char *text, int most)
    {
        static const unsigned char first[] = {0, 0xC0, 0xE0, 0xF0};
        int n = 0;
        Py_ssize_t i, length = PyUnicode_GET_LENGTH(string);
        int kind = PyUnicode_KIND(string);
        const void *data = PyUnicode_DATA(string);
        for (i = 0; i < length; i++) {
            Py_UCS4 point = PyUnicode_READ(kind, data, i);
            int more = point < 0x80 ? 0 : point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
            if (n + more >= most)
                break;
            text[n++] = (char)(first[more] | (point >> (6 * more)));
            while (more-- > 0)
                text[n++] = (char)(0x80 | ((point >> (6 * more)) & 0x3F));
        }
        return n;
    }

    static int file_of_code(const void *code, char *text, int most)
    {
        return text_of(((const PyCodeObject *)code)->co_filename, text, most);
    }

    static int function_of_code(const void *code, char *text, int most)
    {
        return text_of(((const PyCodeObject *)code)->co_qualname, text, most);
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
    # The code of this thread's innermost frame, and what a traceback calls tb_lasti. NULL: there is
    # none.
    const void *python_place(int *lasti) nogil
    # Those of all of its frames, the innermost first, `most` of them at most. Returns how many.
    int python_stack(const void **codes, int *lastis, int most) nogil
    # Of code that a frame runs just now: what tells the function from others; its line there; its
    # file and its name, as UTF-8 without a NUL behind, as far as there is room. Returns how long.
    uint64_t function_mark(const void *code) nogil
    int line_of(const void *code, int lasti) nogil
    int file_of_code(const void *code, char *text, int most) nogil
    int function_of_code(const void *code, char *text, int most) nogil
    uint64_t code_mark(const void *place) nogil
