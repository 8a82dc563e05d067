"""The books: limits, counters, accounts, and the arithmetic of "does it fit".

`limits` has every counter and every limit, what growth is allowed, what is to be returned, and the
system's room as it was last read. `accounts` says who is charged for a block and what is kept for
whom: budgets and reservations; `tickets` what a library is admitted to hold. `queue` has the order
of those who wait for memory, and what is told of a request that was refused; `traces` keep that for
the exceptions that come of it; `calls` are the places in Python's code that blocks are held by.
`pool` is a budget that processes share, in words that all of them map, and `share` what this one
has of it. `told` is what a process writes into its page, for others to read, and `events` what
recorded processes tell. Nothing here takes a lock, calls the device or looks at a heap: it is
called under `Heaps.lock`, or on a copy, and can be tested with a pencil.
"""
