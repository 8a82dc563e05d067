#!/bin/sh
# Cython 3.3.1: in a `noexcept nogil` function a literal b"..." that is indexed is an object of Python's.
#
# As an argument that is a `const char *` the same literal is an array of C's, so one would have
# guessed that b"0123456789"[digit] reads a char of one, too. It asks a bytes object of the module's,
# and takes the GIL to report an index out of range. Where the module was not initialised, as when the
# function is called from C alone, there is no such object.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet cython==3.3.1
cd "$folder"
cat >digits.pyx <<'PYX'
cdef public char digit(int n) noexcept nogil:
    return b"0123456789"[n]
PYX
venv/bin/cython --version
venv/bin/cython -3 digits.pyx
sed -n '/^char digit(int .*{$/,/^}/p' digits.c >digit.c
for name in __Pyx_GetItemInt_Bytes __Pyx_PyGILState_Ensure; do
    grep -q "$name" digit.c || { echo "no $name in the function: it was expected" && exit 1; }
    echo "the function calls $name"
done
