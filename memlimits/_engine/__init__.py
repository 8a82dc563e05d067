"""The engine: every step that is not the fast path, and the order of its locks.

`core` holds the parts together: it stops the heaps and lets them go on, takes blocks back, holds
and lets go resources. `growth` serves what no heap has: idle memory of others, memory that the
system may have taken back, or the device's. `system_room` judges growth against the limits and what
the system has; `waiting` is the queue of those who wait for memory, `refusals` what is told of the
others, for which `sentence` has the words, `samples` who holds what there is, `picture` all of that
at one instant; `record` tells it to whoever records the process; `failing` refuses what a test
wants refused. `resize` makes blocks longer and shorter with their pages, `parts` gives what grows
step by step room to grow into, `charging` takes blocks that are noted, on an account or for who
holds them; `reservations` keep room for what is not asked for yet. `family` is malloc and what
belongs to it for code that knows nothing of us. `controls` set limits and read counters, `settings`
decide between setters and open scopes; `decay` and `pressure` give idle memory back; `members` is
the process as a member of a pool, with those of others that ended; `fork` is the core around a
fork. `books` sees, in debug and sanitizer builds, whether what is counted is what there is.

That of `members` comes first, then `Settings.mutex`, the heaps' `owners`, `Residency.mutex`,
`Heaps.lock`, the heaps' own. "Stopped" means that all of the last are held: counters are exact
then. No Python runs under any; a caller with the GIL gives it up around what calls the device.
"""
