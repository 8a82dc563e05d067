#!/bin/sh
# Cython 3.3.1: with --line-directives, C that is of no line of the source is given lines of it.
#
# After the last statement no directive says that what follows is Cython's own. The C compiler goes on
# counting, so the functions that make constants and code objects have the numbers of the lines after
# it, most of which the source does not have: debuggers stop in them, and gcov, which finds them in no
# file or not executed, counts them. One would have guessed that each line of C is of the statement
# that it was made of, or of none, as with the "cython_utility" that Cython names further on.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet cython==3.3.1
cd "$folder"
printf 'def half(n):\n    return n // 2\n' >two_lines.pyx
venv/bin/cython --version
venv/bin/cython -3 --line-directives two_lines.pyx
# The line of the source that the C compiler has for a line of C.
found=$(awk '
    /^#line / { line = $2 - 1; file = $3; next }
    { line++ }
    /^static int __Pyx_InitConstants\(.*\{$/ { print file, (line > 2 ? "beyond its 2 lines" : line) }
' two_lines.c)
echo "__Pyx_InitConstants is in $found"
[ "$found" = '"two_lines.pyx" beyond its 2 lines' ] || { echo "that was expected" && exit 1; }
