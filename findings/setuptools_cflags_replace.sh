#!/bin/sh
# setuptools 84.2.1: a CFLAGS of one's own takes the place of the flags that Python was built with.
#
# Without the variable an extension is compiled as Python was, with its -O and -DNDEBUG. With any
# value, an empty one or -g1, none of these is left: the extension is not optimised, asserts are
# compiled in, and nothing says so. One would have guessed that CFLAGS adds to them, and that an empty
# one is as good as none.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet setuptools==84.2.1
cd "$folder"
cat >setup.py <<'END'
from setuptools import Extension, setup

setup(name="half", ext_modules=[Extension("half", ["half.c"])])
END
cat >half.c <<'END'
#include <Python.h>
static struct PyModuleDef half = {PyModuleDef_HEAD_INIT, "half"};
PyMODINIT_FUNC PyInit_half(void) { return PyModule_Create(&half); }
END
# How many flags of optimisation, and of assert, the compiler was given. The words before it: env's.
flags() {
    rm -rf build
    env "$@" venv/bin/python setup.py build_ext 2>&1 | grep -e ' -c half.c' | tr ' ' '\n' |
        grep -c -e '^-O[1-3]$' -e '^-DNDEBUG$' || true
}
without=$(flags -u CFLAGS)
empty=$(flags CFLAGS=)
own=$(flags CFLAGS=-g1)
echo "flags that Python was built with: $without without CFLAGS, $empty with CFLAGS=, $own with CFLAGS=-g1"
[ "$without" -ge 2 ] && [ "$empty" = 0 ] && [ "$own" = 0 ] || { echo "that was expected" && exit 1; }
