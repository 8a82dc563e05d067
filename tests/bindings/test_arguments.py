"""Arguments of the documented functions: numbers of bytes, and policies."""

import fractions

import numpy
import pytest

import memlimits
from memlimits import memory
from support.units import MIB

pytestmark = pytest.mark.core


def counts():
    """Every counter but the number of refusals."""
    return {name: value for name, value in memory.counters().items() if name != "refusals"}


def limits():
    return (
        memlimits.get_memory_limit(),
        memlimits.get_cache_limit(),
        memlimits.get_wired_limit(),
        memory.get_memory_policy(),
    )


class Index:
    def __init__(self, value):
        self.value = value

    def __index__(self):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


BAD = [
    pytest.param(-1, ValueError, "not -1", id="negative"),
    pytest.param(-(2**63) - 1, ValueError, str(-(2**63) - 1), id="very negative"),
    pytest.param(2**64, ValueError, str(2**64), id="2**64"),
    pytest.param(10**5000, ValueError, "16610 bits", id="10**5000"),
    pytest.param(-(10**5000), ValueError, "16610 bits", id="-10**5000"),
    pytest.param(Index(-7), ValueError, "not -7", id="negative __index__"),
    pytest.param(1.0, TypeError, "float", id="float"),
    pytest.param(float("nan"), TypeError, "float", id="nan"),
    pytest.param(numpy.float64(1), TypeError, "float64", id="numpy.float64"),
    pytest.param("1", ValueError, "1 bytes, or MiB[?] Write 1B or 1MiB", id="str"),
    pytest.param("", ValueError, "invalid size ''", id="empty str"),
    pytest.param("2GiBB", ValueError, "invalid size '2GiBB': write it as 512MiB", id="str unit"),
    pytest.param("-1B", ValueError, "invalid size '-1B'", id="negative str"),
    pytest.param("9EiB", ValueError, "invalid size '9EiB'", id="long str"),
    pytest.param(b"1", TypeError, "bytes", id="bytes"),
    pytest.param([1], TypeError, "list", id="list"),
    pytest.param(True, TypeError, "True", id="True"),
    pytest.param(False, TypeError, "False", id="False"),
    pytest.param(numpy.True_, TypeError, "bool", id="numpy.bool"),
    pytest.param(Index(ZeroDivisionError("own")), ZeroDivisionError, "own", id="raising"),
    pytest.param(Index(OverflowError("own")), OverflowError, "own", id="overflowing"),
    pytest.param(Index("1"), TypeError, "int", id="__index__ of str"),
]

TAKES_BYTES = [
    memlimits.set_memory_limit,
    memlimits.set_cache_limit,
    memlimits.set_wired_limit,
    memlimits.allocate,
]


@pytest.mark.parametrize(("value", "error", "words"), BAD)
def test_a_bad_number_is_an_error_and_nothing_else(value, error, words):
    before = (limits(), counts())
    for function in TAKES_BYTES:
        with pytest.raises(error, match=words) as caught:
            function(value)
        assert type(caught.value) is error
        assert len(str(caught.value)) < 200
        assert (limits(), counts()) == before


@pytest.mark.parametrize("value", [2**63, 2**64 - 1, numpy.uint64(2**63), Index(2**63)])
def test_a_size_that_no_block_has_is_an_error_and_a_limit_is_none(value):
    before = (limits(), counts())
    for function in (memlimits.allocate, memlimits.reserve, memlimits.would_fit, memlimits.trim):
        with pytest.raises(ValueError, match=r"2\*\*63 - 1 bytes, not "):
            function(value)
    with pytest.raises(memlimits.WiredLimitError, match="max_recommended_working_set_size"):
        memlimits.set_wired_limit(value)
    assert (limits(), counts()) == before
    default = memlimits.set_memory_limit(value)
    assert memlimits.get_memory_limit() == memlimits.get_cache_limit() == value.__index__()
    assert memlimits.set_cache_limit(value) == value.__index__()
    assert memlimits.set_cache_limit(None) == value.__index__()
    assert memlimits.set_memory_limit(default) == value.__index__()


def test_a_cache_without_a_limit_keeps_all_where_the_memory_limit_is_passed():
    for limit in (2**63 - 1, 2**64 - 1):
        memlimits.set_cache_limit(limit)
        memlimits.set_memory_limit(MIB)
        held = memlimits.allocate(8 * MIB)
        memlimits.set_memory_limit(2**64 - 1)
        held.release()
        assert memlimits.get_cache_memory() == 8 * MIB
        memlimits.clear_cache()


def test_no_limit_is_shown_as_none():
    memlimits.set_memory_limit(2**64 - 1)
    stats = memlimits.stats()
    assert stats.memory_limit == stats.cache_limit == 2**64 - 1
    lines = dict(line.split(maxsplit=1) for line in repr(stats).splitlines()[1:])
    assert lines["memory_limit"] == lines["cache_limit"] == "none"
    with pytest.raises(memlimits.MemoryLimitError, match="Limit none, footprint") as caught:
        memlimits.allocate(2**62)
    assert caught.value.limit == 2**64 - 1


def test_a_budget_without_a_limit_takes_the_one_away_that_it_had():
    with memlimits.budget("outer", MIB):
        with memlimits.budget("b", MIB) as budget:
            assert budget.limit == MIB
        with memlimits.budget("b", 2**63):
            of = {each["name"]: each["limit"] for each in memory.budgets()}
            assert (of["outer"], of["outer/b"]) == (MIB, None)
            assert memlimits.effective_limit().tightest == "budget"
            assert [c.name for c in memlimits.effective_limit().candidates].count("outer/b") == 0


@pytest.mark.parametrize("arguments", [(), (1, 2)])
def test_a_missing_or_second_argument_is_an_error(arguments):
    before = limits()
    for function in TAKES_BYTES:
        with pytest.raises(TypeError, match="argument"):
            function(*arguments)
    assert limits() == before


@pytest.mark.parametrize(
    "function", [memlimits.set_memory_limit, memlimits.set_wired_limit, memlimits.allocate]
)
def test_none_means_something_for_the_cache_limit_only(function):
    before = limits()
    rule = (
        r"in bytes(, from 2\*\*63 on for none)?, or a size such as '2GiB', not the NoneType None$"
    )
    with pytest.raises(TypeError, match=rule):
        function(None)
    assert limits() == before


def repeat(text):
    """An object that shows itself so."""
    return type("Shown", (), {"__repr__": lambda self: text * 10**6})()


def in_words():
    """An object whose repr raises."""
    return type("Silent", (), {"__repr__": lambda self: {}["nothing"]})()


BLOCK = memlimits.allocate(0)
TAKES = {
    "allocate": memlimits.allocate,
    "memory": memlimits.set_memory_limit,
    "policy": memlimits.set_memory_policy,
    "timeout": lambda value: memlimits.set_memory_policy("wait", value),
    "seconds": memlimits.set_idle_timeout,
    "action": lambda value: memlimits.set_idle_timeout(1, value),
    "stall": lambda value: memlimits.set_pressure_trim(stall=value),
    "available": memlimits.set_pressure_trim,
    "interval": memlimits.auto_trim,
    "limits": lambda value: memlimits.limits(value),
    "decorator": lambda value: memlimits.limits()(value),
    "budget": memlimits.budget,
    "reserve": memlimits.reserve,
    "trim": memlimits.trim,
    "dl_device": lambda value: BLOCK.__dlpack__(dl_device=(value, 0)),
    "stream": lambda value: BLOCK.__dlpack__(stream=value),
}


@pytest.mark.parametrize("what", TAKES)
@pytest.mark.parametrize(
    "value",
    [10**5000, -(10**5000), "x" * 10**6, ["x"] * 10**6, repeat("text"), in_words()],
    ids=["huge", "negative", "str", "list", "long repr", "no repr"],
)
def test_a_message_is_short_whatever_the_value(what, value):
    before = (limits(), memlimits.get_idle_timeout(), memlimits.get_pressure_trim(), counts())
    with pytest.raises((TypeError, ValueError, BufferError)) as caught:
        TAKES[what](value)
    assert 20 < len(str(caught.value)) < 300
    assert "Exceeds the limit" not in str(caught.value)
    after = (limits(), memlimits.get_idle_timeout(), memlimits.get_pressure_trim(), counts())
    assert after == before


@pytest.mark.parametrize("what", ["timeout", "seconds", "stall", "interval"])
@pytest.mark.parametrize("value", [True, numpy.True_, "1", b"1", 1j, []])
def test_what_is_no_real_number_is_an_error(what, value):
    with pytest.raises(TypeError, match="must be a number, in "):
        TAKES[what](value)


@pytest.mark.parametrize("what", ["timeout", "seconds", "stall", "interval"])
def test_a_real_number_of_any_type_is_taken(what):
    for value in (5, 5.0, numpy.float32(5), numpy.int8(5), Index(5), fractions.Fraction(10, 2)):
        found = TAKES[what](value)
        if what == "interval":
            assert found.interval == 5
            found.close()
    found = {
        "timeout": memlimits.get_memory_policy(),
        "seconds": memlimits.get_idle_timeout(),
        "stall": memlimits.get_pressure_trim()[1],
    }
    memlimits.set_idle_timeout(None)
    memlimits.set_pressure_trim(32 * MIB)
    if what == "timeout":
        assert found[what].timeout == 5
    elif what in found:
        assert found[what] == 5


class Once:
    """A number that can be asked for once."""

    def __init__(self):
        self.asked = 0

    def __index__(self):
        self.asked += 1
        return 4096


@pytest.mark.parametrize(
    "function",
    [
        memlimits.allocate,
        memlimits.would_fit,
        memlimits.reserve,
        memlimits.trim,
        memlimits.set_memory_limit,
        memlimits.set_cache_limit,
        memlimits.set_wired_limit,
        memlimits.set_pressure_trim,
        memlimits.set_idle_timeout,
        lambda value: memlimits.budget("b", value),
        lambda value: memlimits.limits(memory=value),
    ],
)
def test_a_number_is_asked_for_once(function):
    number = Once()
    function(number)
    memlimits.set_idle_timeout(None)
    memlimits.set_pressure_trim(32 * MIB)
    assert number.asked == 1


@pytest.mark.parametrize("value", [4096, Index(4096), numpy.int16(4096), numpy.uint64(4096)])
def test_anything_with_index_is_a_number_of_bytes(value):
    memlimits.set_memory_limit(value)
    assert memlimits.get_memory_limit() == 4096
    memlimits.set_memory_limit(MIB)
    memlimits.set_cache_limit(value)
    assert memlimits.get_cache_limit() == 4096
    memlimits.set_wired_limit(value)
    assert memlimits.get_wired_limit() == 4096
    assert memlimits.allocate(value).nbytes == 4096
    assert type(memlimits.get_cache_limit()) is int


def in_a_scope(name):
    def set_and_get(size):
        with memlimits.limits(**{name: size}):
            return getattr(memlimits, f"get_{name}_limit")()

    return set_and_get


def after(setter, getter):
    def set_and_get(size):
        before = setter(size)
        found = getter()
        setter(*before) if isinstance(before, tuple) else setter(before)
        return found[0] if isinstance(found, tuple) else found

    return set_and_get


def left_by_trim(size):
    blocks = [memlimits.allocate(MIB) for _ in range(8)]
    for block in blocks:
        block.release()
    memlimits.trim(size)
    return memlimits.get_cache_memory()


TAKES_SIZES = {
    "allocate": lambda size: memlimits.allocate(size).nbytes,
    "would_fit": lambda size: memlimits.would_fit(size).nbytes,
    "reserve": lambda size: memlimits.reserve(size).nbytes,
    "budget": lambda size: memlimits.budget("sizes", limit=size).limit,
    "trim": left_by_trim,
    "memory": after(memlimits.set_memory_limit, memlimits.get_memory_limit),
    "cache": after(memlimits.set_cache_limit, memlimits.get_cache_limit),
    "wired": after(memlimits.set_wired_limit, memlimits.get_wired_limit),
    "holders": after(memlimits.set_holder_sampling, memlimits.get_holder_sampling),
    "pressure": after(memlimits.set_pressure_trim, memlimits.get_pressure_trim),
    "memory of a scope": in_a_scope("memory"),
    "cache of a scope": in_a_scope("cache"),
    "wired of a scope": in_a_scope("wired"),
}


@pytest.mark.parametrize("what", TAKES_SIZES)
def test_what_takes_bytes_takes_a_size_in_words(what):
    function = TAKES_SIZES[what]
    try:
        for size in ("4MiB", "4 mib", "4M", "4096KiB", str(4 * MIB)):
            assert function(size) == 4 * MIB == function(4 * MIB)
        before = (limits(), counts())
        with pytest.raises(ValueError, match=r"^\w+: invalid size '4Mib[.]': write it as 512MiB, "):
            function("4Mib.")
        if what != "trim":
            assert (limits(), counts()) == before
    finally:
        memlimits.set_pressure_trim(32 * MIB)


def test_a_share_is_of_the_memory_size_and_max_is_no_limit():
    size = memlimits.device_info()["memory_size"]
    assert memlimits.would_fit("50%").nbytes == size // 2
    with memlimits.limits(memory="max"):
        assert memlimits.get_memory_limit() == 2**63
    assert memlimits.budget("b", "infinity").limit == 2**63
    with pytest.raises(ValueError, match=r"2\*\*63 - 1 bytes, not 'max'$"):
        memlimits.allocate("max")


@pytest.mark.parametrize("limit", ["2", "1MiB", True, 1.5, -1])
def test_how_many_holders_is_no_size(limit):
    with pytest.raises((TypeError, ValueError), match=r"limit must be .* how many at most"):
        memlimits.holders(limit)


@pytest.mark.parametrize("numbers", [[10, 0, 2**63 - 1, 1, 10 * MIB]])
def test_setters_return_the_previous_value(numbers):
    previous = memlimits.get_memory_limit()
    memlimits.set_cache_limit(previous)
    for number in numbers:
        assert memlimits.set_memory_limit(number) == previous
        assert memlimits.set_cache_limit(number) == previous
        assert memlimits.get_memory_limit() == memlimits.get_cache_limit() == number
        previous = number


def test_set_wired_limit_returns_the_previous_value():
    assert memlimits.set_wired_limit(8192) == 0
    assert memlimits.set_wired_limit(1) == 8192
    assert memlimits.get_wired_limit() == 1


def test_get_memory_policy_returns_a_value_that_the_setter_accepts():
    assert memlimits.get_memory_policy() == "guideline"
    memlimits.set_memory_policy("wait", timeout=2.5)
    policy = memlimits.get_memory_policy()
    assert (policy, policy.timeout) == ("wait", 2.5)
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_policy(policy)
    assert memlimits.get_memory_policy().timeout == 2.5


def test_the_previous_policy_comes_back_with_its_timeout():
    assert memlimits.set_memory_policy("wait", timeout=1.5) == "guideline"
    previous = memlimits.set_memory_policy("strict")
    assert (previous, previous.timeout) == ("wait", 1.5)
    assert memlimits.set_memory_policy(previous) == "strict"
    assert memory.get_memory_policy() == "wait"
    assert memory.get_memory_policy().timeout == 1.5
    assert memlimits.set_memory_policy(previous, timeout=3) == "wait"
    assert memory.get_memory_policy().timeout == 3
    memlimits.set_memory_policy("wait")
    assert memory.get_memory_policy().timeout == 60


@pytest.mark.parametrize(
    ("policy", "timeout", "error", "message"),
    [
        ("wait", -1, ValueError, "timeout must be from 0 to 1000000000 seconds"),
        ("wait", float("inf"), ValueError, "not inf"),
        ("wait", float("nan"), ValueError, "not nan"),
        ("wait", 10**400, ValueError, "timeout must be from 0"),
        (
            "wait",
            "soon",
            TypeError,
            "timeout must be a number, in seconds, or None for 60 s, not 'soon'",
        ),
        ("wait", True, TypeError, "not True"),
        ("strict", 1, ValueError, "only the policy 'wait' takes a timeout"),
        ("guideline", 1, ValueError, "only the policy 'wait' takes a timeout"),
        ("WAIT", None, ValueError, "must be 'guideline', 'strict' or 'wait', not 'WAIT'"),
        ("", None, ValueError, "not ''"),
        ("strict ", None, ValueError, "not 'strict '"),
        (b"wait", None, TypeError, "not b'wait'"),
        (None, None, TypeError, "policy must be .*, not None"),
        (0, None, TypeError, "policy must be .*, not 0"),
        (["strict"], None, TypeError, r"policy must be .*, not \['strict'\]"),
    ],
)
def test_what_is_no_policy_is_refused(policy, timeout, error, message):
    memlimits.set_memory_policy("wait", timeout=2)
    with pytest.raises(error, match=message):
        memlimits.set_memory_policy(policy, timeout)
    kept = memory.get_memory_policy()
    assert (kept, kept.timeout) == ("wait", 2)
