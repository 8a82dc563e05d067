"""Most modules of the core: they are linked into this one's file, and made when it is imported.

To find, open and link a file for each was half of the time of `import memlimits`. And a program may
use something for the first time when it has no file descriptor left, or in a signal's handler:
nothing is to be opened then. Not among them are `_device`, which links libmlim, and those of the
command and of Metal. Another thread that imports one of these first, while the package is being
imported, finds `_device`, or `_malloc.py`, in its own file and then waits for the package, as any C
code does that imports a submodule.
"""
import sys
from _imp import exec_dynamic
from _thread import RLock

# Each cimports only those before it.
cdef tuple NAMES = (
    "_limits", "_resource", "_misuse", "_accounts", "_pagemap", "_bins", "_cache", "_heap",
    "_heaps", "_residency_sets", "_residency", "_asked", "_core", "_controls", "_fork", "_settings",
    "_statistics", "_purgeable", "_pressure", "_room", "_waiting", "_idle", "_refusals", "_floors",
    "_growth", "_resize", "_charging", "_callers", "_arguments", "_allocator", "_contexts",
    "_budgets", "_scopes", "_dlpack", "_buffer", "_wiring", "_getters", "_system",
)


cdef create(name):
    """Create a module as the import system would, if it looked into this file for it."""
    here = sys.modules[__name__]
    loader = type(here.__loader__)(f"memlimits.{name}", here.__file__)
    spec = type(here.__spec__)(loader.name, loader, origin=loader.path)
    module = loader.create_module(spec)
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


cdef fill_all(package):
    for name in NAMES:
        setattr(package, name, fill(create(name)))


fill_all(sys.modules["memlimits"])

# What makes the default allocator, and what needs a NumPy: made when they are first used, by one
# thread, and neither twice.
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


def for_numpy():
    """Return `memlimits.adapters._numpy`, once NumPy has been imported."""
    for_c()  # over which it is made
    return make_once("adapters._numpy")


cdef stand_in(module):
    """Have a module in the place of `_malloc` until somebody wants something of it."""
    def __getattr__(name):
        # Whoever looks through all modules asks for other names.
        if name not in ("__pyx_capi__", "functions", "functions_with_size"):
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
        return getattr(for_c(), name)

    # Other threads find it in sys.modules until all of the real one is there.
    module.__getattr__ = __getattr__
    sys.modules[module.__name__] = sys.modules["memlimits"]._malloc = module


stand_in(type(sys)("memlimits._malloc"))
