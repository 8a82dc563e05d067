"""Arrays that are there already: wired ahead of other memory, and measured."""

from cpython.buffer cimport (
    PyBUF_INDIRECT, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer,
)

from memlimits._bindings.allocator cimport Allocator, get_default
from memlimits._bindings.buffer cimport Buffer
from memlimits._engine.core cimport Core, core_find, core_tell_now
from memlimits._heap.heaps cimport heaps_resume, heaps_stop
from memlimits._heap.resource cimport Resource, resource_given
from memlimits._residency.pins cimport FOREIGN, NOT_PINNED, Pinning, pins_change, pins_find


cdef int ask(object array, bint wired) except -1:
    cdef Allocator allocator = get_default()
    cdef Py_buffer view
    cdef Pinning asked
    if isinstance(array, Buffer):
        allocator = (<Buffer> array).allocator
    elif not PyObject_CheckBuffer(array):
        raise TypeError(
            f"array must be a Buffer or have the buffer protocol, not {type(array).__name__}")
    # As long as there is a view the memory stays where it is.
    PyObject_GetBuffer(array, &view, PyBUF_INDIRECT)
    try:
        if view.len == 0:
            return 0
        with nogil:
            asked = pins_change(&allocator.core.residency, <const char *> view.buf, wired)
            core_tell_now(&allocator.core)
    finally:
        PyBuffer_Release(&view)
    if asked == FOREIGN:
        raise ValueError(
            f"the memory of this {type(array).__name__}, at {<size_t> view.buf:#x}, is not "
            "memlimits': only what memlimits.allocate, empty, zeros or a governed NumPy made can "
            "be wired. Copy it into such a block first.")
    if asked == NOT_PINNED:
        raise ValueError(
            f"this {type(array).__name__} was not asked to be wired: each unwire takes back one "
            "wire, or the wired=True that it was allocated with")
    allocator.report_wire_failures()
    return 0


def wire(array):
    """Keep the memory of an array resident ahead of others, as far as the wired limit goes.

    It is wired now, if it fits, and whenever the wired limit is set, before any memory that was not
    asked for; that makes room where it has to, and stays usable. This holds until `unwire` takes it
    back, or until the memory is freed, resized NumPy arrays included. With a wired limit of 0, the
    default, nothing is wired yet.

    Parameters
    ----------
    array : Buffer or object with the buffer protocol
        Its memory is memlimits': of `allocate`, `empty`, `zeros`, or NumPy's while that is
        governed. What counts in the wired limit is all of the resource that it lies in: one of up
        to 32 KiB shares it with others of its size, up to 256 KiB, and with them it is wired.

    Raises
    ------
    ValueError
        The memory is not memlimits'.
    TypeError
        `array` has no buffer protocol.

    See Also
    --------
    unwire : take it back.
    set_wired_limit : how much may be wired.
    Buffer : its ``wired`` says what became of it.

    Examples
    --------
    >>> import memlimits
    >>> block = memlimits.allocate(1 << 16)
    >>> memlimits.wire(block)
    >>> memlimits.stats().wired_requested
    65536
    >>> memlimits.unwire(block)
    """
    ask(array, True)


def unwire(array):
    """Take one `wire` of this memory back, or the ``wired=True`` that it was allocated with.

    It stays wired only as what was not asked for does: as long as there is room.

    Parameters
    ----------
    array : Buffer or object with the buffer protocol
        As for `wire`.

    Raises
    ------
    ValueError
        The memory is not memlimits', or was not asked to be wired.
    TypeError
        `array` has no buffer protocol.

    See Also
    --------
    wire : ask for it.

    Examples
    --------
    >>> import memlimits
    >>> block = memlimits.allocate(1 << 16, wired=True)
    >>> memlimits.unwire(block)
    >>> memlimits.stats().wired_requested
    0
    """
    ask(array, False)


cdef Resource *resource_of(Core *core, const char *address) noexcept nogil:
    """What an address lies in that somebody holds; NULL for memory that is not ours."""
    # The page map knows long resources by their first page only.
    cdef Resource *resource = core_find(core, address)
    if resource == NULL:
        heaps_stop(&core.heaps)
        resource = pins_find(&core.residency, address)
        heaps_resume(&core.heaps)
    return resource


cdef int add_block(dict blocks, object array) except -1:
    """The block that an array lies in, as its start and its bytes, where it is memlimits'."""
    cdef Core *core = &get_default().core
    cdef Py_buffer view
    cdef Resource *resource
    cdef size_t start
    if isinstance(array, Buffer):
        if (<Buffer> array).block.resource == NULL:
            return 0
        core = &(<Buffer> array).allocator.core
    PyObject_GetBuffer(array, &view, PyBUF_INDIRECT)
    try:
        if view.len == 0:
            return 0
        with nogil:
            resource = resource_of(core, <const char *> view.buf)
        if resource == NULL:
            return 0
        start = <size_t> resource.base
        if resource.block_size:
            start = <size_t> view.buf - (<size_t> view.buf - start) % resource.block_size
        blocks[start] = resource.block_size or resource_given(resource)
    finally:
        PyBuffer_Release(&view)
    return 0


def get_array_buffer_size(*args):
    """Return the size of the blocks that arrays lie in, each block counted once.

    That is their part of `get_active_memory`: a block counts in full, also where an array is a view
    of some of it.

    Parameters
    ----------
    *args : array or tree of arrays
        Buffers and objects with the buffer protocol, such as NumPy's arrays, and lists, tuples and
        dicts of them, nested in any way. Whatever else there is counts nothing, nor does memory
        that is not memlimits'.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    ValueError, BufferError
        From an object that cannot show its memory, as a memoryview that was released.

    See Also
    --------
    get_active_memory : of all blocks.
    budget : charge blocks to a name.

    Notes
    -----
    After ``mlx.core.get_array_buffer_size``.

    Examples
    --------
    >>> import memlimits
    >>> block = memlimits.allocate(1 << 20)
    >>> memlimits.get_array_buffer_size({"whole": block, "part": memoryview(block)[:10]})
    1048576
    """
    cdef dict blocks = {}
    cdef dict containers = {}   # by identity, which nothing else has as long as they are here
    cdef list left = list(args)
    while left:
        node = left.pop()
        if isinstance(node, (list, tuple, dict)):
            if id(node) not in containers:
                containers[id(node)] = node
                left.extend(node.values() if isinstance(node, dict) else node)
        elif PyObject_CheckBuffer(node):
            add_block(blocks, node)
    return sum(blocks.values())
