"""What every other room stands on, and nothing of the house itself.

`sync` has what is used of pthread.h, the clocks and the atomic steps; `python` what is needed of
Python.h beyond what Cython declares: a thread's state, an object's lock, slots of types; `frames`
where Python's code stands; `lines` put sentences together without allocating; `arithmetic` numbers
that do not wrap. These are declarations and inline functions. `own` is memory that the house keeps
for itself, in a process whose malloc it may be. No lock is held here. Any room may cimport them.
"""
