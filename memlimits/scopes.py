"""Functions that run inside a scope: `limits` as a decorator.

What `inspect` and `functools` would do is done here: to import them takes as long as memlimits
does, and fails where a program has no file descriptor left.
"""

import sys

from memlimits._bindings.limit_scopes import limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from typing import Any

__all__ = ["decorated", "limits"]

# In a function's code, as in `inspect`.
_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200
_COPIED = ("__module__", "__name__", "__qualname__", "__doc__", "__type_params__")
_ANNOTATIONS = "__annotate__" if sys.version_info >= (3, 14) else "__annotations__"


def decorated(make: "Callable[[], limits]", function: "Callable[..., Any]") -> "Any":
    """Return the function with its body in a scope, which `make` makes anew for each call.

    Raises
    ------
    TypeError
        `function` is not a function, a method or another callable that is no class.
    """
    if not callable(function) or isinstance(function, type):
        raise TypeError(
            f"limits() decorates functions, not a {type(function).__name__}: write "
            "`with limits(...):` inside"
        )
    return _update(_wrapper_for(function)(make, function), function)


def _update(wrapper: "Any", function: "Any") -> "Any":
    for name in (*_COPIED, _ANNOTATIONS):
        try:
            setattr(wrapper, name, getattr(function, name))
        except (AttributeError, TypeError):
            continue  # An object that is called may have none, or answer with anything.
    wrapper.__dict__.update(getattr(function, "__dict__", {}))
    wrapper.__wrapped__ = function
    return wrapper


def _wrapper_for(function: "Callable[..., Any]") -> "Callable[..., Any]":
    # Of an object that can be called, its class knows of which kind it is.
    for body in (function, type(function).__call__):
        flags = _flags(body)
        if flags & _COROUTINE or _is_marked(body):
            return _coroutine
        if flags & _ASYNC_GENERATOR:
            return _async_generator
        if flags & _GENERATOR:
            return _generator
    return _plain


def _flags(body: "Any") -> int:
    """Of the function that is called in the end."""
    functools = sys.modules.get("functools")
    partial: Any = getattr(functools, "partial", ())
    unbound: Any = getattr(functools, "partialmethod", ())
    while True:
        if type(body) is _METHOD:
            body = body.__func__
        elif isinstance(body, (partial, unbound)):
            body = body.func
        elif isinstance(of := getattr(body, "__partialmethod__", None), unbound):
            body = of
        else:
            break
    code = getattr(body, "__code__", None)
    return code.co_flags if isinstance(code, _CODE) else 0


_METHOD: "Any" = type(_flags.__get__(0))
_CODE: "Any" = type(_flags.__code__)


def _is_marked(body: "Any") -> bool:
    """Whether it was said to be a coroutine function, by a function of `inspect`."""
    says = getattr(sys.modules.get("inspect"), "iscoroutinefunction", None)
    return says is not None and says(body)


def _plain(make: "Callable[[], limits]", function: "Callable[..., Any]") -> "Any":
    def inside(*args: "Any", **keywords: "Any") -> "Any":
        with make():
            return function(*args, **keywords)

    return inside


def _coroutine(make: "Callable[[], limits]", function: "Callable[..., Any]") -> "Any":
    async def inside(*args: "Any", **keywords: "Any") -> "Any":
        with make():
            return await function(*args, **keywords)

    return inside


def _generator(make: "Callable[[], limits]", function: "Callable[..., Any]") -> "Any":
    def inside(*args: "Any", **keywords: "Any") -> "Generator[Any, Any, Any]":
        with make():
            return (yield from function(*args, **keywords))

    return inside


def _async_generator(make: "Callable[[], limits]", function: "Callable[..., Any]") -> "Any":
    async def inside(*args: "Any", **keywords: "Any") -> "AsyncGenerator[Any, Any]":
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
