"""Every type of memlimits, and what a hostile program does to its objects.

Run as a program, with the name of a type: each step is printed before it is taken, so that the last
line says what a crash came from.
"""

import contextlib
import copy
import functools
import gc
import importlib
import operator
import pickle
import pkgutil
import sys
import weakref

import memlimits
from memlimits import memory

# Their types are other libraries', too, or the standard one's (argparse).
_OF_LIBRARIES = ("adapters.dask", "cli.parsers", "cli.screen")


def all_types():
    """Those of every module, and those that none of them names, by their full names."""
    for info in pkgutil.walk_packages(memlimits.__path__, "memlimits."):
        if not info.name.endswith(("__main__", *_OF_LIBRARIES)):
            try:
                importlib.import_module(info.name)
            except ModuleNotFoundError as error:
                # An extra's library is not here.
                if error.name is None or error.name.startswith("memlimits"):
                    raise
    importlib.import_module("memlimits").govern_numpy  # noqa: B018 - whose module has no file
    found, new = {}, [object]
    while new:
        kinds = [kind for parent in new for kind in type.__subclasses__(parent)]
        # By identity: what a class of another module says to == is its own affair.
        known = set(map(id, found.values()))
        new = [kind for kind in kinds if id(kind) not in known]
        found.update({f"{kind.__module__}.{kind.__qualname__}": kind for kind in new})
    return {
        name: kind
        for name, kind in found.items()
        if name.startswith("memlimits.")
        and not name.startswith(tuple(f"memlimits.{each}." for each in _OF_LIBRARIES))
    }


class Raising(int):
    """An integer that is none when it is asked."""

    def __index__(self):
        raise ZeroDivisionError

    __float__ = __index__


ARGUMENTS = (
    *((value,) for value in (None, True, 0, -1, 100, 2**64, 2**200, 1.5, float("nan"), "x", b"x")),
    *((value,) for value in ([], (), {}, Raising(5), object(), "wait", "strict")),
    (),
    (None, None),
    (1, 2),
    ("x", 5),
    (None, None, None),
    (ValueError, ValueError("x"), None),
)
OF_OBJECTS = ("__init__", "__reduce_ex__", "__getstate__", "__dir__", "__format__", "__sizeof__")
KEYWORDS = ({"copy": True}, {"max_version": (1, 0)}, {"nothing": 1}, {"timeout": 0})


class Victim:
    """An object, and every step that is taken with it."""

    def __init__(self, how, instance):
        self.how = how
        self.instance = instance

    def step(self, name, function, *args, **keywords):
        """Any exception will do but those that say that something inside went wrong."""
        print(f"{self.how}: {name}", flush=True)
        try:
            return function(*args, **keywords)
        except SystemError:
            raise
        except BaseException as error:
            # A message that cannot be made is none.
            str(error)
            return None

    def always(self, name, function):
        """A step that has to work, however the object came to be."""
        print(f"{self.how}: {name}", flush=True)
        return function(self.instance)

    def look(self):
        self.always("repr", repr)
        self.always("str", str)
        self.always("==", lambda x: (x == x, x != x, x == 1, x == copy))
        for name, function in {
            "hash": hash,
            "bool": bool,
            "len": len,
            "iter": list,
            "sizeof": sys.getsizeof,
            "<": lambda x: x < x,
            "weakref": weakref.ref,
            "memoryview": memoryview,
            "bytes": bytes,
            "index": operator.index,
            "dict": vars,
            "dir": dir,
            "referents": gc.get_referents,
        }.items():
            self.step(name, function, self.instance)

    def travel(self):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            data = self.step(f"pickle {protocol}", pickle.dumps, self.instance, protocol)
            if data is not None:
                back = self.always(f"unpickle {protocol}", lambda x, data=data: pickle.loads(data))
                Victim(f"{self.how}, unpickled", back).look()
        for function in (copy.copy, copy.deepcopy):
            back = self.step(function.__name__, function, self.instance)
            if back is not None and back is not self.instance:
                Victim(f"{self.how}, copied", back).look()

    def change(self, others):
        for other in others:
            self.step(f"__class__ = {other}", setattr, self.instance, "__class__", other)
        for name in [*names(type(self.instance)), "args", "__dict__", "itself"]:
            for value in (None, 2**70, "x"):
                self.step(f"object.{name} = ", object.__setattr__, self.instance, name, value)
                self.step(f"{name} = ", setattr, self.instance, name, value)
            self.step(f"del {name}", delattr, self.instance, name)

    def call(self):
        for name in names(type(self.instance)):
            member = self.step(name, getattr, self.instance, name)
            if not callable(member):
                continue
            for args in ARGUMENTS:
                self.step(f"{name}{args}", member, *args)
            for keywords in KEYWORDS:
                self.step(f"{name}({keywords})", member, **keywords)
            self.step(f"{name}(itself)", member, self.instance)
            self.step(f"{name}(its type)", member, type(self.instance))

    def enter(self):
        for _ in range(2):
            with contextlib.suppress(Exception), self.instance:
                self.look()
        self.step("__init__", type(self.instance).__init__, self.instance)
        for name, args in (("__exit__", (None, None, None)), ("close", ()), ("release", ())):
            if hasattr(self.instance, name):
                self.step(name, getattr(self.instance, name), *args)


def names(kind):
    """What a type has of memlimits' own, and what has to do with how objects come to be."""
    for name in dir(kind):
        (owner, *_) = [parent for parent in kind.__mro__ if name in vars(parent)]
        private = name.startswith("_") and not name.startswith("__")
        if not private and (owner.__module__.startswith("memlimits") or name in OF_OBJECTS):
            yield name


def made(kind):
    """Objects of the type as a program would have them."""
    from memlimits import metal
    from memlimits._bindings.allocator import Allocator, default_allocator
    from memlimits._device.device import Device

    def released():
        block = memlimits.allocate(100)
        block.release()
        return block

    def opened():
        return memlimits.budget("open").__enter__()

    backend = memlimits.device_info()["backend"]
    makers = {
        "Buffer": [lambda: memlimits.allocate(100), lambda: memlimits.allocate(0), released],
        "Budget": [lambda: memlimits.budget("b"), lambda: memlimits.budget("b", 5), opened],
        "Reservation": [lambda: memlimits.reserve(5), lambda: memlimits.reserve(5).__enter__()],
        "limits": [
            memlimits.limits,
            lambda: memlimits.limits(memory=2**40, cache=5, policy="guideline"),
        ],
        "Allocator": [default_allocator, lambda: Allocator(Device(memory_size=2**30))],
        "Device": [lambda: Device(memory_size=2**30)],
        "Fit": [lambda: memlimits.would_fit(5)],
        "Stats": [memlimits.stats],
        "Wait": [functools.partial(memlimits.set_memory_policy, "guideline")],
        "AutoTrim": [lambda: memlimits.auto_trim(100)],
        "EffectiveLimit": [memlimits.effective_limit],
        "Candidate": [lambda: memlimits.effective_limit().candidates[0]],
        "Governing": [memlimits.govern_numpy],
        # On Metal an address where no object is ends the process.
        "Attachment": [lambda: metal.attach(16)] if backend == "host" else [],
        "MemoryLimitError": [lambda: memlimits.MemoryLimitError(1, 2, 3, 4, 5, 6, "limit")],
        "WiredLimitError": [lambda: memlimits.WiredLimitError(1, 2, "So.")],
    }
    return makers.get(kind.__name__, [])


def ways(kind):
    """How an object of the type may come to be."""
    yield "__new__", lambda: kind.__new__(kind)
    yield "object.__new__", lambda: object.__new__(kind)
    for args in ARGUMENTS[::3]:
        yield f"{kind.__name__}{args}", functools.partial(kind, *args)
        yield f"__new__{args}", functools.partial(kind.__new__, kind, *args)

    def failed(args):
        instance = kind.__new__(kind)
        with contextlib.suppress(Exception):
            instance.__init__(*args)
        return instance

    for args in ARGUMENTS[-6:]:
        yield f"__init__{args}", functools.partial(failed, args)

    def of_subclass():
        class Sub(kind):
            pass

        return Sub.__new__(Sub)

    yield "subclass", of_subclass
    yield "type(...)", lambda: type("Sub", (kind,), {"__slots__": ()})()
    for i, make in enumerate(made(kind)):
        yield f"made {i}", make


ATTACKS = (Victim.look, Victim.travel, Victim.enter, Victim.call, Victim.change)


def attack(kind, others):
    block = memlimits.allocate(1)
    for how, make in ways(kind):
        for attack in (*ATTACKS, lambda victim, all_kinds: None):
            instance = Victim(how, None).step("make", make)
            if not isinstance(instance, kind):
                break
            victim = Victim(how, instance)
            if attack is Victim.change:
                attack(victim, others)
            elif attack in ATTACKS:
                attack(victim)
            victim.step("a cycle", lambda x=instance: setattr(x, "itself", x))
            del victim, instance
        gc.collect()
    cls = Victim("the class", kind)
    for name, method in list(vars(kind).items()):
        for wrong in (None, object(), block, kind):
            if name.startswith("__") or not name.startswith("_"):
                cls.step(f"{name}({wrong})", lambda m=method, w=wrong: callable(m) and m(w))
            cls.step(f"{name}.__get__", lambda m=method, w=wrong: m.__get__(w))
    cls.step("set", setattr, kind, "something", 1)


def main(name):
    kinds = all_types()
    gc.collect()
    gc.freeze()
    unraisable = []
    sys.unraisablehook = lambda hooked: unraisable.append(f"{hooked.object}: {hooked.exc_value!r}")
    attack(kinds[name], list(kinds.values()))
    gc.collect()
    counters = memory.counters()
    parts = sum(counters[part] for part in ("active", "cache", "slack", "pending"))
    assert counters["footprint"] == parts, counters
    assert all(0 <= value < 2**63 for value in counters.values()), counters
    assert unraisable == [], unraisable
    memlimits.set_memory_policy("guideline")
    memlimits.allocate(100).release()
    print("survived", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
