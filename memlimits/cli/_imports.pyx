"""Tells when NumPy has been imported, and then JAX, wherever and however the program does it.

The interpreter initialises every module of C code by `_imp.exec_dynamic`. The C function behind it
is replaced in place, so nothing that a program can look at changes: not `sys.meta_path`, not a
loader. When the first of NumPy's such modules has been initialised, NumPy is being imported. That
is over when the import system clears a flag of NumPy's specification, before any other thread gets
to see NumPy. Where it has not set the flag (`importlib.util.LazyLoader`), a later module of C code
tells. An import that failed may leave all of NumPy's C code initialised: after it each import of
whatever module tells, when the import system gives its lock back.
"""

import _imp
import sys

from cpython.object cimport PyObject

cdef extern from "Python.h":
    ctypedef void (*PyCFunction)() noexcept
    ctypedef struct PyMethodDef:
        PyCFunction ml_meth
        int ml_flags
    ctypedef struct PyCFunctionObject:
        PyMethodDef *m_ml
    bint PyCFunction_Check(object function)
    int METH_O
    int METH_NOARGS
    ctypedef struct PyInterpreterState
    PyInterpreterState *PyInterpreterState_Get()
    PyInterpreterState *PyInterpreterState_Main()

ctypedef PyObject *(*Function)(PyObject *module, PyObject *argument) noexcept

cdef str PACKAGE = "numpy"
cdef str FIRST = "numpy._core._multiarray_umath"
# What governing needs of the package.
cdef set NEEDED = {"dtype", "empty", "ndarray", "zeros"}

# Called when NumPy is there; None once it has been.
cdef object _then
# Called when JAX is being imported and NumPy is there; None once it has been.
cdef object _then_for_jax
cdef PyMethodDef *_patched
cdef Function _plain
# `_imp.release_lock`, while it is replaced: after an import of NumPy's that failed.
cdef PyMethodDef *_patched_lock
cdef Function _plain_lock


def when_imported(then, then_for_jax):
    """Have a function called as soon as NumPy has been imported; now, if it has been already.

    The other is called when JAX is imported after that.

    Returns
    -------
    bool
        False where that cannot be told.
    """
    global _then, _then_for_jax, _patched, _plain
    _then, _then_for_jax = then, then_for_jax
    function = _imp.exec_dynamic
    if not PyCFunction_Check(function):
        return False
    _patched = (<PyCFunctionObject *> <PyObject *> function).m_ml
    if _patched.ml_flags != METH_O:
        return False
    _plain = <Function> _patched.ml_meth
    _patched.ml_meth = <PyCFunction> _exec_dynamic
    _look()
    return True


cdef PyObject *_exec_dynamic(PyObject *imp, PyObject *module) noexcept:
    """`_imp.exec_dynamic` of every interpreter, until NumPy and JAX are there."""
    cdef PyObject *result = _plain(imp, module)
    if result == NULL or PyInterpreterState_Get() != PyInterpreterState_Main():
        return result
    if _then is not None:
        _look()
    else:
        _look_for_jax()
    return result


cdef void _look() noexcept:
    package = sys.modules.get(PACKAGE)
    if package is None or FIRST not in sys.modules:
        return
    names = object.__getattribute__(package, "__dict__")
    spec = names.get("__spec__")
    if getattr(spec, "_initializing", False):
        _watch(spec)
    elif NEEDED <= names.keys():
        _is_there()


cdef _watch(spec):
    """Watch the end of an import, which sets `_initializing` of the specification to False."""
    plain = type(spec)
    if plain.__module__ == __name__:  # It is being watched.
        return

    class Watched(plain):
        def __setattr__(self, name, value):
            plain.__setattr__(self, name, value)
            if name == "_initializing" and not value:
                plain.__setattr__(self, "__class__", plain)
                if PACKAGE in sys.modules:
                    _is_there()
                else:
                    _has_failed()

    spec.__class__ = Watched


cdef _has_failed():
    """Watch every import that follows."""
    global _patched_lock, _plain_lock
    function = _imp.release_lock
    if _patched_lock != NULL or not PyCFunction_Check(function):
        return
    method = (<PyCFunctionObject *> <PyObject *> function).m_ml
    if method.ml_flags == METH_NOARGS:
        _patched_lock, _plain_lock = method, <Function> method.ml_meth
        method.ml_meth = <PyCFunction> _release_lock


cdef PyObject *_release_lock(PyObject *imp, PyObject *nothing) noexcept:
    """`_imp.release_lock` of every interpreter, until NumPy is there."""
    cdef PyObject *result = _plain_lock(imp, nothing)
    if result != NULL and PyInterpreterState_Get() == PyInterpreterState_Main():
        _look()
    return result


cdef _is_there():
    global _then, _patched_lock
    if _patched_lock != NULL:
        _patched_lock.ml_meth = <PyCFunction> _plain_lock
        _patched_lock = NULL
    then, _then = _then, None
    if then is not None:
        then()


cdef void _look_for_jax() noexcept:
    global _then_for_jax
    if "jaxlib" not in sys.modules:
        return
    if <Function> _patched.ml_meth == _exec_dynamic:
        _patched.ml_meth = <PyCFunction> _plain
    then, _then_for_jax = _then_for_jax, None
    if then is not None:
        then()
