"""The allocators that memlimits is measured against, as far as they are installed.

Each is loaded beside the others: none takes malloc's place, since their own names are called.
jemalloc fits only where the C library left room for thread-local storage (see __main__.py).
"""

import contextlib
import ctypes
import ctypes.util
import importlib.metadata
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from compiled import shared_library
from loops import NOTHING, Heap

import memlimits
from memlimits import _malloc

# Local and deep-bound: each calls its own malloc, and nobody else does.
MODE = os.RTLD_NOW | os.RTLD_LOCAL | getattr(os, "RTLD_DEEPBIND", 0)


@dataclass(frozen=True)
class Peer:
    """An allocator that loops.c can call; `fresh` gives back what it holds for reuse."""

    name: str
    version: str
    heap: Heap
    fresh: Callable[[], object]


@dataclass(frozen=True)
class Missing:
    """What is not here, and how to get it."""

    name: str
    remedy: str


def _heap(library: ctypes.CDLL, *names: str) -> Heap:
    return Heap(*(ctypes.cast(library[name], ctypes.c_void_p) for name in names))


def ours() -> Peer:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = get(_malloc.functions, b"memlimits.functions")
    malloc, _, realloc, free = (ctypes.c_void_p * 4).from_address(table)

    def fresh() -> None:
        memlimits.clear_cache()
        memlimits.reset_peak_memory()

    return Peer("memlimits", memlimits.__version__, Heap(malloc, free, realloc), fresh)


def _glibc() -> Peer:
    library = ctypes.CDLL(None)
    library.gnu_get_libc_version.restype = ctypes.c_char_p
    version = library.gnu_get_libc_version().decode()
    return Peer(
        "glibc",
        version,
        _heap(library, "malloc", "free", "realloc"),
        lambda: library.malloc_trim(0),
    )


def mimalloc_path() -> str | None:
    """Find mimalloc: the wheel's, or the system's."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("cmeel-mimalloc") or []:
            if file.name == "libmimalloc.so":
                return str(Path(str(file.locate())).resolve())
    return ctypes.util.find_library("mimalloc")


def _mimalloc() -> Peer | Missing:
    path = mimalloc_path()
    if path is None:
        return Missing("mimalloc", "pip install cmeel-mimalloc")
    library = ctypes.CDLL(path, mode=MODE)
    number = library.mi_version()
    # 30403 is 3.4.3; before version 3 it was 209 for 2.0.9.
    parts = (10000, 100) if number >= 10000 else (100, 10)
    version = f"{number // parts[0]}.{number % parts[0] // parts[1]}.{number % parts[1]}"
    return Peer(
        "mimalloc",
        version,
        _heap(library, "mi_malloc", "mi_free", "mi_realloc"),
        lambda: library.mi_collect(True),
    )


def _tcmalloc() -> Peer | Missing:
    path = ctypes.util.find_library("tcmalloc_minimal") or ctypes.util.find_library("tcmalloc")
    if path is None:
        return Missing("tcmalloc", "apt-get install libtcmalloc-minimal4")
    library = ctypes.CDLL(path, mode=MODE)
    library.tc_version.restype = ctypes.c_char_p
    version = library.tc_version(None, None, None).decode().removeprefix("gperftools ")
    return Peer(
        "tcmalloc",
        version,
        _heap(library, "tc_malloc", "tc_free", "tc_realloc"),
        library.MallocExtension_ReleaseFreeMemory,
    )


def _jemalloc() -> Peer | Missing:
    path = ctypes.util.find_library("jemalloc")
    if path is None:
        return Missing("jemalloc", "apt-get install libjemalloc2")
    try:
        library = ctypes.CDLL(path, mode=MODE)
    except OSError as error:
        return Missing("jemalloc", str(error))
    version, size = ctypes.c_char_p(), ctypes.c_size_t(ctypes.sizeof(ctypes.c_char_p))
    library.mallctl(b"version", ctypes.byref(version), ctypes.byref(size), None, 0)
    number = (version.value or b"?").decode().partition("-")[0]
    # 4096 stands for all arenas.
    purge = lambda: library.mallctl(b"arena.4096.purge", None, None, None, 0)  # noqa: E731
    return Peer("jemalloc", number, _heap(library, "malloc", "free", "realloc"), purge)


def _mlx() -> Peer | Missing:
    try:
        package = Path(str(importlib.metadata.distribution("mlx").locate_file("mlx")))
        version = importlib.metadata.version("mlx")
    except importlib.metadata.PackageNotFoundError:
        return Missing("MLX", "pip install 'mlx[cpu]'")
    folder = package / "lib"
    options = [f"-I{package / 'include'}", f"-L{folder}", "-lmlx", f"-Wl,-rpath,{folder}"]
    library = ctypes.CDLL(str(shared_library("mlx.cpp", *options)), mode=os.RTLD_NOW)
    return Peer("MLX", version, _heap(library, "mlx_malloc", "mlx_free"), library.mlx_clear_cache)


# By the names that they give themselves.
FINDERS: dict[str, Callable[[], Peer | Missing]] = {
    "memlimits": ours,
    "mimalloc": _mimalloc,
    "tcmalloc": _tcmalloc,
    "jemalloc": _jemalloc,
    "glibc": _glibc,
    "MLX": _mlx,
}


def load() -> tuple[dict[str, Peer], list[Missing]]:
    """Return what is here, memlimits first, and what is not."""
    # Were it loaded along with tcmalloc, it would call that malloc for whoever uses it.
    with contextlib.suppress(OSError):
        ctypes.CDLL("libstdc++.so.6", mode=os.RTLD_NOW)
    found = [find() for find in FINDERS.values()]
    peers = {peer.name: peer for peer in found if isinstance(peer, Peer)}
    # The loop's own cost, to see what of a time is not the allocator's.
    peers["loop alone"] = Peer("loop alone", "", NOTHING, lambda: None)
    return peers, [missing for missing in found if isinstance(missing, Missing)]
