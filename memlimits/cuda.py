"""CUDA: wired memory that is copied to and from NVIDIA's GPUs as fast as can be, on Linux.

`attach` has what is wired registered with the GPU's driver, which pins its pages: for CUDA, and so
for PyTorch, CuPy and JAX, it is pinned memory then. It takes the driver that is there, and nothing
else of CUDA's.
"""

import os
from types import TracebackType

from memlimits import _modules
from memlimits._bindings.allocator import default_allocator
from memlimits.errors import DeviceError

_cuda = _modules.for_cuda()

TYPE_CHECKING = False  # typing's own would cost its import
if TYPE_CHECKING:
    from typing import SupportsIndex

__all__ = ["Attachment", "attach"]

# Another file may stand in for the driver's library: for tests.
_LIBRARY = "MEMLIMITS_LIBCUDA"


class Attachment:
    """Wired memory is registered with CUDA until this is closed. Made by `attach`.

    Or until the end of the ``with`` block. Dropping it changes nothing.

    Attributes
    ----------
    device : int
        The GPU in whose context it is registered.

    See Also
    --------
    attach : make one.
    """

    device: int

    def __init__(self, device: "SupportsIndex | None") -> None:
        if _modules.for_process().governs():
            raise DeviceError(
                "CUDA cannot be attached where malloc is governed (--govern all): the driver asks "
                "malloc for memory with locks of its own held, and could wait for itself. Govern "
                "NumPy or Python's objects instead"
            )
        library = os.fsencode(os.environ.get(_LIBRARY) or "libcuda.so.1")
        self._allocator = default_allocator()
        self.device = _cuda.attach(self._allocator, library, device)
        self._pid = os.getpid()
        self._closed = False

    def close(self) -> None:
        """Register nothing any more. A second call does nothing.

        What is wired stays so, as far as the system lets it be locked. Copies that the GPU has not
        done have to be waited for first.
        """
        if not self._closed:
            self._closed = True
            # A forked child has nothing that is registered, but may have an attachment of its own.
            if self._pid == os.getpid():
                _cuda.detach(self._allocator)

    def __enter__(self) -> "Attachment":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def attach(device: "SupportsIndex | None" = None) -> Attachment:
    """Have what is wired registered with CUDA.

    What is in use within the wired limit (`memlimits.set_wired_limit`), and what is asked for first
    (``allocate``, ``empty`` and ``zeros`` with ``wired=True``, `memlimits.wire`), is registered at
    once, and what becomes so later when it does: whole blocks, each once. It stays registered while
    it is kept for reuse, so that the next block of its length costs nothing. It is for every GPU.

    Registering takes all pages of a block, touched or not. So the system's room is read first: what
    it has no room for is not wired, which is counted (``stats().registration_failures``) and warned
    of once. What CUDA refuses to register is locked instead, as without it, counted and warned of
    likewise. The limit on locked memory, ``ulimit -l``, is not asked as long as CUDA is attached.

    The cache is emptied, since what is idle in it is not registered.

    Parameters
    ----------
    device : int or None
        The number of the GPU in whose primary context it is registered, that of ``cuda:0`` in
        PyTorch being 0. None for the one that this thread works on, or else the first.

    Returns
    -------
    Attachment
        A context manager with ``close``, and the GPU's number as ``device``.

    Raises
    ------
    DeviceError
        There is no driver, or one that is too old, or no GPU to be seen; the GPU has no memory for
        a context, or the system none for CUDA's start; CUDA is attached already; malloc is governed
        (``--govern all``); this is a forked child of a process that uses CUDA. The reason is in it,
        and nothing has changed.
    ValueError
        `device` is no number of a GPU here.
    TypeError
        `device` is no integer.

    See Also
    --------
    memlimits.set_wired_limit : have something to register.
    memlimits.Buffer : its ``registered`` says what became of it.

    Notes
    -----
    A forked child goes on without: nothing is registered there, and the driver is not called.

    A copy that does not block reads, or writes, the memory later: who holds it keeps it until the
    stream has come so far. What is let go of before may be another's by then.

    A function that the driver calls (``cudaLaunchHostFunc``) must not ask memlimits for memory, nor
    wait for a thread that does: taking back a registration may wait for the GPU, which waits for
    that function. Nor may CUDA's context be destroyed (``cudaDeviceReset``) while it is attached:
    what was registered in it is not any more then, and nothing else is until it is attached anew.

    Examples
    --------
    With PyTorch, and a GPU:

    >>> import memlimits, memlimits.cuda, torch  # doctest: +SKIP
    >>> memlimits.set_wired_limit(1 << 30)  # doctest: +SKIP
    >>> with memlimits.cuda.attach():  # doctest: +SKIP
    ...     batch = torch.from_numpy(memlimits.empty((256, 3, 224, 224), "f4", wired=True))
    ...     on_gpu = batch.to("cuda", non_blocking=True)
    """
    return Attachment(device)
