"""For `cimport memlimits`: memory from Cython, without the GIL. memlimits.h says how it behaves.

The package's own modules name each other in full: what cimports this file imports _malloc.
"""

from memlimits._malloc cimport (
    RefusalHandler, Refused, aligned_alloc, calloc, free, malloc, realloc, rezalloc,
    set_refusal_handler, usable_size,
)
