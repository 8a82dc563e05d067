cimport cython
from cpython.object cimport PyObject
from libc.string cimport memset

from memlimits._base.python cimport attached_thread

import _signal
import sys
from _thread import get_ident

cdef extern from "Python.h":
    """
    /* Whether this thread runs signals' handlers: one that is attached, of the main interpreter. */
    int _PyOS_IsMainThread(void);

    #if PY_VERSION_HEX < 0x030D0000
    #define Py_IsFinalizing _Py_IsFinalizing
    #endif

    #ifdef Py_GIL_DISABLED
    enum { WITHOUT_GIL = 1 };
    #else
    enum { WITHOUT_GIL = 0 };
    #endif
    """
    bint WITHOUT_GIL
    int _PyOS_IsMainThread() nogil
    int Py_IsFinalizing() nogil
    void *PyEval_SaveThread() nogil
    void PyEval_RestoreThread(void *state) nogil
    int PyErr_CheckSignals()
    int PyOS_InterruptOccurred() nogil
    void PyErr_SetInterrupt() nogil
    Py_ssize_t PyGC_Collect()
    PyObject *PyObject_CallNoArgs(PyObject *function)

cdef extern from *:
    """
    static _Thread_local int keeps_gil;     /* whether this thread's C code may not wait */
    """
    int keeps_gil

# A thread that does not run signals' handlers need not be attached to Python until its wait is
# over. So it is in no queue when the interpreter ends, and attaching ends the thread, or never
# comes back. Without the GIL it has to: what other threads let go of is freed by the thread that
# made it, between two steps of Python. It does where the interpreter's end waits for it.


# ---- signals while garbage is collected ----

cdef object code_of(object handler):
    """The code of a signal's handler, or None."""
    for name in ("func", "__func__"):       # of partial functions and methods
        if not hasattr(handler, "__code__"):
            handler = getattr(handler, name, handler)
    if not hasattr(handler, "__code__"):
        handler = type(handler).__call__
    return getattr(handler, "__code__", None)


cdef set codes_of_handlers():
    codes = {code_of(_signal.getsignal(number)) for number in _signal.valid_signals()}
    codes.discard(None)
    return codes


@cython.final
cdef class HandlersErrors:
    """In the place of sys.unraisablehook: keeps the first exception of a signal's handler.

    Finalizers and callbacks of the collector have theirs ignored, and a handler that runs within
    one its own, too.
    """
    cdef object hook, kept
    cdef set codes

    def __call__(self, unraisable):
        if self.kept is None and self.is_handlers(unraisable):
            self.kept = unraisable.exc_value
        else:
            self.hook(unraisable)

    cdef bint is_handlers(self, object unraisable) except -1:
        if not _PyOS_IsMainThread():
            return False
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            return True
        codes = self.codes | codes_of_handlers()
        step = unraisable.exc_traceback
        while step is not None:
            if step.tb_frame.f_code in codes:
                return True
            step = step.tb_next
        return False


cdef int collect_with_signals() except -1:
    """Raises what a signal's handler raises meanwhile. Only by the thread that runs those."""
    cdef HandlersErrors errors = HandlersErrors.__new__(HandlersErrors)
    errors.hook = getattr(sys, "unraisablehook", sys.__unraisablehook__)
    errors.codes = codes_of_handlers()
    sys.unraisablehook = errors
    try:
        PyGC_Collect()
    finally:
        if sys.unraisablehook is errors:
            sys.unraisablehook = errors.hook
    if errors.kept is not None:
        raise errors.kept
    return 0


# ---- who can raise ----

cdef void collect_garbage(WaitHooks *hooks) noexcept with gil:
    hooks.handles_signals = _PyOS_IsMainThread()
    if hooks.handles_signals:
        # What it raises stays set.
        hooks.gave_up = (<int (*)() noexcept> collect_with_signals)() != 0
    else:
        PyGC_Collect()
        hooks.runs_python = WITHOUT_GIL and is_waited_for()


cdef bint is_waited_for() noexcept:
    """Whether the interpreter does not end before this thread."""
    threading = sys.modules.get("threading")
    return threading is not None and any(
        [thread.ident == get_ident() and not thread.daemon for thread in threading.enumerate()])


cdef object step_of_python = eval("lambda: None")


cdef bint runs_python() noexcept with gil:
    """Signals' handlers, and finalizers; whether a handler has raised."""
    return PyErr_CheckSignals() != 0 or (
        WITHOUT_GIL and PyObject_CallNoArgs(<PyObject *> step_of_python) == NULL)


cdef bint python_gives_up(WaitHooks *hooks) noexcept nogil:
    if Py_IsFinalizing() and not hooks.handles_signals:
        return True
    if hooks.handles_signals or hooks.runs_python:
        hooks.gave_up = runs_python()
    return hooks.gave_up


cdef WaitHooks python_wait_hooks() noexcept nogil:
    cdef WaitHooks hooks
    memset(&hooks, 0, sizeof(WaitHooks))
    hooks.begins = collect_garbage
    hooks.gives_up = python_gives_up
    return hooks


# ---- C code ----

cdef void give_up_gil(WaitHooks *hooks) noexcept nogil:
    if attached_thread() != NULL:
        hooks.handles_signals = _PyOS_IsMainThread()
        hooks.state = PyEval_SaveThread()


cdef bint c_gives_up(WaitHooks *hooks) noexcept nogil:
    cdef bint interrupted
    if hooks.state == NULL:
        return False
    if not hooks.handles_signals:
        return Py_IsFinalizing()
    PyEval_RestoreThread(hooks.state)
    interrupted = PyOS_InterruptOccurred()
    if interrupted:
        PyErr_SetInterrupt()
    hooks.state = PyEval_SaveThread()
    return interrupted


cdef void c_wait_hooks_end(WaitHooks *hooks) noexcept nogil:
    if hooks.state != NULL:
        PyEval_RestoreThread(hooks.state)


cdef void c_wait_hooks_allow(bint may) noexcept nogil:
    global keeps_gil
    keeps_gil = not may


cdef WaitHooks c_wait_hooks() noexcept nogil:
    cdef WaitHooks hooks
    memset(&hooks, 0, sizeof(WaitHooks))
    hooks.never_waits = keeps_gil
    hooks.begins = give_up_gil
    hooks.gives_up = c_gives_up
    return hooks
