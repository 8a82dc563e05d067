/* What the files of one memory control group say, versions 1 and 2. */
#include <string.h>

#include "host.h"

/* Reads a file of the group; empty where there is none, or where it cannot be read at all. */
static bool read_file(mlim_reader *reader, const mlim_group *group, const char *name)
{
    char path[sizeof group->path + 64];
    mlim_concat(path, sizeof path, group->path, "/", name);
    return mlim_read_text(reader->device, path, &reader->text);
}

/* Version 1 writes "none" as the largest count of pages. */
static uint64_t limit_of(uint64_t number)
{
    return number >> 62 ? NO_LIMIT : number;
}

/* A limit or a usage of the group; NO_LIMIT where the file does not tell, or says "max". */
static bool read_number(mlim_reader *reader, const mlim_group *group, const char *v1,
                        const char *v2, uint64_t *out)
{
    *out = NO_LIMIT;
    if (!read_file(reader, group, group->unified ? v2 : v1))
        return false;
    mlim_digits(reader->text.bytes, out);
    *out = limit_of(*out);
    return true;
}

/* The limits of what lies above, as the group's own memory.stat has them: of use where its
 * ancestors cannot be seen. */
static bool read_inherited(mlim_reader *reader, const mlim_group *group, const char *key,
                           uint64_t *limit)
{
    if (group->unified || !group->topmost)
        return true;
    if (!read_file(reader, group, "memory.stat"))
        return false;
    uint64_t inherited = mlim_number(reader->text.bytes, key);
    if (inherited)
        *limit = least(*limit, limit_of(inherited));
    return true;
}

bool mlim_group_limit(mlim_reader *reader, const mlim_group *group, uint64_t *out)
{
    uint64_t high = NO_LIMIT;
    if (!read_number(reader, group, "memory.limit_in_bytes", "memory.max", out) ||
        !read_inherited(reader, group, "hierarchical_memory_limit ", out))
        return false;
    /* Above it the kernel does not kill, but slows down without end. */
    if (group->unified && !read_number(reader, group, "", "memory.high", &high))
        return false;
    *out = least(*out, high);
    return true;
}

/* RAM and swap together in version 1, swap alone in version 2. */
static bool read_swap_limit(mlim_reader *reader, const mlim_group *group, uint64_t *out)
{
    uint64_t high = NO_LIMIT;
    if (!read_number(reader, group, "memory.memsw.limit_in_bytes", "memory.swap.max", out) ||
        !read_inherited(reader, group, "hierarchical_memsw_limit ", out))
        return false;
    if (group->unified && !read_number(reader, group, "", "memory.swap.high", &high))
        return false;
    *out = least(*out, high);
    return true;
}

/* What the kernel drops, or writes back, before it kills: the page cache, mapped and dirty pages
 * included, and caches of its own. Shared memory is no part of these lists. The kernel counts in
 * batches: so much is not there yet, or not there any more. */
static bool read_reclaimable(mlim_reader *reader, const mlim_group *group, uint64_t *out)
{
    static const char *const v1[] = {"total_inactive_file ", "total_active_file ", NULL};
    static const char *const v2[] = {"inactive_file ", "active_file ", "slab_reclaimable ", NULL};
    if (!read_file(reader, group, "memory.stat"))
        return false;
    *out = 0;
    for (const char *const *key = group->unified ? v2 : v1; *key; key++)
        *out = saturating_add(*out, mlim_number(reader->text.bytes, *key));
    *out = saturating_sub(*out, reader->device->batches);
    return true;
}

/* What the members have, and what of it is reclaimable; at least what this process has for itself,
 * where the group does not tell. */
static bool read_usage(mlim_reader *reader, const mlim_group *group, uint64_t *usage,
                       uint64_t *reclaimable)
{
    *reclaimable = 0;
    if (!read_number(reader, group, "memory.usage_in_bytes", "memory.current", usage))
        return false;
    return *usage == NO_LIMIT ? mlim_process_private(reader, usage)
                              : read_reclaimable(reader, group, reclaimable);
}

bool mlim_group_room(mlim_reader *reader, const mlim_group *group, uint64_t limit,
                     uint64_t swap_free, uint64_t *out)
{
    uint64_t usage, reclaimable, swap_limit, swap_usage = NO_LIMIT;
    if (!read_usage(reader, group, &usage, &reclaimable) ||
        !read_swap_limit(reader, group, &swap_limit))
        return false;
    if (swap_limit != NO_LIMIT && !read_number(reader, group, "memory.memsw.usage_in_bytes",
                                               "memory.swap.current", &swap_usage))
        return false;
    uint64_t ram = saturating_sub(saturating_add(limit, reclaimable), usage);
    *out = saturating_add(ram, swap_free);
    if (swap_usage == NO_LIMIT)
        return true;
    if (group->unified)
        *out = saturating_add(ram, least(swap_free, saturating_sub(swap_limit, swap_usage)));
    else
        *out = least(*out, saturating_sub(saturating_add(swap_limit, reclaimable), swap_usage));
    return true;
}

bool mlim_group_stall(mlim_reader *reader, const mlim_group *group, double *out)
{
    *out = -1;
    if (!group->unified)
        return true; /* version 1 has none */
    if (!read_file(reader, group, "memory.pressure"))
        return false;
    *out = mlim_stall(reader->text.bytes);
    return true;
}
