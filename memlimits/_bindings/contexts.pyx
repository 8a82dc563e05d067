cimport cython
from cpython.contextvars cimport PyContextVar_New, PyContextVar_Reset, PyContextVar_Set
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport UINT64_MAX, uint64_t

from memlimits._base.python cimport in_main_interpreter, set_new
from memlimits._base.sync cimport load_acquire
from memlimits._engine.charging cimport charging_close
from memlimits._engine.controls cimport controls_read
from memlimits._engine.reservations cimport reservations_end

cdef extern from "Python.h":
    """
    /* Cython's own way to have the GIL asks PyGILState_Ensure, which waits for it where a thread is
     * attached with another state than its first. */
    #define call_attached(function, core) (function)(core)
    """
    Account *call_attached(Account *(*function)(Core *core) noexcept, Core *core) nogil
    int get_in_context "PyContextVar_Get"(object var, PyObject *default, PyObject **value)
    void drop "Py_DECREF"(PyObject *object)

# An Opened, or nothing.
cdef object innermost = PyContextVar_New("memlimits_account", NULL)


@cython.final
@cython.no_gc
cdef class Opened:
    def __dealloc__(self):
        if self.account != NULL:
            if self.account.reservation:
                # Nobody left it, and nobody can any more.
                reservations_end(self.core, self.account)
            charging_close(self.core, self.account)


cdef PyObject *refuse(PyTypeObject *kind, PyObject *args, PyObject *keywords) except NULL:
    raise TypeError("an Opened is made by opening a budget or a reservation")


# So that none is without an account.
set_new(<PyTypeObject *> Opened, refuse)


cdef Opened new_opened():
    return Opened.__new__(Opened)


cdef Opened opened_here():
    cdef PyObject *value = NULL
    cdef Opened opened
    if get_in_context(innermost, NULL, &value) < 0 or value == NULL:
        return None
    found = <object> value
    drop(value)
    # A program that goes through its context's variables can set this one to anything.
    opened = <Opened> found if isinstance(found, Opened) else None
    while opened is not None and opened.lost:
        opened = opened.outer
    return opened


cdef inline Account *account_of(PyObject *opened) noexcept:
    while (<Opened> opened).lost:
        opened = <PyObject *> (<Opened> opened).outer
        if opened == <PyObject *> None:
            return NULL
    return (<Opened> opened).account


cdef Account *account_here(Core *core) noexcept:
    cdef PyObject *value = NULL
    cdef Account *account = NULL
    if load_acquire(&core.accounts.open) == NULL:
        return NULL
    get_in_context(innermost, NULL, &value)
    if value == NULL:
        return NULL
    if isinstance(<object> value, Opened):      # as above
        account = account_of(value)
    drop(value)     # the context has another
    return account


cdef Account *account_of_caller(Core *core) noexcept nogil:
    if load_acquire(&core.accounts.open) == NULL:
        return NULL
    # Of another interpreter no context has an account.
    if not in_main_interpreter():
        return NULL
    return call_attached(account_here, core)


cdef str path_of(Account *account):
    names = []
    while account != NULL:
        if account.is_budget:
            names.append(account.name.decode())
        account = account.parent
    return "/".join(reversed(names))


cdef list rooms_here(Core *core):
    cdef Account *account = account_here(core)     # the context keeps it, and it those above it
    cdef uint64_t limit, active
    found = []
    while account != NULL:
        limit, active = controls_read(core, &account.limit), controls_read(core, &account.active)
        if limit != UINT64_MAX:
            found.append(("budget", path_of(account), limit - active if limit > active else 0))
        account = account.parent
    return found


cdef object context_enter(Opened opened):
    return PyContextVar_Set(innermost, opened)


cdef int context_leave(object token) except -1:
    PyContextVar_Reset(innermost, token)
    return 0
