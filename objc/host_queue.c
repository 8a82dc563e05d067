/* The host has no queues: whoever works on its memory does so through the address. */
#include <errno.h>

#include "host.h"

mlim_status mlim_queue_open(mlim_device *device, void *native, mlim_queue **out, mlim_error *error)
{
    (void)device, (void)native, (void)out;
    return mlim_fail(error, MLIM_UNSUPPORTED, ENOTSUP, "a queue");
}

void mlim_queue_close(mlim_queue *queue)
{
    (void)queue;
}

void mlim_queue_add(mlim_queue *queue, mlim_residency *set)
{
    (void)queue, (void)set;
}

void mlim_queue_remove(mlim_queue *queue, mlim_residency *set)
{
    (void)queue, (void)set;
}
