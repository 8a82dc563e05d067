"""Blocks and resources: who has which bytes, and how a thread takes some without others.

From below: `resource` is one thing that the device made, whole or a slab of equal blocks; `pagemap`
says which of them an address lies in; `bins` are idle ones by size; `cache` is a thread's idle
memory, by size class, size and age; `split` makes idle resources shorter and longer; `heap` a cache
with its lock and bounds, and the fast path; `heaps` all of an allocator: stopped, added up, given
new bounds. `lock` is a heap's lock, which its thread may do without while nobody else wants it;
`misuse` ends a process that frees what is no block. In debug and sanitizer builds `checks` sees
whether a heap is what it says.

`owners` (in `heap`) guards which thread has which heap; inside it comes `Heaps.lock`, and inside
that heaps' own locks, in the order of the list. Under them there is arithmetic and list surgery, no
device call and no Python. What the bytes are allowed to be is decided in the rooms above: the heaps
know two bounds each, and go the slow way where a step would cross one.
"""
