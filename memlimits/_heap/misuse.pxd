"""What ends the process: an address that is no block, as C's own malloc would; a broken rule.

The sentence is written to stderr without allocating anything, and locks stay as they are.
"""

from libc.stdint cimport int64_t

from memlimits._heap.resource cimport Resource

# Ends the process with a sentence: which function was given which address, and what is there, in
# this resource or, where it is NULL, in none. The lock of the resource's heap is held.
cdef extern void misuse_abort(
    const Resource *resource, const char *function, const void *address) noexcept nogil
# The same for a rule of the core's own that does not hold, and the two numbers that it compares.
cdef extern void rule_broken(const char *rule, int64_t one, int64_t other) noexcept nogil
