"""Most modules of the core: they are linked into this one's file, and made when it is imported.

To find, open and link a file for each was half of the time of `import memlimits`. Not among them
are those that not every program imports, and `_device`, which links libmlim. Another thread that
imports one of these first, while the package is being imported, finds `_device` in its own file
and then waits for the package, as any C code does that imports a submodule.
"""
import sys

# Each cimports only those before it.
cdef tuple NAMES = (
    "_limits", "_resource", "_misuse", "_accounts", "_pagemap", "_bins", "_cache", "_heap",
    "_heaps", "_residency_sets", "_residency", "_asked", "_core", "_controls", "_fork", "_settings",
    "_statistics", "_purgeable", "_pressure", "_room", "_waiting", "_idle", "_refusals", "_floors",
    "_growth", "_resize", "_charging", "_callers", "_arguments", "_allocator", "_contexts",
    "_budgets", "_scopes", "_dlpack", "_buffer", "_wiring", "_getters", "_system",
)


cdef make_modules(here, package):
    """Make each as the import system would, if it looked into this file for it."""
    for name in NAMES:
        loader = type(here.__loader__)(f"{package.__name__}.{name}", here.__file__)
        spec = type(here.__spec__)(loader.name, loader, origin=loader.path)
        module = loader.create_module(spec)
        module.__spec__ = spec
        sys.modules[spec.name] = module
        loader.exec_module(module)
        setattr(package, name, module)


make_modules(sys.modules[__name__], sys.modules["memlimits"])
