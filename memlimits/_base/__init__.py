"""What every other room stands on, and nothing of the house itself.

`sync` has what is used of pthread.h, the clocks and the atomic steps; `python` what is needed of
Python.h beyond what Cython declares: a thread's state, an object's lock, slots of types; `frames`
where Python's code stands; `lines` put sentences together without allocating; `arithmetic` numbers
that do not wrap. All are declarations and inline functions: nothing is
compiled here, nothing is kept, no lock is held. Any room may cimport them.
"""
