"""What the limits are set to: by setters, and by scopes while they are open.

Scopes are process-wide and may overlap in any way. Of those open, the newest that gives a value for
a limit decides it; where none does, the base. A setter changes the value that decides, so the end
of a scope undoes what was set inside it.

`mutex` makes changes take turns, so that the newest value is also the last to reach the core. It
comes before all other locks, and is held across the device calls that a change makes. No Python
runs under it: a signal handler, a finalizer or another thread finds it free, or soon free.
"""

from libc.stdint cimport uint64_t

from memlimits._base.sync cimport pthread_mutex_t
from memlimits._engine.core cimport Core
from memlimits._ledger.limits cimport Count, Policy

# Bits of Layer.given.
cdef enum:
    MEMORY = 1
    CACHE = 2
    WIRED = 4
    POLICY = 8
    COUNT = 16
    EVERYTHING = 31

# Values for those limits that are given. Sizes in bytes.
cdef struct Layer:
    unsigned int given
    uint64_t memory
    bint memory_follows         # it is the default; only the base's can be
    uint64_t cache
    bint cache_follows
    uint64_t wired
    Policy policy
    uint64_t timeout            # ns, of POLICY_WAIT
    Count count
    Layer *older                # of those that are open, and of the base
    Layer *newer

cdef struct Settings:
    pthread_mutex_t mutex       # guards all below
    Core *core
    Layer base                  # gives everything; the oldest
    Layer *newest

cdef extern void settings_init(Settings *settings, Core *core) noexcept nogil
cdef extern void settings_close(Settings *settings) noexcept nogil

# Sets what `change` gives, and returns what was in force before. Calls the device.
cdef extern Layer settings_set(Settings *settings, const Layer *change) noexcept nogil
# A scope begins or ends. The layer stays where it is meanwhile. They call the device.
cdef extern void settings_open(Settings *settings, Layer *layer) noexcept nogil
cdef extern void settings_end(Settings *settings, Layer *layer) noexcept nogil

# What a layer gives at the moment, whether it is open or not.
cdef extern Layer settings_layer(Settings *settings, const Layer *layer) noexcept nogil

# Around fork_prepare and fork_resume: in the child every wired limit is 0. Scopes stay
# open there, those of threads that are gone for good.
cdef extern void settings_before_fork(Settings *settings) noexcept nogil
cdef extern void settings_after_fork(Settings *settings, bint child) noexcept nogil
