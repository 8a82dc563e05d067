/* Where there is Metal there is no CUDA. */
#include "metal.h"

mlim_status mlim_cuda_open(const char *library, int ordinal, uint64_t room, mlim_cuda **out,
                           mlim_error *error)
{
    (void)library, (void)ordinal, (void)room, (void)out;
    return mlim_fail(error, MLIM_UNSUPPORTED, nil, "there is no CUDA where memory is Metal's");
}

void mlim_cuda_close(mlim_cuda *cuda)
{
    (void)cuda;
}

int mlim_cuda_ordinal(const mlim_cuda *cuda)
{
    (void)cuda;
    return 0;
}

void mlim_cuda_why(const mlim_cuda *cuda, mlim_error *out)
{
    (void)cuda;
    out->code = 0;
    out->message[0] = 0;
}

void mlim_device_register_with(mlim_device *device, mlim_cuda *cuda)
{
    (void)device, (void)cuda;
}

bool mlim_buffer_is_registered(const mlim_buffer *buffer)
{
    (void)buffer;
    return false;
}
