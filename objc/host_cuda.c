/* The driver of NVIDIA's GPUs, looked for at run time: what is registered with it is copied to and
 * from a GPU at full speed.
 *
 * Its header is no part of this: of its types those that are needed are declared here, as its ABI
 * has them. The library is never closed, which the driver does not survive.
 *
 * A thread's current context is left as it was: each call brings the GPU's primary context, which
 * the CUDA runtime (so PyTorch, CuPy, JAX) works in, too, and takes it away again. What is
 * registered is so for every context (PORTABLE).
 *
 * The driver has locks of its own, and other threads that hold one of them may ask malloc for
 * memory. So nobody calls this who holds a lock that malloc would need: see design.md.
 */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host.h"

typedef int CUresult;
typedef int CUdevice;
typedef struct CUctx_st *CUcontext;

enum {
    SUCCESS = 0,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    DEINITIALIZED = 4,
    NO_DEVICE = 100,
    INVALID_CONTEXT = 201,
    CONTEXT_IS_DESTROYED = 709,
    NOT_REGISTERED = 713,
    SYSTEM_DRIVER_MISMATCH = 803,
    COMPAT_NOT_SUPPORTED = 804
};

enum { PORTABLE = 1 };

typedef struct driver {
    CUresult (*init)(unsigned flags);
    CUresult (*get_count)(int *count);
    CUresult (*get)(CUdevice *device, int ordinal);
    CUresult (*get_current)(CUcontext *context);
    CUresult (*get_device)(CUdevice *device);
    CUresult (*state)(CUdevice device, unsigned *flags, int *active);
    CUresult (*retain)(CUcontext *context, CUdevice device);
    CUresult (*release)(CUdevice device);
    CUresult (*push)(CUcontext context);
    CUresult (*pop)(CUcontext *context);
    CUresult (*host_register)(void *start, size_t bytes, unsigned flags);
    CUresult (*host_unregister)(void *start);
    CUresult (*error_name)(CUresult result, const char **name);
} driver;

struct mlim_cuda {
    driver calls;
    int ordinal;
    CUdevice device;
    CUcontext context; /* retained once */
    bool lost;         /* somebody destroyed the context: nothing more is registered in it */
    mlim_error why;    /* of the last that could not be registered */
};

/* Which process called the driver: its forked children must not. */
static pid_t _Atomic user;

static mlim_status fail(mlim_error *error, mlim_status status, int code, const char *format, ...)
{
    if (error) {
        va_list values;
        va_start(values, format);
        error->code = code;
        vsnprintf(error->message, sizeof error->message, format, values);
        va_end(values);
    }
    return status;
}

static const char *name_of(const driver *calls, CUresult result)
{
    const char *name = NULL;
    if (calls->error_name(result, &name) != SUCCESS || !name)
        return "an error without a name";
    return name;
}

static mlim_status find_calls(const char *library, driver *calls, mlim_error *error)
{
    const struct {
        const char *name;
        void *place;
    } wanted[] = {
        {"cuInit", &calls->init},
        {"cuDeviceGetCount", &calls->get_count},
        {"cuDeviceGet", &calls->get},
        {"cuCtxGetCurrent", &calls->get_current},
        {"cuCtxGetDevice", &calls->get_device},
        {"cuDevicePrimaryCtxGetState", &calls->state},
        {"cuDevicePrimaryCtxRetain", &calls->retain},
        {"cuDevicePrimaryCtxRelease_v2", &calls->release},
        {"cuCtxPushCurrent_v2", &calls->push},
        {"cuCtxPopCurrent_v2", &calls->pop},
        {"cuMemHostRegister_v2", &calls->host_register},
        {"cuMemHostUnregister", &calls->host_unregister},
        {"cuGetErrorName", &calls->error_name},
    };
    void *opened = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!opened)
        return fail(error, MLIM_NO_DEVICE, 0,
                    "there is no NVIDIA driver here: %s cannot be loaded. Install the driver, or "
                    "start the container with its GPUs (docker run --gpus all)",
                    library);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *found = dlsym(opened, wanted[i].name);
        if (!found)
            return fail(error, MLIM_NO_DEVICE, 0,
                        "the NVIDIA driver is too old: it has no %s, which came with CUDA 11. "
                        "Install a newer one",
                        wanted[i].name);
        memcpy(wanted[i].place, &found, sizeof found);
    }
    return MLIM_OK;
}

static mlim_status no_gpu(mlim_error *error)
{
    return fail(error, MLIM_NO_DEVICE, NO_DEVICE,
                "the NVIDIA driver sees no GPU: look at CUDA_VISIBLE_DEVICES, at nvidia-smi, and "
                "whether a GPU that is in MIG mode has an instance for this program");
}

static mlim_status begin(driver *calls, int *count, mlim_error *error)
{
    CUresult result = calls->init(0);
    if (result == SUCCESS)
        result = calls->get_count(count);
    if (result == NO_DEVICE || (result == SUCCESS && *count == 0))
        return no_gpu(error);
    if (result == NOT_INITIALIZED)
        return fail(error, MLIM_NO_DEVICE, result,
                    "the NVIDIA driver does not start here: this is a forked child of a process "
                    "that uses CUDA, or it ends. Start such children with 'spawn'");
    if (result == SYSTEM_DRIVER_MISMATCH || result == COMPAT_NOT_SUPPORTED)
        return fail(error, MLIM_NO_DEVICE, result,
                    "the NVIDIA driver's library does not fit the kernel's module (%s): restart "
                    "the machine after an update, or install a newer driver",
                    name_of(calls, result));
    if (result != SUCCESS)
        return fail(error, MLIM_NO_DEVICE, result, "the NVIDIA driver does not start: %s",
                    name_of(calls, result));
    return MLIM_OK;
}

static mlim_status choose(mlim_cuda *cuda, int ordinal, int count, mlim_error *error)
{
    const driver *calls = &cuda->calls;
    CUcontext current = NULL;
    CUdevice device;
    if (ordinal >= count)
        return fail(error, MLIM_NO_RESOURCES, count, "the NVIDIA driver sees %d GPU%s here", count,
                    count == 1 ? "" : "s");
    /* Where the caller works already, as the runtime would. */
    if (ordinal < 0 && calls->get_current(&current) == SUCCESS && current &&
        calls->get_device(&device) == SUCCESS)
        for (int i = 0; i < count && ordinal < 0; i++)
            if (calls->get(&cuda->device, i) == SUCCESS && cuda->device == device)
                ordinal = i;
    cuda->ordinal = ordinal < 0 ? 0 : ordinal;
    CUresult result = calls->get(&cuda->device, cuda->ordinal);
    if (result != SUCCESS)
        return fail(error, MLIM_NO_DEVICE, result, "GPU %d cannot be used: %s", cuda->ordinal,
                    name_of(calls, result));
    return MLIM_OK;
}

static bool is_active(const mlim_cuda *cuda)
{
    unsigned flags;
    int active = 0;
    return cuda->calls.state(cuda->device, &flags, &active) == SUCCESS && active;
}

static mlim_status retain(mlim_cuda *cuda, uint64_t room, mlim_error *error)
{
    if (!is_active(cuda) && room < MLIM_CUDA_START)
        return fail(error, MLIM_NO_DEVICE, 0,
                    "CUDA takes about %d MiB of memory to start, and the system has no more than "
                    "%d MiB to give: free some first",
                    (int)(MLIM_CUDA_START >> 20), (int)(room >> 20));
    CUresult result = cuda->calls.retain(&cuda->context, cuda->device);
    if (result == OUT_OF_MEMORY)
        return fail(error, MLIM_NO_DEVICE, result,
                    "GPU %d is out of memory: there is no room for a context of this process. "
                    "End what else uses it, or take another GPU",
                    cuda->ordinal);
    if (result != SUCCESS)
        return fail(error, MLIM_NO_DEVICE, result, "GPU %d gives this process no context: %s",
                    cuda->ordinal, name_of(&cuda->calls, result));
    return MLIM_OK;
}

mlim_status mlim_cuda_open(const char *library, int ordinal, uint64_t room, mlim_cuda **out,
                           mlim_error *error)
{
    int count = 0;
    pid_t before = 0;
    if (!atomic_compare_exchange_strong(&user, &before, getpid()) && before != getpid())
        return fail(error, MLIM_NO_DEVICE, 0,
                    "this is a forked child of a process that registered memory with CUDA, which "
                    "does not survive a fork: start it with 'spawn'");
    mlim_cuda *cuda = calloc(1, sizeof *cuda);
    if (!cuda)
        return mlim_fail(error, MLIM_NO_MEMORY, 12, "a handle for CUDA");
    mlim_status status = find_calls(library, &cuda->calls, error);
    if (status == MLIM_OK)
        status = begin(&cuda->calls, &count, error);
    if (status == MLIM_OK)
        status = choose(cuda, ordinal, count, error);
    if (status == MLIM_OK)
        status = retain(cuda, room, error);
    if (status != MLIM_OK) {
        free(cuda);
        return status;
    }
    *out = cuda;
    return MLIM_OK;
}

void mlim_cuda_close(mlim_cuda *cuda)
{
    if (!cuda)
        return;
    cuda->calls.release(cuda->device);
    free(cuda);
}

int mlim_cuda_ordinal(const mlim_cuda *cuda)
{
    return cuda->ordinal;
}

void mlim_cuda_why(const mlim_cuda *cuda, mlim_error *out)
{
    *out = cuda->why;
}

static CUresult lose(mlim_cuda *cuda)
{
    cuda->lost = true;
    return CONTEXT_IS_DESTROYED;
}

bool mlim_cuda_register(mlim_cuda *cuda, void *start, size_t length)
{
    const driver *calls = &cuda->calls;
    CUcontext popped;
    CUresult result = CONTEXT_IS_DESTROYED;
    if (!cuda->lost && !is_active(cuda))
        result = lose(cuda);
    else if (!cuda->lost)
        result = calls->push(cuda->context);
    if (result == SUCCESS) {
        result = calls->host_register(start, length, PORTABLE);
        calls->pop(&popped);
    }
    if (result == CONTEXT_IS_DESTROYED || result == INVALID_CONTEXT) {
        lose(cuda);
        fail(&cuda->why, MLIM_OK, result,
             "the GPU's context was destroyed (cudaDeviceReset): close the attachment and attach "
             "anew");
    } else if (result != SUCCESS) {
        fail(&cuda->why, MLIM_OK, result, "%s, of %zu bytes", name_of(calls, result), length);
    }
    return result == SUCCESS;
}

static CUresult unregister_once(const mlim_cuda *cuda, void *start)
{
    CUcontext popped;
    CUresult result = cuda->calls.push(cuda->context);
    if (result == SUCCESS) {
        result = cuda->calls.host_unregister(start);
        cuda->calls.pop(&popped);
    }
    return result;
}

bool mlim_cuda_unregister(mlim_cuda *cuda, void *start)
{
    CUresult result = CONTEXT_IS_DESTROYED;
    if (cuda->lost || is_active(cuda))
        result = unregister_once(cuda, start);
    if (result == CONTEXT_IS_DESTROYED || result == INVALID_CONTEXT) {
        /* What was registered went with the context; one that is alive has to say so. */
        lose(cuda);
        if (cuda->calls.retain(&cuda->context, cuda->device) == SUCCESS)
            result = unregister_once(cuda, start);
    }
    if (result == SUCCESS || result == NOT_REGISTERED || result == DEINITIALIZED)
        return true;
    fail(&cuda->why, MLIM_OK, result, "%s, while taking a registration back",
         name_of(&cuda->calls, result));
    return false;
}
