/* What Linux says about the machine's RAM and swap. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "host.h"

void mlim_machine_ask(mlim_machine *out)
{
    struct sysinfo info;
    *out = (mlim_machine){0};
    if (sysinfo(&info) != 0)
        return;
    out->memory = (uint64_t)info.totalram * info.mem_unit;
    out->available = (uint64_t)(info.freeram + info.bufferram) * info.mem_unit;
    out->swap = (uint64_t)info.totalswap * info.mem_unit;
    out->swap_free = (uint64_t)info.freeswap * info.mem_unit;
}

/* The kibibytes behind a key of a node's file, whose lines begin "Node 0 ". */
static uint64_t in_node(const char *text, const char *key)
{
    uint64_t number = 0;
    const char *at = strstr(text, key);
    if (at)
        mlim_digits(at + strlen(key), &number);
    return number;
}

/* The page cache, and caches of the kernel's own, which sysinfo does not tell of. */
static bool add_cached(mlim_reader *reader, mlim_machine *out)
{
    static const char *const keys[] = {" Active(file):", " Inactive(file):", " SReclaimable:"};
    for (int node = 0; node < 64; node++) {
        char path[64];
        snprintf(path, sizeof path, "/sys/devices/system/node/node%d/meminfo", node);
        if (!mlim_read_text(reader->device, path, &reader->text))
            return false;
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
            out->available += in_node(reader->text.bytes, keys[i]) * 1024;
    }
    out->available = least(out->available, out->memory);
    return true;
}

/* Bytes behind a key, NO_LIMIT where they are more than there can be: a virtual /proc that
 * subtracts goes below zero. */
static uint64_t bytes(const char *text, const char *key)
{
    uint64_t number = mlim_number(text, key);
    return number >> 44 ? NO_LIMIT : number * 1024;
}

bool mlim_machine_read(mlim_reader *reader, mlim_machine *out)
{
    mlim_machine_ask(out);
    if (!mlim_read_text(reader->device, "/proc/meminfo", &reader->text))
        return false;
    const char *text = reader->text.bytes;
    uint64_t memory = bytes(text, "MemTotal:"), swap = bytes(text, "SwapTotal:");
    if (memory == 0 || memory == NO_LIMIT) {
        mlim_note_unread(reader->device, "/proc/meminfo", ENODATA);
        return add_cached(reader, out);
    }
    out->memory = memory;
    if (swap != NO_LIMIT) {
        uint64_t swap_free = bytes(text, "SwapFree:");
        out->swap = swap;
        out->swap_free = swap_free <= swap ? swap_free : 0;
    }
    uint64_t available = bytes(text, "MemAvailable:");
    if (available == 0) /* before Linux 3.14, or all of it is taken */
        available = saturating_add(bytes(text, "MemFree:"),
                                   saturating_sub(bytes(text, "Cached:"), bytes(text, "Shmem:")));
    out->available = least(available, memory);
    return true;
}
