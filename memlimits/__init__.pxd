"""For `cimport memlimits`: memory from Cython, without the GIL. memlimits.h says how it behaves.

The package's own modules name each other in full: what cimports this file imports _malloc.
"""

from memlimits._malloc cimport calloc, free, malloc, realloc
