/* The root class. Each object follows a header with its retain count; the dead stay where they
 * were, as zombies, and whatever is sent to them aborts. */
#import <Foundation/Foundation.h>
#include <objc/message.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "objects.h"
#include "rules.h"

#define LEAKS_SHOWN 20

struct header {
    struct header *next, *previous; /* among the living; then next among the dead */
    Class made_as;
    _Atomic int64_t retains;
    bool initialised;
} __attribute__((aligned(16)));

/* No methods: the runtime asks cannot_answer about each message. */
__attribute__((objc_root_class))
@interface FakeZombie {
    Class isa;
}
@end

@implementation FakeZombie
@end

static struct header living = {.next = &living, .previous = &living};
static struct header *oldest_dead, *newest_dead;

static struct header *header_of(id object)
{
    return (struct header *)(void *)object - 1;
}

static Class zombie_class(void)
{
    static _Atomic(Class) class;
    if (!class)
        class = objc_getClass("FakeZombie");
    return class;
}

static bool is_device(Class class)
{
    return strcmp(class_getName(class), "FakeDevice") == 0;
}

static bool is_counted(Class class)
{
    return !is_device(class) && strcmp(class_getName(class), "NSAutoreleasePool") != 0;
}

id fake_make(Class class)
{
    struct header *header = calloc(1, sizeof *header + class_getInstanceSize(class));
    if (!header)
        fake_break("the stand-in itself is out of memory");
    id object = (id)(header + 1);
    object_setClass(object, class);
    header->made_as = class;
    header->retains = 1;
    fake_made_object();
    fake_lock();
    header->previous = living.previous;
    header->next = &living;
    living.previous = header->previous->next = header;
    if (is_counted(class))
        fake_gauges.objects++;
    fake_unlock();
    return object;
}

/* Those beyond dead_kept, but never the newest: its dealloc is still running. */
static void free_oldest_dead(void)
{
    while (fake_gauges.dead > fake_settings.dead_kept && oldest_dead != newest_dead) {
        struct header *freed = oldest_dead;
        oldest_dead = freed->next;
        fake_gauges.dead--;
        free(freed);
    }
}

static void bury(id object)
{
    struct header *header = header_of(object);
    fake_lock();
    header->previous->next = header->next;
    header->next->previous = header->previous;
    header->next = NULL;
    object_setClass(object, zombie_class());
    if (newest_dead)
        newest_dead->next = header;
    else
        oldest_dead = header;
    newest_dead = header;
    fake_gauges.dead++;
    if (is_counted(header->made_as))
        fake_gauges.objects--;
    free_oldest_dead();
    fake_unlock();
}

static IMP cannot_answer(id receiver, SEL selector)
{
    Class class = object_getClass(receiver);
    const char *message = sel_getName(selector);
    if (class == zombie_class())
        fake_break("use after release: -[%s %s] was sent to a released object",
                   class_getName(header_of(receiver)->made_as), message);
    if (class_isMetaClass(class))
        fake_break("unrecognized selector: +[%s %s]", class_getName((Class)receiver), message);
    fake_break("unrecognized selector: -[%s %s]", class_getName(class), message);
}

void fake_check(id object, Class class, const char *what)
{
    if (!object)
        fake_break("%s: nil, where an object is required", what);
    if (object_getClass(object) == zombie_class())
        fake_break("use after release: %s was given a released %s", what,
                   class_getName(header_of(object)->made_as));
    if (object_getClass(object) != class)
        fake_break("%s: a %s, where a %s is required", what, object_getClassName(object),
                   class_getName(class));
    if (!header_of(object)->initialised)
        fake_break("%s: the %s was never sent init", what, class_getName(class));
}

bool fake_is_alive(const void *address, Class class)
{
    bool found = false;
    fake_lock();
    for (struct header *header = living.next; header != &living && !found; header = header->next)
        found = header + 1 == address && (!class || header->made_as == class);
    fake_unlock();
    return found;
}

int64_t fake_retains(void)
{
    int64_t sum = 0;
    fake_lock();
    for (struct header *header = living.next; header != &living; header = header->next)
        if (is_counted(header->made_as))
            sum += header->retains;
    fake_unlock();
    return sum;
}

long long fake_metal_leaks(void)
{
    long long count = 0;
    fake_lock();
    for (struct header *header = living.next; header != &living; header = header->next)
        if (!is_device(header->made_as) && ++count <= LEAKS_SHOWN)
            fprintf(stderr, "fake_metal: leak: %s %p, retain count %lld\n",
                    class_getName(header->made_as), (void *)(header + 1),
                    (long long)header->retains);
    if (count > LEAKS_SHOWN)
        fprintf(stderr, "fake_metal: leak: and %lld more\n", count - LEAKS_SHOWN);
    fake_unlock();
    return count;
}

int fake_metal_is_alive(const void *object)
{
    return fake_is_alive(object, Nil);
}

static void look_for_leaks(void)
{
    if (fake_is_forked() || fake_settings.leaks_allowed || fake_metal_leaks() == 0)
        return;
    fprintf(stderr, "fake_metal: objects alive at exit\n");
    fflush(NULL);
    _exit(99);
}

__attribute__((constructor)) static void start(void)
{
    __objc_msg_forward2 = cannot_answer;
    atexit(look_for_leaks);
}

@implementation NSObject

+ (id)alloc
{
    return METHOD_FAILS() ? nil : fake_make(self);
}

- (id)init
{
    CALLED();
    if (header_of(self)->initialised)
        fake_break("-[%s init] for the second time", object_getClassName(self));
    header_of(self)->initialised = true;
    return self;
}

- (id)retain
{
    CALLED();
    if (header_of(self)->retains++ <= 0)
        fake_break("-[%s retain] while it is deallocated", object_getClassName(self));
    return self;
}

- (oneway void)release
{
    CALLED();
    int64_t before = header_of(self)->retains--;
    if (before <= 0)
        fake_break("over-release: -[%s release]", object_getClassName(self));
    if (before == 1)
        [self dealloc];
}

- (void)dealloc
{
    if (header_of(self)->retains > 0)
        fake_break("-[%s dealloc] sent by hand", object_getClassName(self));
    bury(self);
}

- (id)autorelease
{
    CALLED();
    return fake_autorelease(self);
}

- (BOOL)respondsToSelector:(SEL)selector
{
    CALLED();
    return class_respondsToSelector(object_getClass(self), selector);
}

@end
