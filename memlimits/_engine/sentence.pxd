"""What is said of a refusal, in one line, without allocating anything."""

from memlimits._base.lines cimport Line
from memlimits._ledger.calls cimport CallTree
from memlimits._ledger.queue cimport Refusal

# Without a newline.
cdef extern void sentence_put(
    Line *line, const Refusal *refusal, const CallTree *calls) noexcept nogil
# What descriptor 2 is now, before the program, is where lines go; and whether they may go to what
# it is by now: the same file, that of standard output, a terminal, a pipe, or a log, which is a
# file that is opened for appending.
cdef extern void sentence_note_stderr() noexcept nogil
cdef extern bint sentence_may_go_to_stderr() noexcept nogil
# Writes it to stderr, for callers that may not look at NULL, if that is on. A few at once, then one
# a second at most. errno stays, and SIGPIPE is not raised.
cdef extern void sentence_say(const Refusal *refusal, const CallTree *calls) noexcept nogil
cdef extern void sentence_say_from_now_on(bint on) noexcept nogil
