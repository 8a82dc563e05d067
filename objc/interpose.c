/* malloc and its family for a whole process: the C library's, until a core takes part. */
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "interpose.h"

#define PUBLIC __attribute__((visibility("default")))
/* What seldom happens has its own registers to save. */
#define NOINLINE __attribute__((noinline, cold))
#define likely(condition) __builtin_expect(!!(condition), 1)

/* The loader asks for memory before anything of this library has run, and so does the search for
 * the C library's functions: they get it from here, and it is never given back. */
static char first[16384] __attribute__((aligned(64)));
static size_t first_used;

static struct {
    void *(*malloc)(size_t n);
    void *(*calloc)(size_t count, size_t n);
    void *(*realloc)(void *start, size_t n);
    void *(*memalign)(size_t alignment, size_t n);
    void (*free)(void *start);
    size_t (*malloc_usable_size)(void *start);
} libc;

static const memlimits_interposed *core;
static size_t page_size;

/* This thread's: how deep it is in what must not come back to the core, and the core's blocks that
 * it gave back meanwhile, linked through their first bytes. In the block that the loader makes for
 * each thread, so that using them asks for no memory. */
static __thread unsigned int own __attribute__((tls_model("initial-exec")));
static __thread void *kept __attribute__((tls_model("initial-exec")));

static bool is_first(const void *start)
{
    return (uintptr_t)start - (uintptr_t)first < sizeof first;
}

/* With its length before it. */
static void *take_first(size_t alignment, size_t n)
{
    alignment = alignment < 16 ? 16 : alignment;
    size_t start = (first_used + 16 + alignment - 1) & ~(alignment - 1);
    if (start > sizeof first || n > sizeof first - start)
        return NULL;
    first_used = start + n;
    memcpy(first + start - sizeof n, &n, sizeof n);
    return first + start;
}

static size_t length_of_first(const void *start)
{
    size_t n;
    memcpy(&n, (const char *)start - sizeof n, sizeof n);
    return n;
}

/* Before the process has a second thread: the loader, or an initialiser, asks for memory. */
static bool find_libc(void)
{
    static bool searching;
    if (libc.malloc_usable_size)
        return true;
    if (searching)
        return false;
    searching = true;
    page_size = (size_t)sysconf(_SC_PAGESIZE);
    *(void **)&libc.malloc = dlsym(RTLD_NEXT, "malloc");
    *(void **)&libc.calloc = dlsym(RTLD_NEXT, "calloc");
    *(void **)&libc.realloc = dlsym(RTLD_NEXT, "realloc");
    *(void **)&libc.memalign = dlsym(RTLD_NEXT, "memalign");
    *(void **)&libc.free = dlsym(RTLD_NEXT, "free");
    *(void **)&libc.malloc_usable_size = dlsym(RTLD_NEXT, "malloc_usable_size");
    searching = false;
    return true;
}

/* ---- around what must not come back to the core ---- */

static void begin(void)
{
    own++;
}

static void end(void)
{
    if (--own)
        return;
    while (kept) {
        void *start = kept;
        memcpy(&kept, start, sizeof kept);
        core->free(start);
    }
}

const memlimits_interposed *memlimits_core(void)
{
    return __atomic_load_n(&core, __ATOMIC_ACQUIRE);
}

const memlimits_interposed *memlimits_taking_part(void)
{
    const memlimits_interposed *functions = memlimits_core();
    return likely(functions != NULL) && likely(own == 0) ? functions : NULL;
}

/* ---- the C library's, which may not be found yet ---- */

static unsigned long served;

static NOINLINE void *libc_malloc(size_t n)
{
    served++;
    return find_libc() ? libc.malloc(n) : take_first(16, n);
}

static void *libc_calloc(size_t count, size_t n)
{
    if (find_libc())
        return libc.calloc(count, n);
    return n && count > SIZE_MAX / n ? NULL : take_first(16, count * n);
}

static void *libc_memalign(size_t alignment, size_t n)
{
    return find_libc() ? libc.memalign(alignment, n) : take_first(alignment, n);
}

static size_t libc_usable_size(void *start)
{
    return is_first(start) ? length_of_first(start) : libc.malloc_usable_size(start);
}

static void libc_free(void *start)
{
    if (start && !is_first(start) && find_libc())
        libc.free(start);
}

/* Its path, in memory that stays. */
static const char *file_of(const void *address, const void **base)
{
    Dl_info found;
    *base = NULL;
    if (!address || dladdr(address, &found) == 0)
        return "";
    *base = found.dli_fbase;
    return found.dli_fname;
}

/* What comes after this library, if that is not the C library. */
static const char *after_this(void)
{
    const void *library, *found;
    file_of(dlsym(RTLD_DEFAULT, "gnu_get_libc_version"), &library);
    const char *name = file_of((const void *)(uintptr_t)libc.malloc, &found);
    return library && library != found ? name : NULL;
}

/* The first of the loaded libraries to do so, but for this one; the program itself has no name
 * here. */
static int defines_malloc(struct dl_phdr_info *info, size_t size, void *name)
{
    (void)size;
    const void *base, *own;
    file_of(first, &own);
    void *library = *info->dlpi_name ? dlopen(info->dlpi_name, RTLD_LAZY | RTLD_NOLOAD) : NULL;
    if (!library)
        return 0;
    const char *found = file_of(dlsym(library, "malloc"), &base);
    dlclose(library);
    if (base != (const void *)info->dlpi_addr)
        return 0;
    *(const char **)name = base == own ? "" : found;
    return 1;
}

PUBLIC const char *memlimits_interpose_other(void)
{
    /* Of a program that takes its address it may be the address of a step on the way here. */
    void *(*called)(size_t n);
    void (*frees)(void *start);
    *(void **)&called = dlsym(RTLD_DEFAULT, "malloc");
    *(void **)&frees = dlsym(RTLD_DEFAULT, "free");
    if (memlimits_core())
        return NULL;
    unsigned long before = served;
    frees(called(1));
    if (served != before)
        return after_this();
    const char *name = "";
    dl_iterate_phdr(defines_malloc, &name);
    return name;
}

/* The loader's addresses. */
static uintptr_t loader, loader_end;

static int note_loader(struct dl_phdr_info *info, size_t size, void *base)
{
    (void)size;
    if (info->dlpi_addr != (uintptr_t)base)
        return 0;
    for (const ElfW(Phdr) *part = info->dlpi_phdr; part < info->dlpi_phdr + info->dlpi_phnum;
         part++)
        if (part->p_type == PT_LOAD && info->dlpi_addr + part->p_vaddr + part->p_memsz > loader_end)
            loader_end = info->dlpi_addr + part->p_vaddr + part->p_memsz;
    loader = info->dlpi_addr;
    return 1;
}

/* Where a thread's variables of a library are made when it first looks at one, the loader ends the
 * process if there is no memory for them: what the core refuses it is the C library's. */
static bool is_loader(const void *caller)
{
    return (uintptr_t)caller - loader < loader_end - loader;
}

PUBLIC int memlimits_interpose(const memlimits_interposed *functions, memlimits_interposer *out)
{
    const memlimits_interposed *none = NULL;
    *out = (memlimits_interposer){begin, end, libc_free};
    if (!functions) {
        dl_iterate_phdr(note_loader, (void *)getauxval(AT_BASE));
        return find_libc();
    }
    if (functions->version != MEMLIMITS_INTERPOSE_VERSION)
        return false;
    return __atomic_compare_exchange_n(&core, &none, functions, false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE);
}

/* ---- the family ---- */

PUBLIC void *malloc(size_t n)
{
    const memlimits_interposed *functions = memlimits_taking_part();
    if (likely(functions != NULL)) {
        void *start = functions->malloc(n);
        if (likely(start != NULL) || !is_loader(__builtin_return_address(0)))
            return start;
    }
    return libc_malloc(n);
}

PUBLIC void *calloc(size_t count, size_t n)
{
    const memlimits_interposed *functions = memlimits_taking_part();
    if (likely(functions != NULL)) {
        void *start = functions->calloc(count, n);
        if (likely(start != NULL) || !is_loader(__builtin_return_address(0)))
            return start;
    }
    return libc_calloc(count, n);
}

/* The core's lock may be this thread's: the block waits for its turn. */
static void keep(void *start)
{
    memcpy(start, &kept, sizeof kept);
    kept = start;
}

static NOINLINE void free_else(const memlimits_interposed *functions, void *start)
{
    if (functions && functions->is_own(start))
        keep(start);
    else
        libc_free(start);
}

PUBLIC void free(void *start)
{
    const memlimits_interposed *functions = memlimits_core();
    if (likely(functions != NULL) && likely(own == 0))
        functions->free(start);
    else
        free_else(functions, start);
}

/* Moves a block from one allocator to another. The old one stays where there is no new one. */
static void *move(void *start, size_t n)
{
    size_t before = malloc_usable_size(start);
    void *moved = malloc(n);
    if (moved) {
        memcpy(moved, start, n < before ? n : before);
        free(start);
    }
    return moved;
}

static void *resize(void *start, size_t n)
{
    const memlimits_interposed *functions = memlimits_core();
    if (!start)
        return malloc(n);
    if (n == 0) {
        free(start); /* as the C library does */
        return NULL;
    }
    bool owned = functions && functions->is_own(start);
    if (likely(owned) && likely(own == 0))
        return functions->realloc(start, n);
    /* What gets longer is the core's from then on. */
    if (owned || is_first(start) || (functions && own == 0 && n > libc_usable_size(start)))
        return move(start, n);
    return find_libc() ? libc.realloc(start, n) : NULL;
}

PUBLIC void *realloc(void *start, size_t n)
{
    void *resized = resize(start, n);
    if (likely(resized != NULL) || n == 0 || !is_loader(__builtin_return_address(0)))
        return resized;
    begin();
    resized = resize(start, n);
    end();
    return resized;
}

PUBLIC void *reallocarray(void *start, size_t count, size_t n)
{
    if (n && count > SIZE_MAX / n) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(start, count * n);
}

PUBLIC void *memalign(size_t alignment, size_t n)
{
    const memlimits_interposed *functions = memlimits_taking_part();
    size_t power = 16;
    while (power < alignment && power << 1)
        power <<= 1; /* as the C library does with what is none */
    return functions ? functions->aligned_alloc(power, n) : libc_memalign(alignment, n);
}

PUBLIC void *aligned_alloc(size_t alignment, size_t n)
{
    if (alignment == 0 || alignment & (alignment - 1)) {
        errno = EINVAL;
        return NULL;
    }
    return memalign(alignment, n);
}

PUBLIC int posix_memalign(void **out, size_t alignment, size_t n)
{
    if (alignment == 0 || alignment % sizeof(void *) || alignment & (alignment - 1))
        return EINVAL;
    int before = errno;
    void *start = memalign(alignment, n);
    errno = before;
    if (!start)
        return ENOMEM;
    *out = start;
    return 0;
}

PUBLIC void *valloc(size_t n)
{
    find_libc();
    return memalign(page_size, n);
}

PUBLIC void *pvalloc(size_t n)
{
    find_libc();
    if (n > SIZE_MAX - page_size) {
        errno = ENOMEM;
        return NULL;
    }
    return memalign(page_size, (n + page_size - 1) & ~(page_size - 1));
}

PUBLIC size_t malloc_usable_size(void *start)
{
    const memlimits_interposed *functions = memlimits_core();
    if (!start)
        return 0;
    return functions && functions->is_own(start) ? functions->usable_size(start)
                                                 : libc_usable_size(start);
}

/* C23's, and older names: a C library that has them frees what it believes to be its own. */
PUBLIC void free_sized(void *start, size_t n)
{
    (void)n;
    free(start);
}

PUBLIC void free_aligned_sized(void *start, size_t alignment, size_t n)
{
    (void)alignment;
    (void)n;
    free(start);
}

PUBLIC void cfree(void *start)
{
    free(start);
}
