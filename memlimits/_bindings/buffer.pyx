cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.object cimport PyObject, PyTypeObject, destructor
from libc.string cimport memcpy

from memlimits._base.python cimport (
    FastFunction, ObjectLock, PyCFunction, PyCFunctionObject, lock_object, revive, set_new,
    small_int, unlock_object,
)
from memlimits._base.sync cimport load_acquire, store_release
from memlimits._bindings.allocator cimport get_default, raise_refusal
from memlimits._bindings.arguments cimport as_nbytes, shown
from memlimits._bindings.contexts cimport account_here
from memlimits._bindings.dlpack cimport DLPACK_MAJOR, DL_CPU, dlpack_capsule
from memlimits._bindings.spares cimport MOST_SPARE, Spares, spares_here
from memlimits._bindings.wait_hooks cimport python_wait_hooks, raise_what_is_set
from memlimits._device.mlim cimport mlim_buffer_native
from memlimits._engine.charging cimport charging_alloc
from memlimits._engine.core cimport (
    Core, core_clear, core_free, core_hit, core_return, core_tell_now,
)
from memlimits._engine.failing cimport failing_refuses
from memlimits._engine.growth cimport growth_miss
from memlimits._engine.samples cimport samples_draws
from memlimits._engine.waiting cimport WaitHooks
from memlimits._heap.cache cimport LARGEST_SLAB_BLOCK
from memlimits._heap.resource cimport Resource
from memlimits._ledger.accounts cimport Account
from memlimits._ledger.limits cimport NOTHING, Blocker
from memlimits._ledger.queue cimport C_CODE
from memlimits._residency.pins cimport pins_change, pins_is_registered, pins_is_wired


cdef int alloc_block(Allocator allocator, uint64_t n, bint zeroed, Block *block) except -1:
    cdef Blocker blocker
    cdef WaitHooks hooks
    cdef bint looks = load_acquire(&allocator.core.accounts.open) != NULL
    cdef Account *account = account_here(&allocator.core) if looks else NULL
    cdef bint sampled = samples_draws(&allocator.core, n)
    if looks and failing_refuses(&allocator.core, n, C_CODE):
        raise_refusal(allocator)
    if account != NULL or sampled or not core_hit(&allocator.core, n, block):
        hooks = python_wait_hooks()
        with nogil:
            if account != NULL or sampled:
                blocker = charging_alloc(&allocator.core, account, n, sampled, &hooks, block)
            else:
                blocker = growth_miss(&allocator.core, n, &hooks, block)
        if blocker != NOTHING:
            block.resource = NULL
            if hooks.gave_up:
                raise_what_is_set()
            raise_refusal(allocator)
        allocator.report_wire_failures()
    if zeroed and not block.zeros:
        with nogil:
            core_clear(&allocator.core, block, n)
    return 0


cdef Buffer allocate_from(Allocator allocator, uint64_t n, bint zeroed):
    cdef Buffer buffer = Buffer.__new__(Buffer)
    buffer.nbytes = n
    buffer.allocator = allocator
    if n:
        alloc_block(allocator, n, zeroed, &buffer.block)
    return buffer


cdef Buffer allocate_wired(Allocator allocator, uint64_t n, bint zeroed):
    """A resource of its own, however short: it is to be wired without scratch beside it."""
    cdef uint64_t least = LARGEST_SLAB_BLOCK + 1
    cdef Buffer buffer = allocate_from(allocator, max(n, least) if n else 0, zeroed)
    buffer.nbytes = n
    if n:
        with nogil:
            pins_change(&allocator.core.residency, buffer.block.start, True)
            core_tell_now(&allocator.core)
        allocator.report_wire_failures()
    return buffer


def allocate(nbytes, *, bint zeroed=False, bint wired=False):
    """Allocate a block of memory within the limits.

    Parameters
    ----------
    nbytes : int or str
        Bytes, from 0 to 2**63 - 1, anything with ``__index__`` but bool; or a size such as
        ``"2GiB"``.
    zeroed : bool, optional
        Whether the block reads as zeros; otherwise it holds what was there.
    wired : bool, optional
        Whether the block is kept resident ahead of others, as far as the wired limit goes, now and
        whenever that is set, until it is released. What has to make room stays usable. Such a block
        takes whole pages, at least 36 KiB. `Buffer.wired` says what became of it.

    Returns
    -------
    Buffer
        Aligned to 64 bytes, and to the page from 32 KiB on.

    Raises
    ------
    MemoryLimitError
        The block was refused; its ``blocked_by`` says by what. No counter has moved.
    DeviceError
        In a forked child of a process that uses Metal, which does not survive a fork.
    TypeError, ValueError
        `nbytes` is no such integer or size.

    See Also
    --------
    empty, zeros : arrays that own their memory.
    would_fit : ask before.
    reserve : have room for several.

    Examples
    --------
    >>> import memlimits
    >>> with memlimits.allocate(5) as block:
    ...     memoryview(block)[:] = b"hello"
    ...     bytes(block)
    b'hello'

    What does not fit is refused, and says why:

    >>> with memlimits.limits(memory=1 << 20, policy="strict"):
    ...     memlimits.allocate(2 << 20)
    Traceback (most recent call last):
        ...
    memlimits.errors.MemoryLimitError: cannot allocate 2 MiB (2,097,152 bytes): ...
    """
    global default_core
    cdef Allocator allocator = get_default()
    store_release(<void **> &default_core, &allocator.core)
    if wired:
        return allocate_wired(allocator, as_nbytes(nbytes, "nbytes"), zeroed)
    return allocate_from(allocator, as_nbytes(nbytes, "nbytes"), zeroed)


def allocate_in(Allocator allocator not None, nbytes, *, bint zeroed=False, bint wired=False):
    """`allocate` from an allocator of one's own."""
    if wired:
        return allocate_wired(allocator, as_nbytes(nbytes, "nbytes"), zeroed)
    return allocate_from(allocator, as_nbytes(nbytes, "nbytes"), zeroed)


# Not a part of any cycle, since an Allocator refers to no Python code's objects; and the collector
# must not clear `allocator` before the block has gone back.
@cython.final
@cython.no_gc
cdef class Buffer:
    """A writable block of memory, made by `allocate`.

    It supports the buffer protocol and DLPack, so ``memoryview``, ``numpy.frombuffer`` and
    ``numpy.from_dlpack`` see its bytes without a copy. The block goes back with `release`, at the
    end of a ``with`` block, or with the last reference.

    Attributes
    ----------
    nbytes : int
        Bytes asked for.
    capacity : int
        Bytes that belong to the block, from `ptr` on; what the counters count.
    ptr : int
        Address of the first byte.
    wired : bool
        Whether the block is kept resident now: what it lies in is within the wired limit, and the
        system has taken it. False for a block of 0 bytes, and once released.
    registered : bool
        Whether it is so by way of CUDA, so that copies to and from a GPU are as fast as can be: see
        `memlimits.cuda.attach`.
    metal_buffer : tuple of int
        On Metal: the address of the Metal buffer that the block lies in, and at how many bytes.

    See Also
    --------
    allocate : make one.
    wire : keep its memory resident.

    Examples
    --------
    >>> import memlimits
    >>> block = memlimits.allocate(100)
    >>> block.nbytes, block.capacity, len(memoryview(block))
    (100, 128, 100)
    >>> block.release()
    """

    @property
    def capacity(self):
        return self.block.capacity

    @property
    def ptr(self):
        require(self)
        return <uint64_t> self.block.start

    @property
    def wired(self):
        cdef ObjectLock lock
        cdef Resource *resource
        cdef bint wired
        lock_object(&lock, <PyObject *> self)
        resource = self.block.resource
        wired = resource != NULL and pins_is_wired(&self.allocator.core.residency, resource)
        unlock_object(&lock)
        return wired

    @property
    def registered(self):
        """Whether the block is registered with CUDA now. False once released."""
        cdef ObjectLock lock
        cdef Resource *resource
        cdef bint registered
        lock_object(&lock, <PyObject *> self)
        resource = self.block.resource
        registered = resource != NULL and (
            pins_is_registered(&self.allocator.core.residency, resource))
        unlock_object(&lock)
        return registered

    @property
    def metal_buffer(self):
        """On Metal: the Metal buffer that the block lies in, and where.

        The buffer has shared storage, and its hazards are not tracked. Other blocks may lie in it:
        what is the block's are ``capacity`` bytes from the offset on. Hold the block until the GPU
        is done with it.

        Returns
        -------
        tuple of int
            The address of the Metal buffer, valid as long as the block is held and not retained for
            the caller, and the block's offset in it, in bytes, a multiple of 64. With PyObjC,
            ``objc.objc_object(c_void_p=address)`` is the object. ``(0, 0)`` for a block of 0 bytes.

        Raises
        ------
        AttributeError
            There is no Metal here, so that ``hasattr`` tells.
        ValueError
            The buffer was released.
        DeviceError
            In a forked child of a process that uses Metal.
        """
        if not self.allocator.is_metal():
            raise AttributeError(
                "no metal_buffer: there is no Metal here, the memory comes from the host device "
                "(device_info()['backend'])")
        cdef ObjectLock lock
        cdef Resource *resource
        cdef uint64_t native = 0, offset = 0
        require(self)
        self.allocator.device.require()
        lock_object(&lock, <PyObject *> self)
        resource = self.block.resource
        if resource != NULL:
            native = <uint64_t> mlim_buffer_native(resource.buffer)
            offset = <uint64_t> (self.block.start - resource.base)
        unlock_object(&lock)
        return (native, offset)

    def release(self):
        """Give the block back. A second call does nothing.

        Raises
        ------
        BufferError
            A view of the buffer is still in use; the buffer stays as it is.
        """
        cdef Py_ssize_t views = end(self, False)
        if views:
            raise BufferError(
                f"cannot release the buffer: {views} view(s) of it are in use. "
                "Delete or release them first.")

    def __enter__(self):
        require(self)
        return self

    def __exit__(self, *exc_info):
        # Under a view the block goes with the last one, so that no exception is masked.
        end(self, True)

    def __len__(self):
        return self.nbytes

    def __repr__(self):
        if self.released:
            return f"<memlimits.Buffer of {self.nbytes} bytes, released>"
        return f"<memlimits.Buffer of {self.nbytes} bytes at {<uint64_t> self.block.start:#x}>"

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.block.start, <Py_ssize_t> self.nbytes, False, flags)
        begin_export(self)      # if it raises, `view` lets go of this

    def __releasebuffer__(self, Py_buffer *view):
        end_export(self)

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        """Export the bytes, as a one-dimensional uint8 tensor on the CPU.

        Parameters
        ----------
        stream : None
            The CPU has no streams.
        max_version : tuple of int, optional
            The newest DLPack version that the consumer understands; before 1.0 the capsule is an
            unversioned one.
        dl_device : tuple of int, optional
            Only the CPU, ``(1, 0)``.
        copy : bool, optional
            True for a tensor of its own memory.

        Raises
        ------
        BufferError
            Another device, or a stream, is asked for.
        """
        # The arguments first: they may run code, which may release the buffer.
        cdef bint copied = bool(copy)
        cdef bint versioned = max_version is not None and max_version[0] >= DLPACK_MAJOR
        if stream is not None:
            raise BufferError(f"a buffer in CPU memory takes no stream, not {shown(stream)}")
        if dl_device is not None and tuple(dl_device) != (DL_CPU, 0):
            raise BufferError(f"a buffer is on the CPU, device (1, 0), not {shown(dl_device)}")
        require(self)
        cdef Buffer source = copy_of(self) if copied else self
        return dlpack_capsule(source, versioned, copied)

    def __dlpack_device__(self):
        """The CPU: ``(1, 0)``."""
        return (DL_CPU, 0)


cdef PyObject *refuse(PyTypeObject *kind, PyObject *args, PyObject *keywords) except NULL:
    raise TypeError("a Buffer is made by memlimits.allocate(nbytes)")


# So that none is without an allocator.
set_new(<PyTypeObject *> Buffer, refuse)


cdef Buffer copy_of(Buffer self):
    cdef Buffer new
    begin_export(self)      # Allocating gives other threads a turn: to release this, say.
    try:
        new = allocate_from(self.allocator, self.nbytes, False)
        if self.nbytes:
            memcpy(new.block.start, self.block.start, self.nbytes)
        return new
    finally:
        end_export(self)


cdef int require(Buffer self) except -1:
    if self.released:
        raise ValueError("the buffer was released: allocate another")
    return 0


cdef int begin_export(Buffer self) except -1:
    """Its block stays until `end_export`."""
    cdef ObjectLock lock
    cdef bint usable
    lock_object(&lock, <PyObject *> self)
    usable = not self.released
    self.exports += usable
    unlock_object(&lock)
    return 0 if usable else require(self)


cdef void end_export(Buffer self) noexcept:
    cdef ObjectLock lock
    cdef Resource *resource = NULL
    lock_object(&lock, <PyObject *> self)
    self.exports -= 1
    if self.released and not self.exports:
        resource = take_out(self)
    unlock_object(&lock)
    free_block(self, resource)


cdef Py_ssize_t end(Buffer self, bint under_views) noexcept:
    """Released, unless there are views, or nevertheless. Returns how many stood in the way."""
    cdef ObjectLock lock
    cdef Resource *resource = NULL
    cdef Py_ssize_t views
    lock_object(&lock, <PyObject *> self)
    views = 0 if self.released or under_views else self.exports
    if not views:
        self.released = True
        if not self.exports:
            resource = take_out(self)
    unlock_object(&lock)
    free_block(self, resource)
    return views


cdef inline Resource *take_out(Buffer self) noexcept:
    """What its block lies in, which is the caller's to give back; NULL for nothing any more."""
    cdef Resource *resource = self.block.resource
    self.block.resource = NULL
    return resource


cdef inline void free_block(Buffer self, Resource *resource) noexcept:
    if resource == NULL:
        return
    resource = core_free(&self.allocator.core, resource, self.block.start)
    if resource != NULL:
        with nogil:
            core_return(&self.allocator.core, resource)


# ---- the quick path: a hit with nothing around it (docs/design.md, "From Python") ----

cdef Core *default_core = NULL          # NULL until it was first used


cdef PyObject *allocate_fast(
    PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *keywords
) noexcept:
    """`allocate` with one small int, as long as there is a spare Buffer and the core has a hit.

    Spare are Buffers of the default allocator, which keep their reference to it.
    """
    cdef Spares *spares = spares_here()
    cdef Core *core
    cdef PyObject *buffer
    cdef Py_ssize_t n
    if nargs != 1 or keywords != NULL or spares == NULL or spares.count == 0:
        return allocate_slow_path(module, args, nargs, keywords)
    core = <Core *> load_acquire(<void **> &default_core)
    n = small_int(args[0])
    buffer = spares.objects[spares.count - 1]
    if n <= 0 or load_acquire(&core.accounts.noting) != NULL or (
        not core_hit(core, n, &(<Buffer> buffer).block)
    ):
        return allocate_slow_path(module, args, 1, NULL)
    spares.count -= 1
    (<Buffer> buffer).nbytes = n
    (<Buffer> buffer).released = False
    return revive(buffer)


cdef void deallocate(Buffer self) noexcept:
    """Without what guards a `__dealloc__`: this raises nothing and makes no reference to `self`."""
    cdef Spares *spares
    free_block(self, take_out(self))
    if &self.allocator.core == load_acquire(<void **> &default_core):
        spares = spares_here()
        if spares != NULL and spares.count < MOST_SPARE:
            spares.objects[spares.count] = <PyObject *> self
            spares.count += 1
            return
    free_slow_path(<PyObject *> self)


# Each goes in front of what Cython made.
cdef FastFunction allocate_slow_path = <FastFunction> (<PyCFunctionObject *> allocate).m_ml.ml_meth
(<PyCFunctionObject *> allocate).m_ml.ml_meth = <PyCFunction> allocate_fast
cdef destructor free_slow_path = (<PyTypeObject *> Buffer).tp_dealloc
(<PyTypeObject *> Buffer).tp_dealloc = <destructor> deallocate
