"""The file that the library is linked into, and the list of what is in it.

To find, open and link a file for each module was half of the time of `import memlimits`. And a
program may use something for the first time when it has no file descriptor left, or in a signal's
handler: nothing is to be opened then. So all of it is this one file, but for what only the command
needs. Another thread that imports one of the modules first, while the package is being imported,
waits for the package, or finds `_malloc.py`, and then waits, as any C code does that imports a
submodule.
"""
import sys
from _imp import create_dynamic, exec_dynamic
from _thread import RLock

# Names are those below `memlimits`. Each uses only those before it, in all four lists.
#
# C, and no modules of Python's: their functions are declared `cdef extern`, and linked.
LINKED = (
    "_base.own",
    "_device.readings",
    "_heap.resource", "_heap.misuse", "_heap.pagemap", "_heap.bins", "_heap.cache", "_heap.split",
    "_heap.heap", "_heap.checks", "_heap.heaps",
    "_ledger.limits", "_ledger.tickets", "_ledger.accounts", "_ledger.calls", "_ledger.queue",
    "_ledger.traces", "_ledger.pool", "_ledger.share", "_ledger.told", "_ledger.events",
    "_residency.sets", "_residency.plan", "_residency.pins",
    "_engine.books", "_engine.core", "_engine.parts", "_engine.controls", "_engine.members",
    "_engine.settings", "_engine.decay", "_engine.pressure", "_engine.system_room",
    "_engine.waiting", "_engine.samples", "_engine.picture", "_engine.record", "_engine.sentence",
    "_engine.refusals", "_engine.failing", "_engine.growth", "_engine.resize",
    "_engine.reservations", "_engine.charging", "_engine.family", "_engine.fork",
)
# Made when the package is imported.
MADE = (
    "_device.device",
    "_bindings.arguments", "_bindings.wait_hooks", "_bindings.allocator",
    "_bindings.contexts", "_bindings.budgets", "_bindings.limit_scopes", "_bindings.dlpack",
    "_bindings.buffer", "_bindings.wiring", "_bindings.system_info",
)
# Made when they are first used: what makes the default allocator, and what needs CUDA, Metal, NumPy
# or an exception.
FIRST_USED = (
    "_bindings.channel", "_bindings.cuda", "_bindings.failures", "_bindings.holders",
    "_bindings.metal", "_bindings.notes", "_bindings.pages", "_bindings.pools",
    "_bindings.admissions", "_malloc",
    "adapters._governing", "adapters._process", "adapters._numpy", "adapters._python",
)
# In files of their own.
ALONE = ("cli._imports", "cli._start")


cdef object here = sys.modules[__name__]
cdef object Loader = type(here.__loader__)
cdef object Spec = type(here.__spec__)


cdef create(name):
    """Create a module as the import system would, if it looked into this file for it."""
    name = f"memlimits.{name}"
    spec = Spec(name, Loader(name, here.__file__), origin=here.__file__)
    # Each import of it looks at that, and makes and drops an AttributeError where it is not there.
    spec._initializing = False
    module = create_dynamic(spec)
    module.__spec__ = spec
    return module


cdef fill(module):
    """Execute it. No Python runs meanwhile but the module's own, so no handler of a signal does."""
    try:
        exec_dynamic(module)
    except BaseException:
        # Where there was none by its name it has put itself there.
        if sys.modules.get(module.__name__) is module:
            del sys.modules[module.__name__]
        raise
    sys.modules[module.__name__] = module
    return module


for name in MADE:
    fill(create(name))

# Those of FIRST_USED, by one thread, and none twice.
cdef dict made = {}
cdef object making = RLock()


cdef make_once(name):
    with making:
        if name not in made:
            module = create(name)
            # A handler that came meanwhile may have made it.
            if name not in made:
                made[name] = fill(module)
        return made[name]


def for_c():
    """Return `memlimits._malloc`."""
    package = sys.modules["memlimits"]
    package._malloc = make_once("_malloc")
    return package._malloc


def for_channel():
    """Return `memlimits._bindings.channel`."""
    return make_once("_bindings.channel")


def for_cuda():
    """Return `memlimits._bindings.cuda`."""
    return make_once("_bindings.cuda")


def for_failures():
    """Return `memlimits._bindings.failures`."""
    for_c()  # whose thread's state it may ask for
    return make_once("_bindings.failures")


def for_holders():
    """Return `memlimits._bindings.holders`."""
    return make_once("_bindings.holders")


def for_metal():
    """Return `memlimits._bindings.metal`."""
    return make_once("_bindings.metal")


def for_notes():
    """Return `memlimits._bindings.notes`."""
    return make_once("_bindings.notes")


def for_pages():
    """Return `memlimits._bindings.pages`."""
    return make_once("_bindings.pages")


def for_pools():
    """Return `memlimits._bindings.pools`."""
    for_c()
    return make_once("_bindings.pools")


def for_admissions():
    """Return `memlimits._bindings.admissions`."""
    for_c()
    return make_once("_bindings.admissions")


def for_process():
    """Return `memlimits.adapters._process`."""
    for_c()
    return make_once("adapters._process")


def for_numpy():
    """Return `memlimits.adapters._numpy`, once NumPy has been imported."""
    for_c()  # over which it is made
    make_once("adapters._governing")
    return make_once("adapters._numpy")


def for_python():
    """Return `memlimits.adapters._python`."""
    for_c()  # which opens what it is made over
    make_once("adapters._governing")
    return make_once("adapters._python")


def __getattr__(name):
    """Of what is in the place of `_malloc` until somebody wants something of it."""
    # Whoever looks through all modules asks for other names.
    if name not in ("__pyx_capi__", "functions", "functions_with_size"):
        raise AttributeError(f"module 'memlimits._malloc' has no attribute {name!r}")
    return getattr(for_c(), name)


cdef stand_in(module):
    # Other threads find it in sys.modules until all of the real one is there.
    module.__getattr__ = here.__dict__.pop("__getattr__")
    sys.modules[module.__name__] = sys.modules["memlimits"]._malloc = module


stand_in(type(sys)("memlimits._malloc"))
