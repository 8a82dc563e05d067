#!/bin/sh
# clang-format 23.1.5: a reason after "clang-format off" is taken in a line comment only.
#
# "// clang-format off: a table" switches formatting off; "/* clang-format off: a table */" is a comment
# like any other, and the table behind it is formatted, without a word. Without a reason both switch
# it off. In C, where comments are /* */, one would have guessed that the reason makes no difference.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet clang-format==23.1.5

formatted() {
    printf '%s\nint  table  =  1;\n' "$1" |
        "$folder/venv/bin/clang-format" --style=LLVM --assume-filename=table.c | tail -n 1
}

expect() {
    found=$(formatted "$1")
    echo "$1 -> $found"
    [ "$found" = "$2" ] || { echo "expected: $2" && exit 1; }
}

"$folder/venv/bin/clang-format" --version
expect '// clang-format off' 'int  table  =  1;'
expect '/* clang-format off */' 'int  table  =  1;'
expect '// clang-format off: a table' 'int  table  =  1;'
expect '/* clang-format off: a table */' 'int table = 1;'
