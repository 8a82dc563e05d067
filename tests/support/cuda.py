"""Programs that use CUDA: over the stand-in for its driver, and on a GPU where there is one."""

import os
import subprocess
import textwrap

import pytest

from support.places import TESTS
from support.process import run

SOURCE = TESTS / "fake_cuda" / "cuda.c"

# What a program may use besides: addresses are those of blocks and arrays.
GPU = """
    import memlimits.cuda

    driver = ctypes.CDLL(os.environ.get("MEMLIMITS_LIBCUDA") or "libcuda.so.1")
    ADDRESS, SIZE = ctypes.c_void_p, ctypes.c_size_t
    driver.cuMemcpyHtoD_v2.argtypes = driver.cuMemcpyDtoH_v2.argtypes = [ADDRESS, ADDRESS, SIZE]
    driver.cuMemAlloc_v2.argtypes = [ctypes.POINTER(ADDRESS), SIZE]
    driver.cuMemFree_v2.argtypes = driver.cuCtxPushCurrent_v2.argtypes = [ADDRESS]
    driver.cuPointerGetAttribute.argtypes = [ADDRESS, ctypes.c_int, ctypes.c_ulonglong]
    driver.cuMemHostRegister_v2.argtypes = [ADDRESS, SIZE, ctypes.c_uint]

    def ok(result):
        assert result == 0, result

    def gpu(ordinal=0):
        device = ctypes.c_int()
        ok(driver.cuInit(0))
        ok(driver.cuDeviceGet(ctypes.byref(device), ordinal))
        return device

    @contextlib.contextmanager
    def in_context(ordinal=0):
        context, device = ADDRESS(), gpu(ordinal)
        ok(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
        ok(driver.cuCtxPushCurrent_v2(context))
        yield
        ok(driver.cuCtxPopCurrent_v2(ctypes.byref(context)))
        ok(driver.cuDevicePrimaryCtxRelease_v2(device))

    def current():
        context = ADDRESS()
        ok(driver.cuCtxGetCurrent(ctypes.byref(context)))
        return context.value

    def is_pinned(address):
        kind = ctypes.c_uint()
        with in_context():
            return driver.cuPointerGetAttribute(ctypes.byref(kind), 2, address) == 0

    def as_the_gpu_reads(address, n):
        # What a copy to the GPU has.
        memory, copy = ADDRESS(), bytearray(n)
        with in_context():
            ok(driver.cuMemAlloc_v2(ctypes.byref(memory), n))
            ok(driver.cuMemcpyHtoD_v2(memory, address, n))
            back = (ctypes.c_char * n).from_buffer(copy)
            ok(driver.cuMemcpyDtoH_v2(ctypes.addressof(back), memory, n))
            ok(driver.cuMemFree_v2(memory))
        return bytes(copy)

    def at(array):
        return array.__array_interface__["data"][0]

    def fill(block, byte):
        memoryview(block).cast("B")[:] = bytes([byte]) * block.nbytes

    def set_fake(name, value):
        driver.fake_cuda_set(name.encode(), ctypes.c_longlong(value))

    def get_fake(name):
        driver.fake_cuda_get.restype = ctypes.c_longlong
        return driver.fake_cuda_get(name.encode())

    def refused(device=None):
        # Nothing changes, and the reason is told.
        before = memory.counters()
        try:
            memlimits.cuda.attach(device).close()
        except (memlimits.DeviceError, ValueError, TypeError) as error:
            assert memory.counters() == before
            return f"{type(error).__name__}: {error}"

    def registered():
        return memlimits.stats().registered
"""


def has_gpu():
    """Whether the driver is there and sees one. It is asked in a process of its own."""
    program = """
count, driver = ctypes.c_int(), ctypes.CDLL("libcuda.so.1")
assert driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
assert count.value
"""
    if not os.path.exists("/dev/nvidiactl"):
        return False
    words = ["python3", "-c", program]
    return subprocess.run(words, capture_output=True).returncode == 0


CARDS = ["stand-in", "gpu"] if has_gpu() else ["stand-in"]
needs_gpu = pytest.mark.skipif("gpu" not in CARDS, reason="there is no GPU with CUDA here")


def build(folder, *flags):
    """Compile the stand-in; return its path."""
    library = folder / f"libcuda{''.join(flags)}.so"
    words = ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-shared", "-fPIC"]
    words += ["-fvisibility=hidden", "-pthread", *flags]
    subprocess.run([*words, SOURCE, "-o", library], check=True)
    return library


class Card:
    """A GPU, or the stand-in, that scripts are run on."""

    def __init__(self, library):
        self.library = library  # None: the driver's own
        self.is_real = library is None

    def words(self, **environment):
        if not self.is_real:
            environment.setdefault("MEMLIMITS_LIBCUDA", self.library)
            environment["LD_PRELOAD"] = self.library
        return ["env", *(f"{name}={value}" for name, value in environment.items())]

    def run(self, script, *options, words=(), environment=(), **keywords):
        script = textwrap.dedent(GPU) + textwrap.dedent(script)
        words = [*words, *self.words(**dict(environment))]
        return run(script, *options, words=words, **keywords)
