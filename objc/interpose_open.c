/* dlopen without the flag that would part malloc from free. */
#include <dlfcn.h>

#include "interpose.h"

/* A library that is opened with RTLD_DEEPBIND has the C library's free, and hands it what the C
 * library and others got from the malloc of all. Once a core serves that, such a library is opened
 * as any other. The last step is a jump: by where it returns to the loader tells who opens the
 * library, and where to look for it. */
__attribute__((visibility("default"))) void *dlopen(const char *path, int mode)
{
    static void *(*libc_dlopen)(const char *path, int mode);
    void *(*next)(const char *path, int mode) = __atomic_load_n(&libc_dlopen, __ATOMIC_RELAXED);
    if (!next) {
        *(void **)&next = dlsym(RTLD_NEXT, "dlopen");
        __atomic_store_n(&libc_dlopen, next, __ATOMIC_RELAXED);
    }
    return next(path, memlimits_core() ? mode & ~RTLD_DEEPBIND : mode);
}
