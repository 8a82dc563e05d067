"""What C code does wrong with an address ends its process, with a sentence that names the block.

Each program forks for each misuse: the child is ended, and the program looks at what it said.
"""

import pytest

from support.places import TESTS
from support.process import run

# Metal does not survive a fork, and what comes back in such a child is not looked at.
pytestmark = pytest.mark.host

PRELUDE = f"""
import random, re, tempfile
sys.path.insert(0, {str(TESTS)!r})
from support.functions import free, malloc, realloc
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
signal.alarm(100)

def in_child(misuse):
    # What the kernel says of a child that goes through this, and what it wrote to stderr.
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            os.dup2(said.fileno(), 2)
            misuse()
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        said.seek(0)
        return status, said.read().decode()

def ends(misuse, sentence):
    status, said = in_child(misuse)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGABRT, (status, said)
    assert said == "memlimits: " + sentence + "\\n", said

def at(address):
    return f"{{address:#x}}"

def freed(n, address, function="free"):
    start = at(address)
    return f"{{function}}({{start}}): the block of {{n}} bytes at {{start}} was freed before"

def inside(n, start, k, function="free"):
    return (f"{{function}}({{at(start + k)}}): it is not the start of a block, "
            f"but {{k}} bytes inside the block of {{n}} bytes at {{at(start)}}")

def foreign(address, function="free"):
    return f"{{function}}({{at(address)}}): it is not a block of memlimits"

def twice(*addresses):
    for address in addresses:
        free(address)

# So often that no lock is taken from here on.
for _ in range(40_000):
    memlimits.allocate(64)
"""

# Each at its capacity: pieces of slabs of every kind of class, and blocks of their own.
SIZES = [64, 128, 320, 512, 576, 4096, 5120, 28672, 32768, 36864, 294912, 1 << 20, 5 << 20]


def program(script):
    run(PRELUDE + script)


def test_a_block_that_is_freed_twice():
    program(f"""
for n in {SIZES}:
    others = [malloc(n) for _ in range(2)]
    block = malloc(n)
    ends(lambda: twice(block, block), freed(n, block))
    # With other blocks freed in between, and all of them gone.
    ends(lambda: twice(block, others[0], block), freed(n, block))
    ends(lambda: twice(*others, block, block), freed(n, block))
    ends(lambda: twice(block, *others, others[1]), freed(n, others[1]))
    [free(address) for address in (block, *others)]
consistent()
""")


def test_a_block_that_is_freed_twice_where_nothing_else_was_allocated():
    program(f"""
for n in {SIZES}:
    memlimits.clear_cache()
    block = malloc(n)
    ends(lambda: twice(block, block), freed(n, block))
    free(block)
""")


def test_a_block_that_is_freed_after_its_memory_went_back():
    program(f"""
def free_after(step, block):
    free(block)
    step()
    free(block)

def return_all():
    memlimits.set_cache_limit(0)

for n in {SIZES}:
    block = malloc(n)
    for step in (memlimits.clear_cache, return_all):
        ends(lambda: free_after(step, block), foreign(block))
    # Idle, and cut no more: what is left of it is one piece of memory.
    status, said = in_child(lambda: free_after(memlimits.stats, block))
    assert os.WTERMSIG(status) == signal.SIGABRT and "freed before" in said, said
    free(block)
""")


def test_an_address_inside_a_block():
    program(f"""
rng = random.Random(3)
for n in {SIZES}:
    first, block, last = malloc(n), malloc(n), malloc(n)
    for k in (1, 8, 16, 63, 64, n // 2, n - 64, n - 1, rng.randrange(1, n)):
        if 0 < k < n:
            ends(lambda: free(block + k), inside(n, block, k))
    [free(address) for address in (first, block, last)]
consistent()
""")


def test_blocks_of_full_slabs():
    program("""
for n in (64, 576, 5120, 28672):
    memlimits.clear_cache()
    # Of slabs of at most 256 KiB the first are full.
    blocks = [malloc(n) for _ in range(600_000 // n)]
    for block in random.Random(n).sample(blocks[:200_000 // n], 3):
        ends(lambda: twice(block, block), freed(n, block))
        ends(lambda: twice(blocks[0], block, blocks[0]), freed(n, blocks[0]))
        ends(lambda: free(block + 8), inside(n, block, 8))
        # Full again.
        free(block)
        assert malloc(n) == block
        ends(lambda: free(block + 8), inside(n, block, 8))
        ends(lambda: twice(block, block), freed(n, block))
    [free(block) for block in blocks]
consistent()
""")


def test_the_last_block_of_a_slab_written_to_and_freed_again():
    program("""
def use_after_free(block):
    free(block)
    (ctypes.c_char * 64).from_address(block)[8:16] = bytes(8)
    free(block)

for n in (64, 576, 5120, 28672):
    memlimits.clear_cache()
    block, other = malloc(n), malloc(n)
    free(block)
    ends(lambda: use_after_free(other), freed(n, other))
    free(other)
consistent()
""")


def test_every_address_of_a_slab():
    """All multiples of 64 in a slab that is not full, and a slab whose blocks leave a rest."""
    program("""
n = 1152
blocks = sorted(malloc(n) for _ in range(3))
base = blocks[0]
assert [block - base for block in blocks] == [0, n, 2 * n]
for offset in range(0, 65536, 64):
    k = offset % n
    status, said = in_child(lambda: free(base + offset))
    if base + offset in blocks:
        assert status == 0
    elif offset >= 3 * n:
        address = at(base + offset)
        assert said == f"memlimits: free({address}): no block was ever handed out there\\n", said
    else:
        assert said == f"memlimits: {inside(n, base + offset - k, k)}\\n", said
    assert status == 0 or os.WTERMSIG(status) == signal.SIGABRT
""")


def test_an_address_of_others():
    program("""
import mmap
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
text = ctypes.create_string_buffer(100)
mapping = mmap.mmap(-1, 1 << 20)
block = malloc(3 * MIB)
foreigners = (
    ctypes.addressof(text), libc.malloc(100), ctypes.addressof(ctypes.c_char.from_buffer(mapping)),
    id(text), 1, 4096, 2**47 - 1, 2**48 - 1, 2**63, 2**64 - 8,
    # As far away as where the page map starts again.
    block + 2**48, block - 2**48 + 2**64, malloc(64) + 2**60, malloc(4096) + 2**48,
)
for address in foreigners:
    ends(lambda: free(address), foreign(address))
    ends(lambda: realloc(address, 100), foreign(address, "realloc"))
free(None)
""")


def test_realloc_of_what_is_no_block():
    program(f"""
for n in {SIZES}:
    others = malloc(n), malloc(n)
    block = malloc(n)
    for new in (1, n // 2, n, 3 * n):
        ends(lambda: (free(block), realloc(block, new)), freed(n, block, "realloc"))
        if n > 64:
            ends(lambda: realloc(block + 64, new), inside(n, block, 64, "realloc"))
    [free(address) for address in (block, *others)]
""")


def test_on_another_thread():
    program(f"""
def elsewhere(function, *words):
    thread = threading.Thread(target=function, args=words)
    thread.start()
    thread.join()

for n in {SIZES}:
    blocks = [malloc(n) for _ in range(3)]
    block = blocks[1]
    ends(lambda: (free(block), elsewhere(free, block)), freed(n, block))
    ends(lambda: (elsewhere(free, block), free(block)), freed(n, block))
    ends(lambda: (elsewhere(free, block), elsewhere(free, block)), freed(n, block))
    if n > 64:
        ends(lambda: elsewhere(free, block + 64), inside(n, block, 64))
    # Its thread is gone.
    theirs = []
    elsewhere(lambda: theirs.extend(malloc(n) for _ in range(3)))
    ends(lambda: twice(theirs[1], theirs[1]), freed(n, theirs[1]))
    [free(address) for address in blocks + theirs]
consistent()
""")


def test_on_an_account():
    program(f"""
with memlimits.budget("here"):
    for n in {SIZES}:
        blocks = [malloc(n) for _ in range(3)]
        block = blocks[1]
        ends(lambda: twice(block, block), freed(n, block))
        if n > 64:
            ends(lambda: free(block + 64), inside(n, block, 64))
        [free(address) for address in blocks]
    memlimits.clear_cache()             # nothing idle is to be its slab, which may be longer
    blocks = [malloc(1152) for _ in range(3)]
    end = min(blocks) + 56 * 1152       # what the slab has left behind its last block
    ends(lambda: free(end),
         f"free({{at(end)}}): no block was ever handed out there")
    [free(address) for address in blocks]
assert [account["active"] for account in memory.budgets()] in ([], [0])
consistent()
""")


def test_what_python_holds_too():
    program("""
def free_and_drop(block):
    free(block.ptr)
    block.release()

for n in (100, 40_000, 3 * MIB):
    block = memlimits.allocate(n)
    other = memlimits.allocate(n)
    status, said = in_child(lambda: free_and_drop(block))
    assert os.WTERMSIG(status) == signal.SIGABRT, (n, status, said)
    assert said.startswith(f"memlimits: free({at(block.ptr)}): the block of "), said
""")


def test_contents_that_look_freed():
    """A block may hold what marks freed ones: the list of those is asked."""
    program("""
for n in (64, 1152, 32768):
    blocks = [malloc(n) for _ in range(5)]
    free(blocks[0])
    mark = ctypes.string_at(blocks[0] + 8, 8)
    assert mark != bytes(8)
    for block in blocks[1:]:
        ctypes.memmove(block + 8, mark, 8)
    moved = realloc(blocks[1], 3 * n)
    assert ctypes.string_at(moved + 8, 8) == mark
    for block in (*blocks[2:], moved):
        free(block)
    again = [malloc(n) for _ in range(5)]
    assert len(set(again)) == 5
""")


def test_a_list_of_free_blocks_that_was_written_to():
    """It leads nowhere, or in a circle: the second free is found all the same."""
    program("""
def spoil(first, blocks, value):
    for address in first:
        free(address)
        ctypes.memmove(address, value, 8)
    twice(*blocks)

blocks = [malloc(1152) for _ in range(5)]
for value in (b"\\xff" * 8, bytes(8), blocks[0].to_bytes(8, "little"), b"x" * 8):
    ends(lambda: spoil(blocks[:1], [blocks[1], blocks[1]], value), freed(1152, blocks[1]))
""")


@pytest.mark.host
def test_whoever_is_ended_holds_up_nobody():
    """The sentence comes whatever the other threads of the process do."""
    program("""
from concurrent.futures import ThreadPoolExecutor
done = threading.Event()

def churn():
    while not done.is_set():
        free(malloc(5000))
        memlimits.clear_cache()

def among_others(block):
    for _ in range(3):
        threading.Thread(target=churn, daemon=True).start()
    twice(block, block)

for n in (100, 40_000, 3 * MIB):
    block = malloc(n)
    malloc(n)
    status, said = in_child(lambda: among_others(block))
    assert os.WTERMSIG(status) == signal.SIGABRT, (n, status, said)
    assert said.startswith(f"memlimits: free({at(block)}): "), said
""")
