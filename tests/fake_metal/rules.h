/* What every part of the stand-in needs: settings, gauges, calls, the lock, and the end of those
 * who break a rule. */
#ifndef FAKE_RULES_H
#define FAKE_RULES_H

#include <stdbool.h>
#include <stdint.h>

#include "control.h"

/* clang-format off */
#define SETTINGS(of)                                                                    \
    of(no_device, 0) of(older_macos, 0) of(no_residency_family, 0) of(residency_fails, 0) \
    of(discrete, 0) of(memory_size, 0) of(working_set, 0) of(max_buffer_length, 0)      \
    of(buffer_memory, 0) of(page_size, 16384) of(rsrc_limit, 0) of(wired_limit_mb, 0)   \
    of(available, -1) of(swap_total, -1) of(swap_free, -1) of(phys_footprint, -1)       \
    of(pressure_level, 1)                                                               \
    of(set_overhead, 0) of(resident_at_request, 0) of(empty_at_once, 0)                 \
    of(fork_keeps_memory, 0) of(leaks_allowed, 0) of(dead_kept, 262144)

/* now: what is; since: what happened since the last reset; peak: the highest value of another. */
#define GAUGES(now, since, peak)                                                        \
    now(objects) now(devices) now(buffers) now(sets) now(queues) now(buffer_bytes)      \
    peak(buffer_bytes_peak, buffer_bytes) now(resident_bytes)                           \
    peak(resident_bytes_peak, resident_bytes) now(volatile_buffers) now(empty_buffers)  \
    now(volatile_bytes) now(host_rights) now(dead) since(commits_empty)                 \
    since(requests_before_commit) since(requests_repeated) since(sets_dropped_staged)   \
    since(sets_dropped_resident) since(purges)
/* clang-format on */

#define FIELD(name, ...) _Atomic int64_t name;
struct fake_settings {
    SETTINGS(FIELD)
};
struct fake_gauges {
    GAUGES(FIELD, FIELD, FIELD)
};
#undef FIELD

extern struct fake_settings fake_settings;
extern struct fake_gauges fake_gauges;

/* Adds to a gauge, and to the one that holds its peak. Under the lock. */
void fake_gauge_raise(_Atomic int64_t *gauge, _Atomic int64_t *peak, int64_t by);

/* Settings whose 0 stands for something else. */
uint64_t fake_memory_size(void);
uint64_t fake_working_set(void);
uint64_t fake_max_buffer_length(void);
bool fake_has_residency(void);
bool fake_has_architecture(void);

/* One method or function: how often it was called, and when it is to fail. */
typedef struct fake_call {
    const char *name;
    bool may_fail;
    _Atomic int64_t count;
    _Atomic int64_t fails_in; /* calls until the one that fails; 0: none will */
    _Atomic bool fails_on;    /* and all after it */
} fake_call;

/* Counts a call, and says whether it is to fail. The place remembers what the name stands for. */
bool fake_called(fake_call *_Atomic *place, const char *name);
#define FUNCTION_FAILS()                 \
    ({                                   \
        static fake_call *_Atomic place; \
        fake_called(&place, __func__);   \
    })
/* The same in a method, which moreover must not run in a forked child. */
#define METHOD_FAILS()                          \
    ({                                          \
        static fake_call *_Atomic place;        \
        fake_not_forked(sel_getName(_cmd));     \
        fake_called(&place, sel_getName(_cmd)); \
    })
#define CALLED() ((void)METHOD_FAILS())

/* Says which rule was broken, and aborts. */
_Noreturn void fake_break(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Objects do not survive fork. A process that made none yet may fork, and its child use Metal. */
void fake_not_forked(const char *what);
bool fake_is_forked(void);
void fake_made_object(void);

/* One recursive lock for everything that is not an atomic. */
void fake_lock(void);
void fake_unlock(void);

#endif
