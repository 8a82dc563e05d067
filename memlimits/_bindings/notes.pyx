"""The refusal that was behind an exception, as a note on it."""

from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.errno cimport ENOMEM
from libc.stdint cimport INT64_MAX, int64_t, uint64_t

from memlimits._base.frames cimport code_mark
from memlimits._base.lines cimport Line
from memlimits._bindings.allocator cimport Allocator, get_default
from memlimits._bindings.arguments cimport shown
from memlimits._engine.refusals cimport refusals_claim
from memlimits._engine.sentence cimport (
    sentence_may_go_to_stderr, sentence_note_stderr, sentence_put, sentence_say_from_now_on,
)
from memlimits._ledger.queue cimport Refusal
from memlimits._ledger.traces cimport Clue, MOST_SIZES, Place, traces_any

import sys

from memlimits.errors import MemoryLimitError

cdef extern from "Python.h":
    """
    #include "opcode.h"

    typedef PyObject *(*notes_getter)(PyObject *error);
    typedef int (*notes_setter)(PyObject *error, PyObject *value);
    static notes_getter find_notes;
    static notes_setter keep_notes;

    static void say_missing(PyObject *error)
    {
        PyErr_Format(PyExc_AttributeError, "'%.100s' object has no attribute '__notes__'",
                     Py_TYPE(error)->tp_name);
    }

    /* Where there is no memory for the error, it is as if there were no notes: whoever prints an
     * exception is to go on. */
    static PyObject *get_notes(PyObject *error, void *Py_UNUSED(closure))
    {
        PyObject *notes = find_notes(error);
        if (notes != NULL || PyErr_Occurred())
            return notes;
        say_missing(error);
        if (PyErr_ExceptionMatches(PyExc_AttributeError))
            return NULL;
        PyErr_Clear();
        return PyTuple_New(0);
    }

    static int set_notes(PyObject *error, PyObject *value, void *Py_UNUSED(closure))
    {
        int kept = keep_notes(error, value);
        if (kept > 0)
            say_missing(error);
        return kept == 0 ? 0 : -1;
    }

    static PyGetSetDef notes_getset = {"__notes__", get_notes, set_notes, NULL, NULL};

    /* Puts an attribute into BaseException, which no statement of Python's can, unless it has one.
     */
    static int put_into_exceptions(notes_getter find, notes_setter keep)
    {
        PyTypeObject *type = (PyTypeObject *)PyExc_BaseException;
    #if PY_VERSION_HEX >= 0x030C0000
        PyObject *names = PyType_GetDict(type);
    #else
        PyObject *names = Py_XNewRef(type->tp_dict);
    #endif
        PyObject *name = names == NULL ? NULL : PyUnicode_InternFromString("__notes__");
        int done = name == NULL ? -1 : PyDict_Contains(names, name);
        if (done == 0) {
            find_notes = find;
            keep_notes = keep;
            PyObject *descriptor = PyDescr_NewGetSet(type, &notes_getset);
            done = descriptor == NULL ? -1 : PyDict_SetItem(names, name, descriptor);
            Py_XDECREF(descriptor);
            if (done == 0)
                PyType_Modified(type);
        }
        Py_XDECREF(name);
        Py_XDECREF(names);
        return done < 0 ? -1 : 0;
    }

    /* The code of one entry of a traceback, which its frame has. */
    static PyCodeObject *code_of_entry(PyTracebackObject *entry)
    {
        PyCodeObject *code = PyFrame_GetCode(entry->tb_frame);
        Py_DECREF(code);
        return code;
    }

    /* How many units the code has that C code adds to tracebacks for its own functions. */
    static Py_ssize_t empty_length;

    static int measure_empty(void)
    {
        PyCodeObject *code = PyCode_NewEmpty("", "", 1);
        if (code == NULL)
            return -1;
        empty_length = Py_SIZE((PyObject *)code);
        Py_DECREF(code);
        return 0;
    }

    /* The innermost entry of Python's code. No code as short as what C code adds allocates. */
    static PyTracebackObject *innermost_entry(PyTracebackObject *entry)
    {
        PyTracebackObject *innermost = entry;
        for (; entry != NULL; entry = entry->tb_next)
            if (Py_SIZE((PyObject *)code_of_entry(entry)) > empty_length)
                innermost = entry;
        return innermost;
    }

    /* Whether a statement raised there. */
    static int is_raise(PyTracebackObject *entry)
    {
        PyObject *bytes = PyCode_GetCode(code_of_entry(entry));
        if (bytes == NULL)
            return -1;
        int at = entry->tb_lasti;
        int raises = at >= 0 && at < PyBytes_GET_SIZE(bytes)
                     && (unsigned char)PyBytes_AS_STRING(bytes)[at] == RAISE_VARARGS;
        Py_DECREF(bytes);
        return raises;
    }

    /* A new reference to what the exception has, or NULL: whatever a class of the program's says
     * instead of it. */
    static PyObject *args_of(PyObject *error)
    {
    #if PY_VERSION_HEX >= 0x030C0000
        return PyException_GetArgs(error);
    #else
        return Py_XNewRef(((PyBaseExceptionObject *)error)->args);
    #endif
    }

    static PyObject *members_of(PyObject *error)
    {
        if (!PyObject_TypeCheck(error, (PyTypeObject *)PyExc_BaseExceptionGroup))
            return NULL;
        return Py_XNewRef(((PyBaseExceptionGroupObject *)error)->excs);
    }

    static int is_context_shown(PyObject *error)
    {
        return !((PyBaseExceptionObject *)error)->suppress_context;
    }

    /* Whether its very type is one of C's, as all of the interpreter's own are. */
    static int is_of_builtin_type(PyObject *error)
    {
        return !PyType_HasFeature(Py_TYPE(error), Py_TPFLAGS_HEAPTYPE);
    }

    static int is_of(PyObject *object, PyObject *type)
    {
        return PyObject_TypeCheck(object, (PyTypeObject *)type);
    }
    """
    ctypedef struct PyTracebackObject:
        int tb_lasti
    ctypedef struct PyBaseExceptionObject:
        PyObject *dict
    PyObject *args_of(PyObject *error)
    PyObject *members_of(PyObject *error)
    PyObject *PyException_GetCause(PyObject *error)
    PyObject *PyException_GetContext(PyObject *error)
    PyObject *PyException_GetTraceback(PyObject *error)
    bint is_context_shown(PyObject *error)
    bint is_of_builtin_type(PyObject *error)
    bint is_of(PyObject *object, PyObject *type)
    bint PyExceptionInstance_Check(PyObject *object)
    object PyObject_GenericGetDict(object error, void *closure)
    void Py_DECREF "Py_XDECREF"(PyObject *object)
    ctypedef PyObject *(*notes_getter)(PyObject *error) except? NULL
    ctypedef int (*notes_setter)(PyObject *error, PyObject *value) except -1
    int put_into_exceptions(notes_getter find, notes_setter keep) except -1
    PyObject *code_of_entry(PyTracebackObject *entry)
    int measure_empty() except -1
    PyTracebackObject *innermost_entry(PyTracebackObject *entry)
    int is_raise(PyTracebackObject *entry) except -1
    void Py_INCREF "Py_XINCREF"(PyObject *object)

cdef Allocator allocator = get_default()
measure_empty()

cdef enum:
    LONGEST_TEXT = 4096

cdef str NOTES = "__notes__"
cdef str BEGINNING = "memlimits: refused "
# What errors say that are no MemoryErrors: of C and C++, in small letters.
cdef tuple WORDS = (
    "out of memory", "insufficient memory", "not enough memory", "bad_alloc", "bad alloc",
    "resource_exhausted", "no memory", "memory exhausted", "enomem",
)
# Or one of each.
cdef tuple ASKED = ("allocat", "malloc")
cdef tuple FAILED = (
    "unable", "fail", "cannot", "can't", "can not", "could not", "couldn't", "bytes",
)
# And what lxml says, which has no memory left to note what went wrong, and the interpreter of a
# thread.
cdef tuple BEGINNINGS = ("unknown error", "can't start new thread")
# Of the types of Python's own those whose errors libraries in C make of it. What looks something
# up has the program's words in its text.
cdef tuple MAYBE = (
    MemoryError, RuntimeError, OSError, SystemError, ValueError, TypeError, BufferError, Exception,
)


# ---- what an exception has ----
#
# Of C's structs, and no code of the program's is called: who looks for notes may be a method that
# its class has in place of one of Python's.

cdef object owned(PyObject *found):
    """Of a new reference or NULL, which is None."""
    if found == NULL:
        return None
    kept = <object> found
    Py_DECREF(found)
    return kept


cdef tuple arguments_of(object error):
    args = owned(args_of(<PyObject *> error))
    return args if type(args) is tuple else ()


cdef str text_of(object error):
    """The texts among its arguments."""
    cdef str text = ""
    for argument in arguments_of(error):
        if type(argument) is str:
            text += (<str> argument)[:LONGEST_TEXT]
            text += " "
        if len(text) >= LONGEST_TEXT:
            break
    return text


cdef bint is_among(str text, tuple words) except -1:
    for word in words:
        if <str> word in text:
            return True
    return False


cdef bint says_so(str text) except -1:
    """Whether it says that there was no memory."""
    text = text.lower()
    return is_among(text, WORDS) or is_among(text, ASKED) and is_among(text, FAILED)


# ---- which refusal ----

cdef Place place_of_entry(PyTracebackObject *entry) noexcept:
    cdef Place place
    place.code = <const void *> code_of_entry(entry)
    place.mark = code_mark(place.code)
    place.lasti = entry.tb_lasti
    return place


cdef bint may_be_one(object error) except -1:
    """Whether errors of its type may be about memory."""
    cdef tuple args
    if not is_of_builtin_type(<PyObject *> error):
        return True
    if type(error) is OSError:
        # The system's own, if it is not about a file or whatever else.
        args = arguments_of(error)
        return not args or type(args[0]) is not int or args[0] == ENOMEM
    for kind in MAYBE:
        if type(error) is kind:
            return True
    return False


cdef int64_t bytes_of_array(tuple args) except -1:
    """Those that NumPy's own MemoryError is about: it has the array's shape and type. Else 0."""
    if len(args) != 2 or type(args[0]) is not tuple:
        return 0
    numpy = sys.modules.get("numpy")
    kind = vars(numpy).get("dtype") if type(numpy) is type(sys) else None
    if not is_of(<PyObject *> kind, <PyObject *> type):
        return 0
    if not is_of(<PyObject *> args[1], <PyObject *> kind):
        return 0
    size = args[1].itemsize
    for length in <tuple> args[0]:
        size = size * length if type(length) is int else 0
    return size if 0 < size <= INT64_MAX else 0


cdef int sizes_in(str text, uint64_t *sizes) except -1:
    """The numbers of bytes that it may be about."""
    cdef int n = 0
    cdef str digits = ""
    for character in text + " ":
        if "0" <= character <= "9":
            digits += character
        elif digits:
            if n < MOST_SIZES and len(digits) < 19:
                sizes[n] = int(digits)
                n += 1
            digits = ""
    return n


cdef bint find(object error, object traceback, Refusal *refusal) except -1:
    """The refusal behind an exception that was raised in this process, with that traceback."""
    cdef PyTracebackObject *entry
    cdef Clue clue
    cdef str text
    cdef bint says
    cdef bint is_memory_error = is_of(<PyObject *> error, <PyObject *> MemoryError)
    if traceback is None or not may_be_one(error):
        return False
    text = text_of(error)
    says = says_so(text)
    if not (says or is_memory_error or text.startswith(BEGINNINGS)):
        return False
    entry = innermost_entry(<PyTracebackObject *> <PyObject *> traceback)
    clue.place = place_of_entry(entry)
    clue.sizes[0] = bytes_of_array(arguments_of(error)) if is_memory_error else 0
    clue.exact = clue.sizes[0] != 0
    clue.n = 1 if clue.exact else sizes_in(text, clue.sizes)
    # Of a library's own threads, and where it takes its own part out of the traceback, an error of
    # its C code tells in words, of a type of its own or one that C++ has.
    says = says and (
        not is_of_builtin_type(<PyObject *> error)
        or type(error) in (MemoryError, RuntimeError, SystemError, Exception)
    )
    says = says and not is_of(<PyObject *> error, <PyObject *> OSError) and not is_raise(entry)
    return refusals_claim(&allocator.core, &clue, says, refusal)


cdef dict names_of(object error):
    """Its own dictionary, or None."""
    cdef PyObject *names = (<PyBaseExceptionObject *> <PyObject *> error).dict
    return None if names == NULL else <dict> names


cdef bint has_note(object error) except -1:
    cdef dict names = names_of(error)
    notes = None if names is None else names.get(NOTES)
    if isinstance(notes, list):
        for note in <list> notes:
            if isinstance(note, str) and (<str> note).startswith(BEGINNING):
                return True
    return False


cdef bint is_told(object error) except -1:
    """Whether it has its refusal by itself, or by the note."""
    return is_of(<PyObject *> error, <PyObject *> MemoryLimitError) or has_note(error)


cdef object traceback_of(object error):
    return owned(PyException_GetTraceback(<PyObject *> error))


cdef object told_by(object error):
    """The exception that says what happened: of what C code went on with, an error without a
    traceback, the interpreter makes one that does not say.
    """
    if type(error) is SystemError:
        cause = owned(PyException_GetCause(<PyObject *> error))
        if is_of(<PyObject *> cause, <PyObject *> MemoryError) and traceback_of(cause) is None:
            return cause
    return error


cdef bint tell(object error) except -1:
    """Adds the note, if a refusal was behind it that no other exception has."""
    cdef Refusal refusal
    cdef Line line
    if is_told(error) or not find(told_by(error), traceback_of(error), &refusal):
        return False
    line.length = 0
    sentence_put(&line, &refusal, &allocator.core.calls)
    note = PyUnicode_DecodeUTF8(line.text, line.length, "replace")
    notes = (<dict> PyObject_GenericGetDict(error, NULL)).setdefault(NOTES, [])
    if isinstance(notes, list):
        (<list> notes).append(note)
    return True


# ---- the attribute ----

cdef PyObject *find_notes(PyObject *error) except? NULL:
    """A new reference, or NULL. What fails for want of memory leaves it without a note of ours."""
    cdef PyObject *notes
    cdef dict names
    if traces_any(&allocator.core.traces):
        try:
            tell(<object> error)
        except Exception:
            pass
    names = names_of(<object> error)
    if names is None or NOTES not in names:
        return NULL
    found = names[NOTES]
    notes = <PyObject *> found
    Py_INCREF(notes)
    return notes


cdef int keep_notes(PyObject *error, PyObject *value) except -1:
    """Sets them, or deletes them where the value is NULL. 1: there were none."""
    cdef dict names
    if value != NULL:
        (<dict> PyObject_GenericGetDict(<object> error, NULL))[NOTES] = <object> value
        return 0
    names = names_of(<object> error)
    if names is None or NOTES not in names:
        return 1
    del names[NOTES]
    return 0


def put_on():
    """Have every exception find its note of ours among its notes, for good."""
    put_into_exceptions(find_notes, keep_notes)


def say_at_once(on):
    """Have what code that knows nothing of us is refused be written to stderr at once, or not."""
    sentence_say_from_now_on(on)


def note_stderr():
    """Have lines go to what descriptor 2 is now, before the program may have another file there."""
    sentence_note_stderr()


def may_go_to_stderr():
    """Whether lines may go to what descriptor 2 is by now; not into a file that took its place."""
    return sentence_may_go_to_stderr()


cdef object source_of(object error):
    """The exception that it was raised from, or instead of, if it is of that; else None."""
    cause = owned(PyException_GetCause(<PyObject *> error))
    if cause is not None or not is_context_shown(<PyObject *> error):
        return cause
    if is_of(<PyObject *> error, <PyObject *> MemoryError) or says_so(text_of(error)):
        return owned(PyException_GetContext(<PyObject *> error))
    return None


def is_refusal(exception):
    """As `memlimits.errors.is_refusal`."""
    if not PyExceptionInstance_Check(<PyObject *> exception):
        raise TypeError(f"exception must be an exception, not {shown(exception)}")
    seen = {}
    left = [exception]
    while left:
        error = left.pop()
        # C code may have put anything there.
        if id(error) in seen or not PyExceptionInstance_Check(<PyObject *> error):
            continue
        seen[id(error)] = error
        if is_told(error) or tell(error):
            return True
        members = owned(members_of(<PyObject *> error))
        if type(members) is tuple:
            left.extend(<tuple> members)
        source = source_of(error)
        if source is not None:
            left.append(source)
    return False
