"""Metal: for programs that send work to the GPU themselves.

``Buffer.metal_buffer`` says which ``MTLBuffer`` a block lies in, and `attach` keeps wired memory
resident for a command queue. On another device than Metal (``device_info()["backend"]``) neither is
to be had.
"""

from types import TracebackType

from memlimits import _modules
from memlimits._bindings.allocator import default_allocator

_metal = _modules.for_metal()

TYPE_CHECKING = False  # typing's own would cost its import
if TYPE_CHECKING:
    from typing import SupportsIndex

__all__ = ["Attachment", "attach"]


class Attachment:
    """A command queue has memlimits' residency sets until it is closed. Made by `attach`.

    Or until the end of the ``with`` block. Dropping it changes nothing: the queue stays attached.

    See Also
    --------
    attach : make one.
    """

    def __init__(self, queue: "SupportsIndex") -> None:
        self._allocator = default_allocator()
        self._address = _metal.attach(self._allocator, queue)
        self._closed = False

    def close(self) -> None:
        """Remove the sets from the queue, and let go of it. A second call does nothing.

        What is wired stays resident. Command buffers that were committed before keep the sets.
        """
        if not self._closed:
            self._closed = True
            _metal.detach(self._allocator, self._address)

    def __enter__(self) -> "Attachment":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def attach(queue: "SupportsIndex") -> Attachment:
    """Attach memlimits' residency sets to a command queue.

    Wired memory (`memlimits.set_wired_limit`) is then resident whenever the queue's command buffers
    run, without ``useResource:`` calls. The sets there are now are attached at once, and those that
    later wiring makes together with it. While the wired limit is 0 there is nothing to attach.

    A queue takes at most 32 residency sets. memlimits makes as many as what is wired needs, each a
    thirty-second of the recommended working set but at least 64 MiB, and never more than 32. Metal
    does not tell how many a queue has: a program that adds sets of its own keeps the wired limit
    low enough that the sum is within 32.

    Without residency sets, on macOS before 15 or a GPU before the Metal 3 family, the queue is
    accepted and nothing is done, as with the wired limit.

    Parameters
    ----------
    queue : int
        The address of an ``id<MTLCommandQueue>``: with PyObjC ``objc.pyobjc_id(queue)``. It is
        retained until `Attachment.close`. Any other object's address is refused, and an address
        where no object is ends the process.

    Returns
    -------
    Attachment
        A context manager with ``close``.

    Raises
    ------
    DeviceError
        There is no Metal here, the object is no command queue that takes residency sets, or this is
        a forked child of a process that uses Metal.
    ValueError
        The queue is attached already, or `queue` is no address that an object can have.
    TypeError
        `queue` is no integer.

    See Also
    --------
    memlimits.set_wired_limit : have something to attach.
    memlimits.Buffer : its ``metal_buffer`` is what the GPU works on.

    Examples
    --------
    With PyObjC, on a Mac:

    >>> import memlimits.metal, objc  # doctest: +SKIP
    >>> queue = device.newCommandQueue()  # doctest: +SKIP
    >>> with memlimits.metal.attach(objc.pyobjc_id(queue)):  # doctest: +SKIP
    ...     run(queue)
    """
    return Attachment(queue)
