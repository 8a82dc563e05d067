"""What is said of a refusal, in one line, without allocating anything."""

from memlimits._base.lines cimport Line
from memlimits._ledger.queue cimport Refusal

# Without a newline.
cdef extern void sentence_put(Line *line, const Refusal *refusal) noexcept nogil
# Writes it to stderr, for callers that may not look at NULL, if that is on. A few at once, then one
# a second at most. errno stays, and SIGPIPE is not raised.
cdef extern void sentence_say(const Refusal *refusal) noexcept nogil
cdef extern void sentence_say_from_now_on(bint on) noexcept nogil
