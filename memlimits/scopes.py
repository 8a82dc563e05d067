"""Functions that run inside a scope: `limits` as a decorator. Imported when one is used so."""

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from memlimits._scopes import limits

__all__ = ["decorated", "limits"]


def decorated(make: Callable[[], limits], function: Callable[..., Any]) -> Any:
    """Return the function with its body in a scope, which `make` makes anew for each call.

    Raises
    ------
    TypeError
        `function` is not a function, a method or another callable that is no class.
    """
    if not callable(function) or isinstance(function, type):
        raise TypeError(f"limits() decorates functions, not a {type(function).__name__}")
    wrapper = _wrapper_for(function)(make, function)
    return functools.update_wrapper(wrapper, function)


def _wrapper_for(function: Callable[..., Any]) -> Callable[..., Any]:
    # Of an object that can be called, its class knows of which kind it is.
    for body in (function, type(function).__call__):
        if inspect.iscoroutinefunction(body):
            return _coroutine
        if inspect.isasyncgenfunction(body):
            return _async_generator
        if inspect.isgeneratorfunction(body):
            return _generator
    return _plain


def _plain(make: Callable[[], limits], function: Callable[..., Any]) -> Any:
    def inside(*args: Any, **keywords: Any) -> Any:
        with make():
            return function(*args, **keywords)

    return inside


def _coroutine(make: Callable[[], limits], function: Callable[..., Any]) -> Any:
    async def inside(*args: Any, **keywords: Any) -> Any:
        with make():
            return await function(*args, **keywords)

    return inside


def _generator(make: Callable[[], limits], function: Callable[..., Any]) -> Any:
    def inside(*args: Any, **keywords: Any) -> Generator[Any, Any, Any]:
        with make():
            return (yield from function(*args, **keywords))

    return inside


def _async_generator(make: Callable[[], limits], function: Callable[..., Any]) -> Any:
    async def inside(*args: Any, **keywords: Any) -> AsyncGenerator[Any, Any]:
        with make():
            generator = function(*args, **keywords)
            try:
                step = generator.asend(None)
                while True:
                    value = await step
                    try:
                        step = generator.asend((yield value))
                    except GeneratorExit:
                        raise
                    except BaseException as error:
                        step = generator.athrow(error)
            except StopAsyncIteration:
                pass
            finally:
                await generator.aclose()

    return inside
