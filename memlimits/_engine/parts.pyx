from memlimits._base.arithmetic cimport saturating_sub
from memlimits._engine.core cimport core_hold, core_note, core_resume, core_stop
from memlimits._heap.bins cimport bin_of
from memlimits._heap.cache cimport (
    Cache, cache_add, cache_give_more, cache_least_growth, cache_mapped, cache_serve_part,
)
from memlimits._heap.heap cimport (
    BOUND, DONE, Heap, Outcome, heap_extend, heap_find_part, heap_take_part, heaps_takers,
)
from memlimits._heap.pagemap cimport pagemap_add, pagemap_reach
from memlimits._heap.resource cimport (
    OUTSIDE, PART, resource_destroy, resource_new, resource_split,
)
from memlimits._ledger.limits cimport (
    limits_cache_limit, limits_over_untrimmed, limits_unreserved,
)

cdef bint parts_take(
    Core *core, uint64_t n, uint64_t least, Block *block
) noexcept nogil:
    cdef uint64_t given = cache_least_growth(core.page_size, n)
    cdef Outcome outcome
    cdef Resource *resource
    if not core.limits.resizes:
        return False
    least = max(least, given)
    outcome = heap_take_part(&core.heaps, given, least, block)
    if outcome != BOUND:
        return outcome == DONE
    core_stop(core)
    resource = NULL if core.queue != NULL else heap_find_part(core.stopper, given, least)
    if resource != NULL:
        cache_serve_part(&core.stopper.cache, resource, given, block)
        core.limits.hits += 1
    core_resume(core, resource != NULL)
    return resource != NULL


cdef bint parts_extend(Core *core, Resource *resource, uint64_t n) noexcept nogil:
    cdef uint64_t given = cache_least_growth(core.page_size, n)
    cdef Outcome outcome
    cdef bint extends
    if resource.use != PART:
        return False
    outcome = heap_extend(resource, given)
    if outcome != BOUND:
        return outcome == DONE
    core_stop(core)
    extends = core.queue == NULL and resource.taker == NULL and given <= resource.bytes
    if extends:
        cache_give_more(<Cache *> resource.home, resource, given)
    core_resume(core, extends)
    return extends


# ---- where a limit is in the way ----

cdef bint can_cut(const Core *core, const Resource *resource) noexcept nogil:
    # Nobody looks for what is being wired, nor is its buffer to change.
    return (
        resource.use == PART and resource.given < resource.bytes
        and resource.wiring == OUTSIDE and resource.taker == NULL
        and core.limits.cache + resource.bytes - resource.given <= limits_cache_limit(&core.limits))


cdef bint cut(Core *core, Resource *resource) noexcept nogil:
    cdef Cache *cache = <Cache *> resource.home
    cdef uint64_t n = resource.bytes - resource.given
    cdef uint64_t mapped = cache_mapped(core.page_size, resource.given)
    cdef uint64_t rest_mapped = cache_mapped(core.page_size, n)
    cdef Resource *rest = resource_new()
    # Once it is split it stays so: what can fail comes first.
    if not (
        rest != NULL and pagemap_reach(&core.pages, resource.base, mapped)
        and pagemap_reach(&core.pages, resource.base + resource.given, rest_mapped)
        and resource_split(resource, resource.given, rest)
    ):
        resource_destroy(rest)
        return False
    rest.zeros = False
    cache.withheld -= n
    cache.parts -= n
    resource.bin = bin_of(resource.bytes)
    # What is short is found by each of its pages.
    pagemap_add(&core.pages, resource, mapped, NULL)
    pagemap_add(&core.pages, rest, rest_mapped, NULL)
    core_hold(core, rest)
    cache_add(cache, rest)
    core_note(core)
    return True


cdef uint64_t count(const Core *core) noexcept nogil:
    cdef const Heap *heap = &core.heaps.shared
    cdef uint64_t bytes = 0
    while heap != NULL:
        bytes += heap.cache.parts
        heap = heap.next
    return bytes


cdef bint parts_cut(Core *core) noexcept nogil:
    cdef Resource *resource = core.resources if count(core) else NULL
    cdef bint any = False
    while resource != NULL:
        any |= can_cut(core, resource) and cut(core, resource)
        resource = resource.below
    return any


cdef void parts_make_room(Core *core, uint64_t growth, uint64_t own) noexcept nogil:
    cdef uint64_t short_by = saturating_sub(
        core.limits.footprint - core.limits.cache + growth,
        limits_unreserved(&core.limits, growth, own))
    cdef uint64_t over = limits_over_untrimmed(&core.limits, growth, heaps_takers(&core.heaps))
    if 0 < short_by <= count(core) or over > core.limits.cache:
        parts_cut(core)
