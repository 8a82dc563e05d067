/* Before all else in the sources of memlimits: the shim's functions are called so that a library
 * which is loaded first can have others in their place. */
#pragma GCC visibility push(default)
#include "../../objc/mlim.h"
#pragma GCC visibility pop
