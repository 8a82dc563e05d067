#!/bin/sh
# Make what lies here anew, and is installed beside the package: manual pages, and what has shells
# complete the command's words. PYTHON is one that has the package, of this tree.
set -eu
cd "$(dirname "$0")"

mkdir -p bash-completion/completions zsh/site-functions fish/vendor_completions.d
rm -rf man/man1
"${PYTHON:-python}" -m memlimits man --into man/man1
"${PYTHON:-python}" -m memlimits completion bash >bash-completion/completions/memlimits
"${PYTHON:-python}" -m memlimits completion zsh >zsh/site-functions/_memlimits
"${PYTHON:-python}" -m memlimits completion fish >fish/vendor_completions.d/memlimits.fish
