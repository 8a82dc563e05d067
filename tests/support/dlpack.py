"""DLPack's structures, and what its consumers do with them."""

import ctypes


class Tensor(ctypes.Structure):
    """DLTensor, as the DLPack specification lays it out."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class Managed(ctypes.Structure):
    _fields_ = (
        ("tensor", Tensor),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
    )


class ManagedVersioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
        ("flags", ctypes.c_uint64),
        ("tensor", Tensor),
    )


def struct_in(capsule, name=b"dltensor", layout=Managed):
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    return layout.from_address(get(capsule, name))


def versioned_struct(capsule):
    return struct_in(capsule, b"dltensor_versioned", ManagedVersioned)


def consume(capsule, versioned):
    """Take the tensor out of a capsule, as a consumer does; the deleter is now the caller's."""
    name = b"dltensor_versioned" if versioned else b"dltensor"
    rename = ctypes.pythonapi.PyCapsule_SetName
    rename.argtypes = (ctypes.py_object, ctypes.c_char_p)
    tensor = versioned_struct(capsule) if versioned else struct_in(capsule)
    consume.names[versioned] = b"used_" + name  # PyCapsule keeps the pointer
    rename(capsule, consume.names[versioned])
    return tensor


consume.names = {}


class OldProducer:
    """What a producer of before DLPack 1.0 looks like to NumPy."""

    def __init__(self, buffer):
        self.buffer = buffer

    def __dlpack__(self, stream=None):
        return self.buffer.__dlpack__(stream=stream)

    def __dlpack_device__(self):
        return self.buffer.__dlpack_device__()
