from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid, PyCapsule_New

cdef extern from "Python.h":
    int Py_IsInitialized() nogil

cdef const char *UNVERSIONED = "dltensor"
cdef const char *VERSIONED = "dltensor_versioned"

# What a tensor's manager_ctx points at: all that the consumer deletes.
cdef struct Export:
    DLManagedTensor unversioned
    DLManagedTensorVersioned versioned
    Py_buffer view
    int64_t shape
    int64_t stride


cdef object dlpack_capsule(object owner, bint versioned, bint copied):
    cdef Export *export = <Export *> PyMem_Malloc(sizeof(Export))
    if export == NULL:
        raise MemoryError
    try:
        PyObject_GetBuffer(owner, &export.view, PyBUF_WRITABLE)
    except BaseException:
        PyMem_Free(export)
        raise
    describe(export, &export.versioned.dl_tensor if versioned else &export.unversioned.dl_tensor)
    export.unversioned.manager_ctx = export
    export.unversioned.deleter = delete_unversioned
    export.versioned.manager_ctx = export
    export.versioned.deleter = delete_versioned
    export.versioned.version.major = DLPACK_MAJOR
    export.versioned.version.minor = DLPACK_MINOR
    export.versioned.flags = DL_IS_COPIED if copied else 0
    try:
        if versioned:
            return PyCapsule_New(&export.versioned, VERSIONED, drop_versioned)
        return PyCapsule_New(&export.unversioned, UNVERSIONED, drop_unversioned)
    except BaseException:
        end(export)
        raise


cdef void describe(Export *export, DLTensor *tensor) noexcept:
    export.shape = export.view.len
    export.stride = 1
    tensor.data = export.view.buf
    tensor.device.device_type = DL_CPU
    tensor.device.device_id = 0
    tensor.ndim = 1
    tensor.dtype.code = DL_UINT
    tensor.dtype.bits = 8
    tensor.dtype.lanes = 1
    tensor.shape = &export.shape
    tensor.strides = &export.stride
    tensor.byte_offset = 0


cdef void end(void *context) noexcept nogil:
    """A consumer may delete a tensor without the GIL.

    And after the interpreter has ended: then there is nothing left to give back to.
    """
    if Py_IsInitialized():
        with gil:
            PyBuffer_Release(&(<Export *> context).view)
            PyMem_Free(context)


cdef void delete_unversioned(DLManagedTensor *tensor) noexcept nogil:
    end(tensor.manager_ctx)


cdef void delete_versioned(DLManagedTensorVersioned *tensor) noexcept nogil:
    end(tensor.manager_ctx)


# The destructors of capsules: one that was consumed has another name, and another owner.

cdef void drop_unversioned(object capsule) noexcept:
    if PyCapsule_IsValid(capsule, UNVERSIONED):
        end((<DLManagedTensor *> PyCapsule_GetPointer(capsule, UNVERSIONED)).manager_ctx)


cdef void drop_versioned(object capsule) noexcept:
    if PyCapsule_IsValid(capsule, VERSIONED):
        end((<DLManagedTensorVersioned *> PyCapsule_GetPointer(capsule, VERSIONED)).manager_ctx)
