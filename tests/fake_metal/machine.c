/* What Linux says about the machine under the stand-in. */
#include "machine.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int64_t meminfo(const char *key)
{
    char line[256];
    int64_t kibibytes = 0;
    FILE *file = fopen("/proc/meminfo", "re");
    if (!file)
        return 0;
    while (fgets(line, sizeof line, file))
        if (strncmp(line, key, strlen(key)) == 0)
            sscanf(line + strlen(key), "%" SCNd64, &kibibytes);
    fclose(file);
    return kibibytes * 1024;
}

int64_t fake_machine_memory(void)
{
    return meminfo("MemTotal:");
}

int64_t fake_machine_available(void)
{
    return meminfo("MemAvailable:");
}

int64_t fake_machine_swap_total(void)
{
    return meminfo("SwapTotal:");
}

int64_t fake_machine_swap_free(void)
{
    return meminfo("SwapFree:");
}

int64_t fake_machine_footprint(void)
{
    int64_t resident = 0, shared = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file)
        return 0;
    if (fscanf(file, "%*d %" SCNd64 " %" SCNd64, &resident, &shared) != 2)
        resident = shared = 0;
    fclose(file);
    return (resident - shared) * sysconf(_SC_PAGESIZE);
}
