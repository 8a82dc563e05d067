/* The self-test's cases: each runs in a process of its own. */
#ifndef FAKE_SELFTEST_H
#define FAKE_SELFTEST_H

#import <Metal/Metal.h>
#include <stdio.h>
#include <stdlib.h>

#include "control.h"

struct test {
    const char *name;
    const char *rule; /* the case ends with SIGABRT and this on stderr; NULL: it ends well */
    void (*run)(void);
    struct test *next;
};

void selftest_add(struct test *test);

#define TEST(function, broken_rule)                                             \
    static void function(void);                                                 \
    static struct test test_##function = {#function, broken_rule, function, 0}; \
    __attribute__((constructor)) static void add_##function(void)               \
    {                                                                           \
        selftest_add(&test_##function);                                         \
    }                                                                           \
    static void function(void)
#define KEEPS(function) TEST(function, NULL)
#define BREAKS(function, rule) TEST(function, rule)

/* Exits with status 98. */
#define CHECK(truth)                                                            \
    do {                                                                        \
        if (!(truth)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #truth); \
            _Exit(98);                                                          \
        }                                                                       \
    } while (0)

#define KIB (1ul << 10)
#define MIB (1ul << 20)
#define SHARED (MTLResourceStorageModeShared | MTLResourceHazardTrackingModeUntracked)

/* What most cases need, retained: without a pool open they make their own. */
id<MTLDevice> a_device(void);
id<MTLBuffer> a_buffer(NSUInteger length);
id<MTLResidencySet> a_set(void);

#endif
