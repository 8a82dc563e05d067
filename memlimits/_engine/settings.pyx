from libc.string cimport memset

from memlimits._base.sync cimport (
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
)
from memlimits._engine.controls cimport (
    controls_default_limit, controls_set_cache_limit, controls_set_count, controls_set_memory_limit,
    controls_set_policy, controls_set_wired_limit,
)


cdef void settings_init(Settings *settings, Core *core) noexcept nogil:
    memset(settings, 0, sizeof(Settings))
    pthread_mutex_init(&settings.mutex, NULL)
    settings.core = core
    settings.newest = &settings.base
    settings.base.given = EVERYTHING
    settings.base.memory_follows = core.limits.memory_follows
    settings.base.cache = core.limits.cache_limit
    settings.base.cache_follows = core.limits.cache_follows
    settings.base.wired = core.limits.wired_limit
    settings.base.policy = core.limits.policy
    settings.base.timeout = core.limits.wait_timeout
    settings.base.count = core.limits.count


cdef void settings_close(Settings *settings) noexcept nogil:
    pthread_mutex_destroy(&settings.mutex)


cdef void copy(Layer *to, const Layer *source, unsigned int which) noexcept nogil:
    if which & MEMORY:
        to.memory = source.memory
        to.memory_follows = source.memory_follows
    if which & CACHE:
        to.cache = source.cache
        to.cache_follows = source.cache_follows
    if which & WIRED:
        to.wired = source.wired
    if which & POLICY:
        to.policy = source.policy
        to.timeout = source.timeout
    if which & COUNT:
        to.count = source.count


cdef Layer in_force(const Settings *settings) noexcept nogil:
    cdef Layer found
    cdef const Layer *layer = settings.newest
    memset(&found, 0, sizeof(Layer))
    while found.given != EVERYTHING:
        copy(&found, layer, layer.given & ~found.given)
        found.given |= layer.given
        layer = layer.older
    if found.memory_follows:
        found.memory = controls_default_limit(settings.core)
    return found


cdef void carry_out(
    Settings *settings, const Layer *before, unsigned int which
) noexcept nogil:
    """Tells the core of what is in force now."""
    cdef Layer now = in_force(settings)
    # A step in between may find one changed and not the other. In this order it is refused only
    # where it would be before or after.
    if which & POLICY and now.memory < before.memory:
        controls_set_policy(settings.core, now.policy, now.timeout)
    if which & MEMORY:
        controls_set_memory_limit(settings.core, now.memory, now.memory_follows)
    if which & POLICY and now.memory >= before.memory:
        controls_set_policy(settings.core, now.policy, now.timeout)
    if which & COUNT:
        controls_set_count(settings.core, now.count)
    if which & CACHE:
        controls_set_cache_limit(settings.core, now.cache, now.cache_follows)
    if which & WIRED:
        controls_set_wired_limit(settings.core, now.wired)


cdef Layer settings_set(Settings *settings, const Layer *change) noexcept nogil:
    cdef Layer before
    cdef Layer *layer
    cdef unsigned int left = change.given
    pthread_mutex_lock(&settings.mutex)
    before = in_force(settings)
    layer = settings.newest
    while left:
        copy(layer, change, layer.given & left)
        left &= ~layer.given
        layer = layer.older
    carry_out(settings, &before, change.given)
    pthread_mutex_unlock(&settings.mutex)
    return before


cdef void settings_open(Settings *settings, Layer *layer) noexcept nogil:
    cdef Layer before
    pthread_mutex_lock(&settings.mutex)
    before = in_force(settings)
    layer.older = settings.newest
    layer.newer = NULL
    settings.newest.newer = layer
    settings.newest = layer
    carry_out(settings, &before, layer.given)
    pthread_mutex_unlock(&settings.mutex)


cdef void settings_end(Settings *settings, Layer *layer) noexcept nogil:
    cdef Layer before
    cdef const Layer *newer
    cdef unsigned int decided = layer.given
    pthread_mutex_lock(&settings.mutex)
    newer = layer.newer
    while newer != NULL and decided:
        decided &= ~newer.given
        newer = newer.newer
    before = in_force(settings)
    layer.older.newer = layer.newer
    if layer.newer != NULL:
        layer.newer.older = layer.older
    else:
        settings.newest = layer.older
    carry_out(settings, &before, decided)
    pthread_mutex_unlock(&settings.mutex)


cdef Layer settings_layer(Settings *settings, const Layer *layer) noexcept nogil:
    cdef Layer found
    pthread_mutex_lock(&settings.mutex)
    found = layer[0]
    pthread_mutex_unlock(&settings.mutex)
    return found


cdef void settings_before_fork(Settings *settings) noexcept nogil:
    pthread_mutex_lock(&settings.mutex)


cdef void settings_after_fork(Settings *settings, bint child) noexcept nogil:
    cdef Layer *layer = settings.newest
    if not child:
        pthread_mutex_unlock(&settings.mutex)
        return
    pthread_mutex_init(&settings.mutex, NULL)
    while layer != NULL:
        layer.wired = 0
        layer = layer.older
