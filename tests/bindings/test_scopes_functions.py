"""`memlimits.limits` as a decorator, and with tasks of asyncio."""

import asyncio
import functools
import sys
import threading

import pytest

import memlimits
from memlimits import get_memory_limit
from support.threads import run_threads
from support.units import MIB


@pytest.fixture(autouse=True)
def as_before():
    before = get_memory_limit(), memlimits.get_cache_limit()
    yield
    assert (get_memory_limit(), memlimits.get_cache_limit()) == before


def test_a_call_has_a_scope_of_its_own():
    base = get_memory_limit()
    seen = []

    @memlimits.limits(memory=MIB)
    def function(depth, *, key="word"):
        """Go down."""
        seen.append(get_memory_limit())
        assert memlimits.set_memory_limit((depth + 2) * MIB) == MIB
        if depth:
            function(depth - 1)
        assert get_memory_limit() == (depth + 2) * MIB
        return depth, key

    assert (function.__name__, function.__doc__) == ("function", "Go down.")
    assert function(3, key=1) == (3, 1)
    assert seen == [MIB] * 4
    assert get_memory_limit() == base


def test_on_several_threads_at_once():
    together = threading.Barrier(3)

    @memlimits.limits(memory=MIB)
    def function():
        together.wait(10)
        assert get_memory_limit() == MIB
        together.wait(10)

    run_threads(function, function, function)


def test_a_function_that_raises():
    @memlimits.limits(memory=MIB)
    def function():
        raise KeyError

    with pytest.raises(KeyError):
        function()


def test_a_method():
    class Model:
        @memlimits.limits(memory=MIB)
        def fit(self):
            return self, get_memory_limit()

    model = Model()
    assert model.fit() == (model, MIB)


def test_a_generator_is_inside_from_its_first_step_to_its_end():
    base = get_memory_limit()

    @memlimits.limits(memory=MIB)
    def generator():
        try:
            got = yield get_memory_limit()
            while True:
                try:
                    got = yield got, get_memory_limit()
                except KeyError:
                    return "returned"
        finally:
            assert get_memory_limit() == MIB

    made, another = generator(), generator()
    assert get_memory_limit() == base
    assert next(made) == next(another) == MIB
    another.close()
    assert made.send(5) == (5, MIB)
    assert get_memory_limit() == MIB
    with pytest.raises(StopIteration, match="returned"):
        made.throw(KeyError)
    assert get_memory_limit() == base
    abandoned = generator()
    next(abandoned)
    del abandoned
    assert get_memory_limit() == base


def test_a_coroutine_is_inside_until_it_is_done():
    base = get_memory_limit()

    @memlimits.limits(memory=MIB)
    async def coroutine(fails):
        await asyncio.sleep(0)
        assert get_memory_limit() == MIB
        if fails:
            raise KeyError
        return "value"

    async def several():
        return await asyncio.gather(coroutine(False), coroutine(False))

    assert asyncio.run(several()) == ["value", "value"]
    made = coroutine(False)
    assert get_memory_limit() == base
    assert asyncio.run(made) == "value"
    with pytest.raises(KeyError):
        asyncio.run(coroutine(True))
    partial = memlimits.limits(memory=MIB)(functools.partial(coroutine.__wrapped__, False))
    assert asyncio.run(partial()) == "value"


def test_an_object_that_is_called_like_a_coroutine_function():
    class Job:
        async def __call__(self):
            await asyncio.sleep(0)
            return get_memory_limit()

    assert asyncio.run(memlimits.limits(memory=MIB)(Job())()) == MIB


def test_an_async_generator_takes_what_is_sent_thrown_and_closed():
    events = []

    @memlimits.limits(memory=MIB)
    async def generator():
        try:
            got = yield "first"
            while True:
                events.append((got, get_memory_limit()))
                try:
                    got = yield got
                except KeyError:
                    got = yield "caught"
        finally:
            await asyncio.sleep(0)
            events.append(("closed", get_memory_limit()))

    async def main():
        made = generator()
        assert await anext(made) == "first"
        assert await made.asend(1) == 1
        assert await made.athrow(KeyError) == "caught"
        assert await made.asend(2) == 2
        await made.aclose()
        assert get_memory_limit() != MIB
        assert [value async for value in short()] == [MIB, MIB]
        assert [(a, b) async for a in short() async for b in short()] == [(MIB, MIB)] * 4
        with pytest.raises(ZeroDivisionError):
            await anext(failing())

    @memlimits.limits(memory=MIB)
    async def short():
        yield get_memory_limit()
        yield get_memory_limit()

    @memlimits.limits(memory=MIB)
    async def failing():
        yield 1 / 0

    asyncio.run(main())
    assert events == [(1, MIB), (2, MIB), ("closed", MIB)]


def test_arguments_that_it_does_not_have():
    message = r"limits\(\) got an unexpected keyword argument 'foo': it takes "
    with pytest.raises(TypeError, match=f"^{message}"):
        memlimits.limits(memory=MIB, foo=1)
    with pytest.raises(TypeError, match=r"^limits\(\) takes keyword arguments only, .* not 5$"):
        memlimits.limits(5)


@pytest.mark.parametrize("what", [int, 5, None, "name"])
def test_what_is_no_function_is_refused(what):
    with pytest.raises(TypeError, match="decorates functions"):
        memlimits.limits(memory=MIB)(what)


def test_tasks_that_overlap_end_in_any_order():
    base = get_memory_limit()

    async def task(n, begins, ends):
        await begins.wait()
        with memlimits.limits(memory=n * MIB):
            await ends.wait()

    async def main():
        names = "abc"
        begins = {name: asyncio.Event() for name in names}
        ends = {name: asyncio.Event() for name in names}
        tasks = {
            name: asyncio.create_task(task(n, begins[name], ends[name]))
            for n, name in enumerate(names, 1)
        }
        for n, name in enumerate(names, 1):
            begins[name].set()
            await asyncio.sleep(0)
            assert get_memory_limit() == n * MIB
        ends["b"].set()
        await tasks["b"]
        assert get_memory_limit() == 3 * MIB
        tasks["c"].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks["c"]
        assert get_memory_limit() == MIB
        ends["a"].set()
        await tasks["a"]
        assert get_memory_limit() == base

    asyncio.run(main())


def test_an_object_that_answers_to_every_name():
    class Remote:
        def __getattr__(self, name):
            return self

        def __call__(self):
            return get_memory_limit()

    inside = memlimits.limits(memory=MIB)(Remote())
    assert inside() == MIB
    assert inside.__name__ == "inside"


def generate():
    yield get_memory_limit()


class Kinds:
    method = lambda self: (yield get_memory_limit())  # noqa: E731
    partial = functools.partialmethod(method)


@pytest.mark.parametrize("function", [
    generate,
    Kinds().method,
    functools.partial(Kinds().method),
    pytest.param(Kinds().partial, marks=pytest.mark.skipif(
        sys.version_info < (3, 13), reason="inspect does not see it either")),
])  # fmt: skip
def test_what_calls_a_generator_function_is_a_generator_function(function):
    made = memlimits.limits(memory=MIB)(function)()
    assert get_memory_limit() != MIB
    assert next(made) == MIB
    assert list(made) == []
