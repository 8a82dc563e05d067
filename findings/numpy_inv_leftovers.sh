#!/bin/sh
# NumPy 2.3.3: where malloc fails in numpy.linalg.inv, the result is what lay in its memory before.
#
# NumPy's pull request 29811 (in 2.3.4) says that such a result is all zeros, and one would look for
# that. It is zeros only where the array's memory is fresh from the system: nothing is written to it.
# Otherwise it has what was freed before, here numbers of another array, with no error; a check that no
# result is zero passes it.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install numpy==2.3.3 >/dev/null
cat >"$folder/failing.c" <<'END'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

/* So many bytes are refused; none by default. */
size_t refused = (size_t)-1;

void *malloc(size_t n)
{
    static void *(*plain)(size_t);
    if (n == refused)
        return NULL;
    if (!plain)
        *(void **)&plain = dlsym(RTLD_NEXT, "malloc");
    return plain(n);
}
END
cc -shared -fPIC -o "$folder/failing.so" "$folder/failing.c" -ldl
cat >"$folder/program.py" <<'END'
import ctypes, sys
import numpy as np

n = 64
matrix = np.eye(n)
refused = ctypes.c_size_t.in_dll(ctypes.CDLL(sys.argv[1]), "refused")
# The scratch memory of one call: the matrix, the right-hand side, and pivots, all of eight bytes.
np.full((n, n), 7.0)
refused.value = n * n * 8 * 2 + n * 8
found = np.linalg.inv(matrix)
refused.value = 2**64 - 1
print("NumPy", np.__version__)
print("an error:", False)
print("zeros:", not found.any())
print("leftovers:", (found == 7.0).mean() > 0.9)
END
LD_PRELOAD="$folder/failing.so" OPENBLAS_NUM_THREADS=1 \
    "$folder/env/bin/python" "$folder/program.py" "$folder/failing.so" >"$folder/said"
cat "$folder/said"
for line in "NumPy 2.3.3" "an error: False" "zeros: False" "leftovers: True"; do
    grep -q "^$line" "$folder/said" || { echo "something else was expected" && exit 1; }
done
