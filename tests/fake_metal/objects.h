/* Objects: retain counts, what becomes of the dead, and who is still alive. */
#ifndef FAKE_OBJECTS_H
#define FAKE_OBJECTS_H

#include <objc/objc.h>
#include <stdbool.h>
#include <stdint.h>

/* A zeroed instance with a retain count of 1. */
id fake_make(Class class);

/* Breaks unless the object is alive and of the class. */
void fake_check(id object, Class class, const char *what);

/* The same question, for an address from anywhere. */
bool fake_is_alive(const void *address, Class class);

/* Into this thread's innermost pool, which must be there. */
id fake_autorelease(id object);

/* Breaks unless an autorelease pool is open on this thread. */
void fake_need_pool(const char *what);

int64_t fake_retains(void);

#endif
