from memlimits._bindings.allocator cimport Allocator
from memlimits._bindings.arguments cimport as_integer, shown
from memlimits._device.mlim cimport mlim_cuda, mlim_cuda_close, mlim_cuda_ordinal, mlim_error
from memlimits._engine.controls cimport controls_clear_cache
from memlimits._residency.plan cimport (
    ATTACHED, Attached, residency_register, residency_unregister, residency_why_not,
)

from memlimits.errors import DeviceError

cdef enum:
    MOST_GPUS = 1 << 20     # that a number may be of


cdef int as_ordinal(object device) except -2:
    """The number of a GPU, -1 for the one that is used already."""
    if device is None:
        return -1
    number = as_integer(device, "device", "the number of a GPU")
    if not 0 <= number < MOST_GPUS:
        raise ValueError(f"device must be the number of a GPU, from 0 on, not {shown(device)}")
    return number


cdef int raise_attached() except -1:
    raise DeviceError(
        "CUDA is attached already, for all GPUs: close that attachment before another is made")


def is_attached(Allocator allocator not None):
    """Whether an allocator's wired memory is registered with CUDA."""
    cdef mlim_error error
    cdef bint attached
    with nogil:
        attached = residency_why_not(&allocator.core.residency, &error)
    return attached


def attach(Allocator allocator not None, bytes library not None, device):
    """Register an allocator's wired memory with the driver of this library; return the GPU."""
    cdef int ordinal = as_ordinal(device)
    cdef mlim_cuda *cuda
    cdef Attached attached
    if is_attached(allocator):
        raise_attached()
    cuda = allocator.device.open_cuda(library, ordinal)
    ordinal = mlim_cuda_ordinal(cuda)
    with nogil:
        attached = residency_register(&allocator.core.residency, cuda)
        if attached != ATTACHED:
            mlim_cuda_close(cuda)
        else:
            # Only what is in use is wired: who takes what was idle would have it not registered.
            controls_clear_cache(&allocator.core)
    if attached != ATTACHED:
        raise_attached()
    allocator.report_wire_failures()
    return ordinal


def detach(Allocator allocator not None):
    """Register nothing any more. In a forked child there is nothing to end."""
    with nogil:
        mlim_cuda_close(residency_unregister(&allocator.core.residency))
