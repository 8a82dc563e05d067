from libc.string cimport memset

cdef extern from "Python.h":
    int Py_IsInitialized() nogil
    int PyGILState_Check() nogil
    void *PyEval_SaveThread() nogil
    void PyEval_RestoreThread(void *state) nogil
    int PyErr_CheckSignals()
    int PyOS_InterruptOccurred() nogil
    void PyErr_SetInterrupt() nogil
    Py_ssize_t PyGC_Collect()


cdef void collect_garbage(Caller *caller) noexcept with gil:
    PyGC_Collect()


cdef bint is_interrupted(Caller *caller) noexcept with gil:
    return PyErr_CheckSignals() != 0


cdef Caller python_caller() noexcept nogil:
    cdef Caller caller
    memset(&caller, 0, sizeof(Caller))
    caller.begins = collect_garbage
    caller.gives_up = is_interrupted
    return caller


cdef void give_up_gil(Caller *caller) noexcept nogil:
    if Py_IsInitialized() and PyGILState_Check():
        caller.state = PyEval_SaveThread()


cdef bint sees_interrupt(Caller *caller) noexcept nogil:
    cdef bint seen
    if caller.state == NULL:
        return False
    PyEval_RestoreThread(caller.state)
    seen = PyOS_InterruptOccurred()
    if seen:
        PyErr_SetInterrupt()
    caller.state = PyEval_SaveThread()
    return seen


cdef void take_gil_back(Caller *caller) noexcept nogil:
    if caller.state != NULL:
        PyEval_RestoreThread(caller.state)
    caller.gave_up = False      # to the caller it is a refusal like any other


cdef Caller c_caller() noexcept nogil:
    cdef Caller caller
    memset(&caller, 0, sizeof(Caller))
    caller.begins = give_up_gil
    caller.gives_up = sees_interrupt
    caller.ends = take_gil_back
    return caller
