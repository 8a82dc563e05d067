"""DLPack (dmlc/dlpack's specification, versions 0 and 1): bytes as a tensor on the CPU."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    DLPACK_MAJOR = 1
    DLPACK_MINOR = 0
    DL_CPU = 1              # DLDeviceType
    DL_UINT = 1             # DLDataTypeCode
    DL_IS_COPIED = 2        # a flag: the producer made a copy

cdef struct DLDevice:
    int32_t device_type
    int32_t device_id

cdef struct DLDataType:
    uint8_t code
    uint8_t bits
    uint16_t lanes

cdef struct DLTensor:
    void *data
    DLDevice device
    int32_t ndim
    DLDataType dtype
    int64_t *shape
    int64_t *strides        # in elements
    uint64_t byte_offset

cdef struct DLPackVersion:
    uint32_t major
    uint32_t minor

cdef struct DLManagedTensor:
    DLTensor dl_tensor
    void *manager_ctx
    void (*deleter)(DLManagedTensor *) noexcept nogil

cdef struct DLManagedTensorVersioned:
    DLPackVersion version
    void *manager_ctx
    void (*deleter)(DLManagedTensorVersioned *) noexcept nogil
    uint64_t flags
    DLTensor dl_tensor


# A one-dimensional uint8 tensor over all bytes of an object that exports a writable buffer, which
# stays exported until the consumer deletes the tensor. `copied`: the bytes are the tensor's own.
cdef extern object dlpack_capsule(object owner, bint versioned, bint copied)
