"""Processes whose malloc is ours, and what malloc's family is to their programs and libraries."""

import os
import subprocess
import textwrap

from support.interposed import LIBRARY
from support.places import TESTS
from support.process import PRELUDE, execute

FAMILY = """
    import errno, sys
    sys.path.append({tests!r})
    from ctypes import (
        CDLL, POINTER, byref, c_char_p, c_int, c_size_t, c_void_p, get_errno, memset, set_errno,
        string_at,
    )
    from memlimits.adapters import _process

    libc = CDLL(None, use_errno=True)

    def function(name, result, *arguments):
        found = getattr(libc, name)
        found.restype, found.argtypes = result, arguments
        return found

    malloc = function("malloc", c_void_p, c_size_t)
    calloc = function("calloc", c_void_p, c_size_t, c_size_t)
    realloc = function("realloc", c_void_p, c_void_p, c_size_t)
    reallocarray = function("reallocarray", c_void_p, c_void_p, c_size_t, c_size_t)
    free = function("free", None, c_void_p)
    usable_size = function("malloc_usable_size", c_size_t, c_void_p)
    posix_memalign = function("posix_memalign", c_int, POINTER(c_void_p), c_size_t, c_size_t)
    aligned_alloc = function("aligned_alloc", c_void_p, c_size_t, c_size_t)
    memalign = function("memalign", c_void_p, c_size_t, c_size_t)
    valloc = function("valloc", c_void_p, c_size_t)
    pvalloc = function("pvalloc", c_void_p, c_size_t)
    PAGE = os.sysconf("SC_PAGE_SIZE")

    def active():
        return memlimits.get_active_memory()

    def strict(limit):
        memlimits.set_memory_policy("strict")
        memlimits.set_memory_limit(limit)
"""


def run(script, *options, preload=LIBRARY, **environment):
    """Run a script with the library preloaded, after the prelude and the family."""
    parts = [PRELUDE, FAMILY.replace("{tests!r}", repr(str(TESTS))), script]
    source = "".join(map(textwrap.dedent, parts)) + "\nprint('done', flush=True)\n"
    environment = {**os.environ, **environment, "LD_PRELOAD": str(preload)}
    done = execute(source, *options, env=environment)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    assert "done\n" in done.stdout
    return done


def compiled(folder, name, source, *flags, language="c"):
    """A library of C, or of C++."""
    folder.mkdir(exist_ok=True)
    library = folder / f"lib{name}.so"
    words = ["c++", "-std=c++17"] if language == "c++" else ["cc"]
    words += ["-shared", "-fPIC", "-pthread", *flags, "-x", language, "-", "-o", library]
    subprocess.run(words, input=source, text=True, check=True)
    return library
