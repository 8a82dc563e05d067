"""Every call while Python code runs in its midst: an argument's, a finalizer's, a handler's."""

import contextlib
import gc

import pytest

import memlimits
from memlimits import memory
from support.patience import until
from support.process import run
from support.units import MIB

pytestmark = pytest.mark.core

# Also for processes of their own.
USE = """
def use():
    try:
        block = memlimits.allocate(5 * MIB)
        memoryview(block)[-1:] = b"x"
        with memlimits.limits(cache=0), memlimits.budget("used", 9 * MIB):
            memlimits.allocate(64)
        with memlimits.reserve(MIB):
            memlimits.trim(0)
        memlimits.set_memory_limit(memlimits.get_memory_limit())
        memlimits.set_idle_timeout(0)
        memlimits.set_idle_timeout(None)
        memlimits.stats(), memlimits.effective_limit(), memlimits.would_fit(MIB)
        memlimits.get_array_buffer_size([block]), memory.budgets(), repr(block)
        memlimits.clear_cache()
    except (memlimits.MemoryLimitError, RecursionError, RuntimeError):
        pass  # refused; or nested too deep
"""
exec(USE)


class Busy:
    def __index__(self):
        use()  # noqa: F821
        return 4096

    def __float__(self):
        return float(self.__index__())


class Finalized:
    """In a cycle, for the collector to find."""

    def __init__(self):
        self.itself = self

    def __del__(self):
        use()  # noqa: F821


def enter(scope):
    with scope:
        return memlimits.allocate(64)


CALLS = {
    "allocate": lambda: memlimits.allocate(Busy(), zeroed=True),
    "wired": lambda: memlimits.allocate(Busy(), wired=True),
    "memory": lambda: memlimits.set_memory_limit(Busy()),
    "cache": lambda: memlimits.set_cache_limit(Busy()),
    "wired limit": lambda: memlimits.set_wired_limit(Busy()),
    "policy": lambda: memlimits.set_memory_policy("wait", Busy()),
    "idle": lambda: memlimits.set_idle_timeout(Busy()),
    "pressure": lambda: memlimits.set_pressure_trim(Busy(), 100),
    "trim": lambda: memlimits.trim(Busy()),
    "would_fit": lambda: memlimits.would_fit(Busy()),
    "reserve": lambda: enter(memlimits.reserve(Busy())),
    "budget": lambda: enter(memlimits.budget("b", Busy())),
    "limits": lambda: enter(memlimits.limits(memory=Busy(), cache=Busy(), wired=Busy())),
    "sizes": lambda: memlimits.get_array_buffer_size([Busy()], memlimits.allocate(1)),
    "stats": memlimits.stats,
    "effective_limit": memlimits.effective_limit,
}


@pytest.fixture(autouse=True)
def settings_stay():
    thresholds = gc.get_threshold()
    active = memlimits.get_active_memory()
    yield
    gc.set_threshold(*thresholds)
    # A thread of the test runner's may be in a finalizer.
    until(lambda: memlimits.get_active_memory() <= active)
    memlimits.set_idle_timeout(None)
    memlimits.set_pressure_trim(32 * MIB)
    counters = memory.counters()
    assert (counters["reserved"], counters["pending"], counters["waiting"]) == (0, 0, 0)


@pytest.mark.parametrize("call", CALLS)
def test_an_argument_runs_code(call):
    active = memlimits.get_active_memory()
    CALLS[call]()
    assert memlimits.get_active_memory() == active


@pytest.mark.parametrize("call", CALLS)
def test_finalizers_run_code(call):
    active = memlimits.get_active_memory()
    gc.set_threshold(1)
    for _ in range(5):
        Finalized()
        CALLS[call]()
        memlimits.set_memory_limit(1 << 40)
    gc.collect()
    # A thread of the test runner's may be in one of them.
    until(lambda: memlimits.get_active_memory() == active)


@pytest.mark.parametrize("handled", ["use()", "raise KeyError"])
def test_handlers_run_in_every_call(handled):
    """Many signals; with an exception each call ends wherever it was."""
    run(
        USE
        + f"""
seen = 0
def handle(number, frame):
    global seen
    seen += 1
    {handled}
signal.signal(signal.SIGALRM, handle)
use()
while seen < 100:
    try:
        while seen < 100:  # in here, since handlers run where a loop goes back
            signal.setitimer(signal.ITIMER_REAL, 0.0005)
            use()
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyError:
        pass
signal.signal(signal.SIGALRM, signal.SIG_IGN)
gc.collect()
memlimits.clear_cache()
consistent()
assert memory.counters()["reserved"] == 0
assert memory.counters()["footprint"] == 0
# From 3.14 on a handler may run after `__enter__` and before its block.
if sys.version_info < (3, 14):
    assert memlimits.get_cache_limit() == memlimits.get_memory_limit()
"""
    )


def test_calls_at_the_end_of_the_stack():
    def deep(call):
        try:
            deep(call)
        except RecursionError:
            with contextlib.suppress(RecursionError):
                CALLS[call]()

    for call in CALLS:
        deep(call)
        memlimits.set_memory_policy("guideline")
        memlimits.set_memory_limit(1 << 40)


AT_EXIT = {
    "atexit": "import atexit; atexit.register(use)",
    "finalizer": "class Late:\n    __del__ = lambda self: use()\nsys.kept = Late()",
    "thread in a finalizer": """
class Late:
    def __del__(self):
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
late = Late()
late.itself = late
del late
gc.collect()
""",
    "daemons": """
def work():
    while True:
        use()
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.05)
""",
    "kept": """
import builtins, contextvars
block = memlimits.allocate(5 * MIB)
builtins.kept = [block, memoryview(block), block.__dlpack__(), block.__dlpack__(copy=True)]
builtins.scopes = [memlimits.budget("b").__enter__(), memlimits.reserve(5).__enter__()]
builtins.scopes += [memlimits.limits(memory=1 << 40).__enter__(), memlimits.auto_trim(0.001)]
builtins.context = contextvars.copy_context()
""",
    "a generator": """
def within():
    with memlimits.limits(cache=0), memlimits.budget("b"), memlimits.reserve(5):
        yield
sys.kept = within()
next(sys.kept)
""",
    "children": """
with memlimits.limits(memory=1 << 40), memlimits.budget("b"), memlimits.reserve(MIB):
    for i in range(4):
        child = os.fork()
        if child == 0:
            use()
            os._exit(0) if i % 2 else sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
""",
    "no package": "for name in [*sys.modules]:\n    'memlimits' in name and sys.modules.pop(name)",
}


@pytest.mark.parametrize("what", AT_EXIT)
@pytest.mark.parametrize("used", [True, False], ids=["used before", "first use"])
def test_at_the_interpreters_end(what, used):
    done = run(USE + AT_EXIT[what] + "\nuse()" * used, "-W", "error")
    assert done.stderr == ""
