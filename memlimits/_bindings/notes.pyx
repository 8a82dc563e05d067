"""The refusal that was behind an exception, as a note on it."""

from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport INT64_MAX, uint64_t

from memlimits._base.lines cimport Line
from memlimits._bindings.allocator cimport Allocator, get_default
from memlimits._bindings.arguments cimport shown
from memlimits._engine.refusals cimport refusals_claim
from memlimits._engine.sentence cimport sentence_put, sentence_say_from_now_on
from memlimits._ledger.queue cimport Refusal
from memlimits._ledger.traces cimport Place, traces_any

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
    """
    ctypedef struct PyTracebackObject:
        int tb_lasti
    ctypedef struct PyBaseExceptionObject:
        PyObject *dict
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
    MOST_SIZES = 8
    LONGEST_TEXT = 4096

cdef str NOTES = "__notes__"
cdef str BEGINNING = "memlimits: refused "
# What errors say that are no MemoryErrors: of C and C++, in small letters.
cdef tuple WORDS = (
    "out of memory", "allocat", "insufficient memory", "not enough memory", "bad_alloc",
    "bad alloc", "resource_exhausted", "no memory", "memory exhausted", "enomem", "malloc",
)
# And what lxml says: it has no memory left to note what went wrong.
cdef str UNKNOWN = "unknown error"


# ---- which refusal ----

cdef str text_of(object error):
    try:
        return str(error)[:LONGEST_TEXT]
    except Exception:
        return ""


cdef bint says_so(str text) except -1:
    """Whether it says that there was no memory."""
    text = text.lower()
    for words in WORDS:
        if words in text:
            return True
    return False


cdef int sizes_of(object error, str text, uint64_t *sizes) except -1:
    """The numbers of bytes that it may have been about."""
    cdef int n = 0
    cdef str digits = ""
    args = error.args
    # NumPy's says it in words, and has the array's shape and type.
    if isinstance(error, MemoryError) and len(args) == 2 and type(args[0]) is tuple:
        size = getattr(args[1], "itemsize", None)
        for length in args[0]:
            size = size * length if type(size) is type(length) is int else None
        if size is not None and 0 < size <= INT64_MAX:
            sizes[0] = size
            return 1
    for character in text + " ":
        if "0" <= character <= "9":
            digits += character
        elif digits:
            if n < MOST_SIZES and len(digits) < 19:
                sizes[n] = int(digits)
                n += 1
            digits = ""
    return n


cdef bint find(object error, Refusal *refusal) except -1:
    """The refusal behind an exception that was raised in this process."""
    cdef PyTracebackObject *entry
    cdef Place place
    cdef uint64_t sizes[MOST_SIZES]
    cdef bint recent
    cdef int n
    traceback = error.__traceback__
    if traceback is None:
        return False
    text = text_of(error)
    recent = says_so(text)
    if not (recent or isinstance(error, MemoryError) or text.startswith(UNKNOWN)):
        return False
    entry = innermost_entry(<PyTracebackObject *> <PyObject *> traceback)
    place.code, place.lasti = <const void *> code_of_entry(entry), entry.tb_lasti
    # Of a library's own threads, and where it takes its own part out of the traceback, an error of
    # its C code tells in words, if it is not the system's.
    recent = recent and not isinstance(error, OSError) and not is_raise(entry)
    n = sizes_of(error, text, sizes)
    return refusals_claim(&allocator.core, place, sizes, n, recent, refusal)


cdef object names_of(object error):
    """Its own dictionary, or None."""
    cdef PyObject *names = (<PyBaseExceptionObject *> <PyObject *> error).dict
    return None if names == NULL else <object> names


cdef bint has_note(object error) except -1:
    names = names_of(error)
    notes = None if names is None else names.get(NOTES)
    if isinstance(notes, list):
        for note in notes:
            if isinstance(note, str) and note.startswith(BEGINNING):
                return True
    return False


cdef bint tell(object error) except -1:
    """Adds the note, if a refusal was behind it that no other exception has."""
    cdef Refusal refusal
    cdef Line line
    # A MemoryLimitError has the numbers, and one with the note has its refusal.
    if isinstance(error, MemoryLimitError) or has_note(error) or not find(error, &refusal):
        return False
    line.length = 0
    sentence_put(&line, &refusal)
    note = PyUnicode_DecodeUTF8(line.text, line.length, "replace")
    names = error.__dict__
    notes = names.setdefault(NOTES, [])
    if isinstance(notes, list):
        notes.append(note)
    return True


# ---- the attribute ----

cdef PyObject *find_notes(PyObject *error) except? NULL:
    """A new reference, or NULL. What fails for want of memory leaves it without a note of ours."""
    cdef PyObject *notes
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
    if value != NULL:
        (<object> error).__dict__[NOTES] = <object> value
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


def is_refusal(exception):
    """As `memlimits.errors.is_refusal`."""
    if not isinstance(exception, BaseException):
        raise TypeError(f"exception must be an exception, not {shown(exception)}")
    seen = {}
    left = [exception]
    while left:
        error = left.pop()
        if id(error) in seen:
            continue
        seen[id(error)] = error
        if isinstance(error, MemoryLimitError) or has_note(error) or tell(error):
            return True
        if isinstance(error, BaseExceptionGroup):
            left.extend(error.exceptions)
        if error.__cause__ is not None:
            left.append(error.__cause__)
        elif error.__context__ is not None and not error.__suppress_context__ and (
            isinstance(error, MemoryError) or says_so(text_of(error))
        ):
            left.append(error.__context__)
    return False
