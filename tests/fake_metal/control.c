/* What tests set and read: settings, failures, counts. */
#include "control.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "machine.h"
#include "objects.h"
#include "rules.h"

struct named {
    const char *name;
    _Atomic int64_t *value;
    int64_t at_start;             /* a setting's */
    const _Atomic int64_t *after; /* what a reset puts there; NULL: nothing */
};

static const _Atomic int64_t zero;

#define INITIALLY(name, value) value,
struct fake_settings fake_settings = {SETTINGS(INITIALLY)};
struct fake_gauges fake_gauges;

#define SETTING(name, value) {#name, &fake_settings.name, value, NULL},
static struct named settings[] = {SETTINGS(SETTING)};

#define NOW(name) {#name, &fake_gauges.name, 0, NULL},
#define SINCE(name) {#name, &fake_gauges.name, 0, &zero},
#define PEAK(name, of) {#name, &fake_gauges.name, 0, &fake_gauges.of},
static const struct named gauges[] = {GAUGES(NOW, SINCE, PEAK)};

#define CALL(name) {name, false, 0, 0, false},
#define CALL_MAY_FAIL(name) {name, true, 0, 0, false},
static fake_call calls[] = {
#include "calls.h"
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const struct named *find(const struct named *all, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(all[i].name, name) == 0)
            return &all[i];
    return NULL;
}

static fake_call *find_call(const char *name)
{
    for (size_t i = 0; i < COUNT(calls); i++)
        if (strcmp(calls[i].name, name) == 0)
            return &calls[i];
    return NULL;
}

static int unknown(const char *kind, const char *name)
{
    fprintf(stderr, "fake_metal: no %s \"%s\"\n", kind, name);
    return -1;
}

int fake_metal_set(const char *setting, long long value)
{
    const struct named *found = find(settings, COUNT(settings), setting);
    if (!found)
        return unknown("setting", setting);
    *found->value = value;
    return 0;
}

long long fake_metal_get(const char *setting)
{
    const struct named *found = find(settings, COUNT(settings), setting);
    return found ? *found->value : unknown("setting", setting);
}

int fake_metal_fail(const char *name, long long nth)
{
    fake_call *call = find_call(name);
    if (!call || !call->may_fail)
        return unknown("call that may fail", name);
    call->fails_on = nth < 0;
    call->fails_in = nth < 0 ? -nth : nth;
    return 0;
}

long long fake_metal_count(const char *name)
{
    const struct named *gauge = find(gauges, COUNT(gauges), name);
    const fake_call *call = find_call(name);
    if (strcmp(name, "retains") == 0)
        return fake_retains();
    if (gauge)
        return *gauge->value;
    return call ? call->count : unknown("count", name);
}

bool fake_called(fake_call *_Atomic *place, const char *name)
{
    fake_call *call = *place;
    if (!call) {
        call = find_call(name);
        if (!call)
            fake_break("%s is not in the stand-in's list of calls", name);
        *place = call;
    }
    call->count++;
    if (!call->fails_in)
        return false;
    fake_lock();
    bool fails = call->fails_in == 1;
    if (call->fails_in && !(fails && call->fails_on))
        call->fails_in--;
    fake_unlock();
    return fails;
}

void fake_metal_reset(void)
{
    fake_lock();
    for (size_t i = 0; i < COUNT(settings); i++)
        *settings[i].value = settings[i].at_start;
    for (size_t i = 0; i < COUNT(gauges); i++)
        if (gauges[i].after)
            *gauges[i].value = *gauges[i].after;
    for (size_t i = 0; i < COUNT(calls); i++)
        calls[i].count = calls[i].fails_in = 0;
    fake_unlock();
}

uint64_t fake_memory_size(void)
{
    int64_t page = fake_settings.page_size;
    int64_t size = fake_settings.memory_size;
    return (uint64_t)(size ? size : fake_machine_memory() / page * page);
}

uint64_t fake_working_set(void)
{
    if (fake_settings.working_set)
        return (uint64_t)fake_settings.working_set;
    if (fake_settings.wired_limit_mb > 0)
        return (uint64_t)fake_settings.wired_limit_mb << 20;
    return fake_memory_size() / 4 * 3;
}

uint64_t fake_max_buffer_length(void)
{
    int64_t length = fake_settings.max_buffer_length;
    return length ? (uint64_t)length : fake_working_set() / 4 * 3;
}

bool fake_has_residency(void)
{
    return fake_settings.older_macos == 0;
}

bool fake_has_architecture(void)
{
    return fake_settings.older_macos != 13;
}

/* "name=value,name" */
__attribute__((constructor)) static void read_environment(void)
{
    const char *value = getenv("FAKE_METAL");
    char text[1024], *save = NULL;
    snprintf(text, sizeof text, "%s", value ? value : "");
    for (char *name = strtok_r(text, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
        char *equals = strchr(name, '=');
        if (equals)
            *equals++ = 0;
        if (fake_metal_set(name, equals ? strtoll(equals, NULL, 0) : 1) != 0)
            fake_break("FAKE_METAL=%s", value);
    }
    for (size_t i = 0; i < COUNT(settings); i++)
        settings[i].at_start = *settings[i].value;
}
