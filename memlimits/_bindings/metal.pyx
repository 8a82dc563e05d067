from libc.stdint cimport uint64_t

from memlimits._bindings.allocator cimport Allocator
from memlimits._bindings.arguments cimport as_integer, shown
from memlimits._device.mlim cimport mlim_queue, mlim_queue_close
from memlimits._residency.plan cimport (
    ATTACHED, ATTACHED_BEFORE, NOT_ATTACHED, Attached, residency_attach, residency_detach,
)

from memlimits.errors import DeviceError


cdef uint64_t as_address(object value, str name) except 0:
    """An address that an object can have: they are multiples of 16."""
    value = as_integer(value, name, "the address of a command queue")
    if not 0 < value < 1 << 64 or value % 16:
        raise ValueError(f"{name} must be the address of a command queue, not {shown(value)}")
    return value


def attach(Allocator allocator not None, queue):
    """Attach an allocator's residency sets to a command queue; return the queue's address."""
    cdef uint64_t address = as_address(queue, "queue")
    cdef mlim_queue *handle
    cdef Attached attached
    if not allocator.is_metal():
        raise DeviceError(
            "there is no Metal here to attach a queue of: memory comes from the host device "
            "(device_info()['backend'])")
    handle = allocator.device.open_queue(address)
    with nogil:
        attached = residency_attach(&allocator.core.residency, handle, address)
        if attached != ATTACHED:
            mlim_queue_close(handle)
    if attached == ATTACHED_BEFORE:
        raise ValueError(
            f"the queue at {address:#x} is attached already: close that attachment first")
    if attached == NOT_ATTACHED:
        raise MemoryError
    return address


def detach(Allocator allocator not None, uint64_t address):
    """Detach the sets from a queue, if they still are attached to it."""
    with nogil:
        residency_detach(&allocator.core.residency, address)
