/* Memory that can be closed: ranges of pages between guard pages. */
#ifndef FAKE_RANGES_H
#define FAKE_RANGES_H

#include <stddef.h>
#include <stdlib.h>

typedef struct fake_range fake_range;

/* Zeros, aligned to the page. NULL when Linux refuses. What it is for is said when a touch of its
 * guards, or of itself when closed or unmapped, ends the program. */
fake_range *fake_range_map(size_t length, size_t page, const char *what);
void fake_range_unmap(fake_range *range);

char *fake_range_start(const fake_range *range);

/* While closed it can be neither read nor written. Emptied, its contents are lost; opened after
 * that, it holds rubbish. */
void fake_range_close(fake_range *range, const char *because);
void fake_range_empty(fake_range *range);
void fake_range_open(fake_range *range);

#endif
