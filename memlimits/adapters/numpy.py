"""NumPy arrays in memlimits' memory: single ones, or all that a program makes."""

import sys
import warnings

from memlimits.adapters._numpy import Governing, empty, govern, other_handler, zeros

__all__ = ["Governing", "empty", "govern_numpy", "zeros"]


def govern_numpy(*, aligned: bool | None = None) -> Governing:
    """Let NumPy's data allocations go through memlimits.

    It takes effect at once, in all of the process: in every thread, however it was started and
    whether it runs already, and in every context. Arrays made before keep their memory until they
    are resized; arrays made meanwhile keep theirs for as long as they live. Any array may be freed
    at any time, on any thread.

    NumPy's default handler (NEP 49) gets memlimits' functions in place, so
    ``numpy.get_handler_name`` goes on to say ``default_allocator``.

    Parameters
    ----------
    aligned : bool, optional
        Whether arrays start at multiples of 64 bytes; by default they do unless JAX has been
        imported. While a Governing is open for which they do not, new arrays start 32 bytes behind
        one, and take 32 bytes more. JAX on the CPU copies such an array, where it would go on to
        read one that is aligned after a call has returned.

    Returns
    -------
    Governing
        A context manager with `close`. While any is open NumPy is governed.

    Warns
    -----
    RuntimeWarning
        Another library has set a handler of its own in this context. It is left alone, and what it
        allocates is not seen.
    """
    if (name := other_handler()) is not None:
        message = (
            f"NumPy's arrays in this context are allocated by the handler {name!r} of another "
            "library, and stay outside the memory limit: end that before"
        )
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    return govern("jaxlib" not in sys.modules if aligned is None else aligned)
