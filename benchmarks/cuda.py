"""Measure wired memory that is registered with CUDA, on a machine with a GPU of NVIDIA's.

python benchmarks/cuda.py [--rounds N] [--most MIB] [--json FILE]

Sides alternate within one run, and ratios are medians of those within a round. The GPU is driven
through its driver's library; where there is PyTorch, its pinned allocator is a side, too.
"""

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np

import memlimits
import memlimits.cuda

MIB = 1 << 20
BATCH = 64 * MIB
ODD, ODD_COUNT = 70 * MIB, 8

cuda = ctypes.CDLL(os.environ.get("MEMLIMITS_LIBCUDA") or "libcuda.so.1")
for name, arguments in {
    "cuMemcpyHtoD_v2": [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t],
    "cuMemcpyDtoH_v2": [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t],
    "cuMemHostAlloc": [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_uint],
    "cuMemFreeHost": [ctypes.c_void_p],
    "cuMemAlloc_v2": [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t],
    "cuMemFree_v2": [ctypes.c_void_p],
    "cuCtxPushCurrent_v2": [ctypes.c_void_p],
}.items():
    getattr(cuda, name).argtypes = arguments


def call(name, *arguments):
    result = getattr(cuda, name)(*arguments)
    if result:
        raise RuntimeError(f"{name}: error {result}")


def enter():
    """Make the first GPU's primary context this thread's."""
    device, context = ctypes.c_int(), ctypes.c_void_p()
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call("cuCtxPushCurrent_v2", context)
    name, version = ctypes.create_string_buffer(100), ctypes.c_int()
    call("cuDeviceGetName", name, 100, device)
    call("cuDriverGetVersion", ctypes.byref(version))
    return {"gpu": name.value.decode(), "cuda": version.value / 1000}


def on_gpu(n):
    memory = ctypes.c_void_p()
    call("cuMemAlloc_v2", ctypes.byref(memory), n)
    return memory


def host_alloc(n):
    memory = ctypes.c_void_p()
    call("cuMemHostAlloc", ctypes.byref(memory), n, 1)
    ctypes.memset(memory, 1, n)
    return memory


def seconds(step, times=1):
    began = time.perf_counter()
    for _ in range(times):
        step()
    return (time.perf_counter() - began) / times


def alternate(sides, rounds):
    """Seconds of each side, a list a side; which is first changes from round to round."""
    for step in sides.values():
        step()
    found = {name: [] for name in sides}
    for number in range(rounds):
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        for name in order:
            times = max(1, int(0.02 / max(seconds(sides[name]), 1e-6)))
            found[name].append(seconds(sides[name], times))
    return found


def ratio(found, base, side):
    """How much faster `side` is than `base`: the median over the rounds."""
    return statistics.median(a / b for a, b in zip(found[base], found[side], strict=True))


class Report:
    def __init__(self):
        self.rows = []

    def judge(self, what, value, bound, at_least=True):
        met = value >= bound if at_least else value <= bound
        sign = ">=" if at_least else "<="
        self.rows.append({"what": what, "value": value, "bound": bound, "met": met})
        print(f"  {what}: {value:.3f} ({sign} {bound}) {'met' if met else 'MISSED'}", flush=True)

    def note(self, what, value):
        self.rows.append({"what": what, "value": value})
        print(f"  {what}: {value:.4g}", flush=True)


def copies(report, most, rounds):
    print("copies of registered blocks, over those of cuMemHostAlloc")
    for n in (n for n in (MIB, 4 * MIB, 16 * MIB, 64 * MIB, 256 * MIB, 1024 * MIB) if n <= most):
        block = memlimits.empty(n, np.uint8, wired=True)
        block[:] = 1
        ours, pageable = block.ctypes.data, np.ones(n, np.uint8)
        theirs, memory = host_alloc(n), on_gpu(n)
        for way, name in (("to the GPU", "cuMemcpyHtoD_v2"), ("from it", "cuMemcpyDtoH_v2")):

            def copy(host, name=name, n=n, memory=memory):
                call(name, *((memory, host) if "HtoD" in name else (host, memory)), n)

            sides = {
                "registered": lambda copy=copy, at=ours: copy(at),
                "cuMemHostAlloc": lambda copy=copy, at=theirs: copy(at),
                "pageable": lambda copy=copy, at=pageable.ctypes.data: copy(at),
            }
            found = alternate(sides, rounds)
            label = f"{n // MIB} MiB {way}"
            report.judge(label, ratio(found, "cuMemHostAlloc", "registered"), 0.97)
            for side, times in found.items():
                report.note(f"{label}, {side}, GB/s", n / statistics.median(times) / 1e9)
        call("cuMemFreeHost", theirs)
        call("cuMemFree_v2", memory)
        del block, pageable
        memlimits.clear_cache()


def batches(report, rounds):
    print("a fresh batch of 64 MiB: taken, filled and copied")
    source, memory = np.random.default_rng(1).random(BATCH // 8), on_gpu(BATCH)

    def step(make):
        batch = make()
        batch[:] = source
        call("cuMemcpyHtoD_v2", memory, batch.ctypes.data, BATCH)

    sides = {
        "memlimits": lambda: step(lambda: memlimits.empty(BATCH // 8, wired=True)),
        "NumPy": lambda: step(lambda: np.empty(BATCH // 8)),
    }
    if torch := find_torch():
        sides["torch"] = lambda: step(
            lambda: torch.empty(BATCH // 8, dtype=torch.float64, pin_memory=True).numpy()
        )
    found = alternate(sides, rounds)
    for side, times in found.items():
        report.note(f"{side}, ms", statistics.median(times) * 1e3)
    report.judge("over pageable NumPy", ratio(found, "NumPy", "memlimits"), 2.2)
    if torch:
        report.judge("over torch's pinned allocator", ratio(found, "torch", "memlimits"), 1.0)

    def first():
        memlimits.clear_cache()
        memlimits.empty(BATCH // 8, wired=True)

    taken = statistics.median(seconds(first) for _ in range(rounds))
    saved = statistics.median(found["NumPy"]) - statistics.median(found["memlimits"])
    report.note("a block's first registration, with its pages, ms", taken * 1e3)
    report.note("batches after which that is paid for", taken / saved)
    call("cuMemFree_v2", memory)


def find_torch():
    try:
        import torch
    except ImportError:
        print("  there is no torch here")
        return None
    return torch if torch.cuda.is_available() else None


# The memory that the machine has less of, whoever is said to have it: kB.
ODD_SIZES = f"""
import ctypes, sys
import numpy as np

def taken():
    with open("/proc/meminfo") as file:
        return int(file.read().split("MemAvailable:")[1].split()[0])

n = {ODD}
if sys.argv[1] == "torch":
    import torch
    torch.empty(1, pin_memory=True)
    make = lambda: torch.empty(n, dtype=torch.uint8, pin_memory=True).numpy()
else:
    import memlimits, memlimits.cuda
    memlimits.set_wired_limit({2 * ODD_COUNT * ODD})
    attachment = memlimits.cuda.attach()
    memlimits.empty(1, wired=True)
    make = lambda: memlimits.empty(n, np.uint8, wired=True)
before = taken()
held = [make() for _ in range({ODD_COUNT})]
for batch in held:
    batch[:] = 1
print((before - taken()) / 1024)
"""


def resident(report):
    print(f"{ODD_COUNT} batches of {ODD // MIB} MiB, filled: memory taken, MiB")

    def taken(side):
        words = [sys.executable, "-c", ODD_SIZES, side]
        return float(subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True).stdout)

    sides = ["memlimits", "torch"] if find_torch() else ["memlimits"]
    found = {side: statistics.median(taken(side) for _ in range(3)) for side in sides}
    for side, mib in found.items():
        report.note(side, mib)
    if "torch" in found:
        report.judge("over torch's", found["memlimits"] / found["torch"], 0.6, at_least=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--most", type=int, default=1024, help="MiB of the longest copy")
    parser.add_argument("--json", help="a file for all figures")
    args = parser.parse_args()
    report = Report()
    facts = enter()
    print(facts)
    memlimits.set_wired_limit(4 * args.most * MIB)
    with memlimits.cuda.attach():
        copies(report, args.most * MIB, args.rounds)
        batches(report, args.rounds)
        stats = memlimits.stats()
        print(f"registrations {stats.registrations}, failed {stats.registration_failures}")
    resident(report)
    if args.json:
        with open(args.json, "w") as file:
            json.dump({**facts, "rows": report.rows}, file, indent=1)
    missed = [row["what"] for row in report.rows if not row.get("met", True)]
    print("missed: " + (", ".join(missed) or "none"))


if __name__ == "__main__":
    main()
