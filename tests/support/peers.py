"""Another program that uses memlimits, beside the one that is tested."""

import subprocess
import sys

# It holds n MiB, touched or not, until its input ends, and has `reserved` MiB of addresses that
# are none of memlimits'; its pid comes first, "given" or "refused" afterwards.
HOLDS = """
import mmap, os, sys
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
import memlimits
memlimits.set_memory_limit(1 << 40)
n, touched, reserved = int(sys.argv[1]) << 20, sys.argv[2] == "touched", int(sys.argv[3])
others = mmap.mmap(-1, reserved << 20, flags=PRIVATE) if reserved else None
try:
    block = memlimits.allocate(n)
except memlimits.MemoryLimitError as error:
    assert error.blocked_by == "system", error
    print(os.getpid(), "refused", flush=True)
else:
    if touched:
        memoryview(block)[::4096] = bytes(len(memoryview(block)[::4096]))
    print(os.getpid(), "given", flush=True)
sys.stdin.read()
"""


class Holder:
    def __init__(self, words, n, touched=False, reserved=0, **options):
        how = [str(n), "touched" if touched else "", str(reserved)]
        command = [*words, sys.executable, "-c", HOLDS, *how]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
        )
        told, self.ended = self.process.stdout.readline().split()
        self.pid = int(told)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.communicate()
