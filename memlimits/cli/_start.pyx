# Functions as C would write them: they have no frames.
# cython: binding=False

"""A program's start, with nothing of ours below it on the stack.

The command leaves by an exception, `Start`. When all its frames are gone the interpreter calls
`sys.excepthook`, which is `_run` meanwhile. That runs the program as the interpreter's own main
function does, by the same functions, which print an exception and exit at `SystemExit`.
"""

import sys

from cpython.object cimport PyObject
from libc.stdio cimport FILE, fclose, stdin
from libc.stdlib cimport getenv
from posix.stdio cimport fdopen
from posix.unistd cimport isatty

cdef extern from *:
    """
    static PyCompilerFlags no_flags = {0, PY_MINOR_VERSION};

    /* Tell the interpreter that an interrupt was left uncaught, so that it ends by SIGINT. It sees
       that only of code that it runs from text itself. */
    static void leave_interrupted(void)
    {
        PyObject *scratch = PyDict_New();
        if (scratch != NULL) {
            PyObject *never = PyRun_StringFlags("raise KeyboardInterrupt", Py_file_input, scratch,
                                                scratch, &no_flags);
            Py_XDECREF(never);
            Py_DECREF(scratch);
        }
        PyErr_Clear();
    }

    /* Take a program's result, or print its exception. */
    static int finish(PyObject *result)
    {
        if (result != NULL) {
            Py_DECREF(result);
            return 0;
        }
        int interrupted = PyErr_Occurred() == PyExc_KeyboardInterrupt;
        PyErr_Print();
        if (interrupted)
            leave_interrupted();
        return -1;
    }

    static int run_module(PyObject *name, int is_named)
    {
        PyObject *runpy = PyImport_ImportModule("runpy");
        if (runpy == NULL)
            return finish(NULL);
        PyObject *result = PyObject_CallMethod(
            runpy, "_run_module_as_main", "OO", name, is_named ? Py_True : Py_False);
        Py_DECREF(runpy);
        return finish(result);
    }

    #if PY_VERSION_HEX >= 0x030D0000
    /* Have tracebacks show the lines of a text. The first of 3.13 know them by the file's name. */
    static PyObject *remember_lines(PyObject *linecache, PyObject *code, const char *text)
    {
        const char *name = "<string>";
        if (PyObject_HasAttrString(linecache, "_interactive_cache"))
            return PyObject_CallMethod(linecache, "_register_code", "Oss", code, text, name);
        return PyObject_CallMethod(linecache, "_register_code", "sss", name, text, name);
    }
    #endif

    static int run_command(const char *text)
    {
        PyCompilerFlags flags = {PyCF_IGNORE_COOKIE, PY_MINOR_VERSION};
    #if PY_VERSION_HEX < 0x030D0000
        return PyRun_SimpleStringFlags(text, &flags);
    #else
        PyObject *code = Py_CompileStringExFlags(text, "<string>", Py_file_input, &flags, -1);
        PyObject *linecache = code == NULL ? NULL : PyImport_ImportModule("linecache");
        PyObject *known = linecache == NULL ? NULL : remember_lines(linecache, code, text);
        PyObject *result = NULL;
        if (known != NULL) {
            PyObject *main = PyModule_GetDict(PyImport_AddModule("__main__"));
            result = PyEval_EvalCode(code, main, main);
        }
        Py_XDECREF(known);
        Py_XDECREF(linecache);
        Py_XDECREF(code);
        return finish(result);
    #endif
    }

    /* A traceback's frame holds the names of the module that ran in it. */
    static void replace_frame(PyObject *traceback, PyObject *frame)
    {
        PyTracebackObject *entry = (PyTracebackObject *)traceback;
        PyObject *before = (PyObject *)entry->tb_frame;
        entry->tb_frame = (PyFrameObject *)Py_NewRef(frame);
        Py_XDECREF(before);
    }

    static int run_file(FILE *file, const char *name, int is_ours)
    {
        return PyRun_AnyFileExFlags(file, name, is_ours, &no_flags);
    }
    """
    int run_module(PyObject *name, int is_named)
    int run_command(const char *text)
    int run_file(FILE *file, const char *name, int is_ours)
    void replace_frame(object traceback, object frame)
    void PyErr_Print()
    int PyErr_CheckSignals()
    int Py_EnterRecursiveCall(const char *where)
    void Py_LeaveRecursiveCall()
    void Py_Exit(int status)

# What `_run` is to run, and before that to call; and the hook that it stands in for.
cdef object _program, _prepare, _hook
cdef FILE *_script


class Start(BaseException):
    """Leaves the command, for the program to be started."""


def open_script(int descriptor):
    """Take over a script's descriptor."""
    global _script
    _script = fdopen(descriptor, "rb")
    if _script == NULL:
        raise MemoryError


def close_script():
    """Give the script up that will not be run."""
    global _script
    if _script != NULL:
        fclose(_script)
        _script = NULL


def leave_for(program, prepare):
    """Run a program after all frames below this one, and `prepare` right before it.

    Parameters
    ----------
    program : tuple of (str, str)
        Its kind, "script", "stdin", "command", "module" or "directory", and what the kind calls
        for: the script's path, the command's text or the module's name.
    prepare : callable
        Puts the interpreter into the state in which it starts a program.

    Raises
    ------
    Start
        Always. It must reach the interpreter uncaught.
    """
    global _program, _prepare, _hook
    _program, _prepare, _hook = program, prepare, sys.excepthook
    sys.excepthook = _run
    raise Start


def _run(kind, error, traceback):
    """`sys.excepthook`, once: run the program."""
    global _hook, _prepare
    sys.excepthook, _hook = _hook, None
    if kind is not Start:
        return sys.excepthook(kind, error, traceback)
    _forget(error, traceback)
    del error, traceback
    prepare, _prepare = _prepare, None
    prepare()
    del prepare
    # The call of this function is not to take from the depth that the program has.
    Py_LeaveRecursiveCall()
    failed = _run_program(_program[0], _program[1]) != 0
    Py_EnterRecursiveCall("")
    if not failed and PyErr_CheckSignals() != 0:
        PyErr_Print()
        failed = True
    # What is left to do for it otherwise the interpreter does: a status of 1, an interrupt's end,
    # or to go on interactively.
    if not (failed or _goes_on_interactively()):
        Py_Exit(0)


cdef _forget(error, traceback):
    """Free what the command's frames held, and what the interpreter noted of them.

    The interpreter itself holds the traceback until the program has ended: its entries all get the
    innermost frame, which is ours. The outermost is that of ``__main__``, whose names are to go
    when nothing of the program's needs them.
    """
    for name in ("last_exc", "last_type", "last_value", "last_traceback"):
        sys.__dict__.pop(name, None)
    error.__traceback__ = None
    entries = []
    while traceback is not None:
        entries.append(traceback)
        traceback = traceback.tb_next
    for entry in entries:
        try:
            entry.tb_frame.clear()
        except RuntimeError:  # Whoever called us has not left it.
            pass
        replace_frame(entry, entries[-1].tb_frame)


cdef int _run_program(str kind, str what) except? -2:
    global _script
    cdef FILE *script = _script
    if kind == "script":
        _script = NULL
        path = what.encode(sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())
        return run_file(script, path, True)
    if kind == "stdin":
        return run_file(stdin, "<stdin>", False)
    if kind == "command":
        text = what.encode()
        return run_command(text)
    return run_module(<PyObject *> what, kind == "module")


cdef bint _goes_on_interactively():
    cdef bint wanted = sys.flags.inspect
    if not sys.flags.ignore_environment:
        value = getenv("PYTHONINSPECT")
        wanted = wanted or (value != NULL and value[0] != 0)
    return wanted and (sys.flags.interactive or isatty(0))
