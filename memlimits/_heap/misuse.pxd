"""What C code does that ends its process, as its own malloc would: an address that is no block.

The sentence is written to stderr without allocating anything, and locks stay as they are.
"""

from memlimits._heap.resource cimport Resource

# Ends the process with a sentence: which function was given which address, and what is there, in
# this resource or, where it is NULL, in none. The lock of the resource's heap is held.
cdef extern void misuse_abort(
    const Resource *resource, const char *function, const void *address) noexcept nogil
