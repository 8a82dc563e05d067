/* What Linux says about this process's own memory. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "host.h"

bool mlim_process_private(mlim_reader *reader, uint64_t *out)
{
    uint64_t size, resident = 0, shared = 0;
    if (!mlim_read_text(reader->device, "/proc/self/statm", &reader->text))
        return false;
    sscanf(reader->text.bytes, "%" SCNu64 " %" SCNu64 " %" SCNu64, &size, &resident, &shared);
    *out = saturating_sub(resident, shared) * reader->device->facts.page_size;
    return true;
}

bool mlim_process_mapped(mlim_reader *reader, mlim_mapped *out)
{
    if (!mlim_read_text(reader->device, "/proc/self/status", &reader->text))
        return false;
    out->all = mlim_number(reader->text.bytes, "VmSize:") * 1024;
    out->data = mlim_number(reader->text.bytes, "VmData:") * 1024;
    out->known = out->all > 0;
    return true;
}

/* This peak outlives exec, and is its parent's in a process that was started by vfork: it may be
 * that of another program. */
void mlim_process_ask(mlim_process *out)
{
    struct rusage usage;
    *out = (mlim_process){0, 0, 0, 0};
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        out->resident = out->peak_resident = (uint64_t)usage.ru_maxrss * 1024;
}

static bool read_process(mlim_reader *reader, mlim_process *out)
{
    if (!mlim_read_text(reader->device, "/proc/self/status", &reader->text))
        return false;
    const char *text = reader->text.bytes;
    uint64_t resident = mlim_number(text, "VmRSS:") * 1024;
    if (resident == 0) {
        mlim_process_ask(out);
        return true;
    }
    out->resident = resident;
    out->files = least(resident, mlim_number(text, "RssFile:") * 1024);
    out->swap = mlim_number(text, "VmSwap:") * 1024;
    /* The kernel notes a peak when less is about to be resident. */
    uint64_t peak = mlim_number(text, "VmHWM:") * 1024;
    out->peak_resident = peak > resident ? peak : resident;
    return true;
}

mlim_status mlim_device_process(mlim_device *device, mlim_process *out, mlim_error *error)
{
    mlim_reader reader = {.device = device};
    bool known = read_process(&reader, out);
    int code = errno;
    mlim_text_free(&reader.text);
    return known ? MLIM_OK : mlim_fail(error, MLIM_UNKNOWN, code, "what this process holds");
}

static int by_start(const void *a, const void *b)
{
    const mlim_range *first = a, *second = b;
    return (first->start > second->start) - (first->start < second->start);
}

/* How many bytes of ordered ranges lie in a mapping. *next is the first that is not below it. */
static uint64_t overlap(const mlim_range *ranges, size_t count, size_t *next, uintptr_t start,
                        uintptr_t end)
{
    uint64_t bytes = 0;
    while (*next < count && ranges[*next].end <= start)
        ++*next;
    for (size_t i = *next; i < count && ranges[i].start < end; i++) {
        uintptr_t from = ranges[i].start > start ? ranges[i].start : start;
        uintptr_t to = ranges[i].end < end ? ranges[i].end : end;
        bytes += to - from;
    }
    return bytes;
}

/* What is resident of a range, where nothing else tells: a page that was only read counts, too. */
static uint64_t resident(const mlim_range *range, uint64_t page_size)
{
    unsigned char flags[1024];
    uint64_t pages = 0;
    for (uintptr_t at = range->start; at < range->end;) {
        size_t length = least(range->end - at, sizeof flags * page_size);
        if (mincore((void *)at, length, flags) != 0)
            break; /* it is gone */
        for (size_t i = 0; i < length / page_size; i++)
            pages += flags[i] & 1;
        at += length;
    }
    return pages * page_size;
}

mlim_status mlim_device_touched(mlim_device *device, mlim_range *ranges, size_t count,
                                uint64_t *out, mlim_error *error)
{
    /* One pass over the mappings. "Anonymous" leaves out the pages of zeros that a mere read maps,
     * and "LazyFree" is what of it the kernel may take. Neighbouring buffers merge into one
     * mapping: its figure is then theirs together. */
    char line[512];
    size_t next = 0;
    uint64_t ours = 0, touched = 0, size;
    uintptr_t start, end;
    *out = 0;
    FILE *mappings = fopen("/proc/self/smaps", "re");
    if (!mappings && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
        return mlim_fail(error, MLIM_UNKNOWN, errno, "/proc/self/smaps");
    if (!mappings) {
        for (size_t i = 0; i < count; i++)
            *out += resident(&ranges[i], device->facts.page_size);
        return MLIM_OK;
    }
    qsort(ranges, count, sizeof *ranges, by_start);
    while (mlim_next_line(mappings, line, sizeof line)) {
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &start, &end) == 2) {
            *out += least(ours, touched);
            ours = overlap(ranges, count, &next, start, end);
            touched = 0;
        } else if (ours && (sscanf(line, "Anonymous: %" SCNu64, &size) == 1 ||
                            sscanf(line, "Swap: %" SCNu64, &size) == 1)) {
            touched += size * 1024;
        } else if (ours && sscanf(line, "LazyFree: %" SCNu64, &size) == 1) {
            touched = saturating_sub(touched, size * 1024);
        }
    }
    *out += least(ours, touched);
    fclose(mappings);
    return MLIM_OK;
}
