/* What Linux says about the machine under the stand-in, in bytes. */
#ifndef FAKE_MACHINE_H
#define FAKE_MACHINE_H

#include <stdint.h>

int64_t fake_machine_memory(void);
int64_t fake_machine_available(void);
int64_t fake_machine_swap_total(void);
int64_t fake_machine_swap_free(void);
int64_t fake_machine_footprint(void); /* this process's private bytes in RAM */

#endif
