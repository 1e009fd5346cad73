#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make.sh PROGRAM TEMPLATE - prints a daemon's manual page: the template, with @SYNOPSIS@ and @OPTIONS@ taken from the output of --help.
set -euo pipefail
[ $# -eq 2 ] || { echo "usage: $0 PROGRAM TEMPLATE" >&2; exit 64; }
help=$("$1" --help)
name=$(basename "$1")
escaped() { sed -e 's/\\/\\e/g' -e 's/-/\\-/g'; }
version=$("$1" --version | cut -d' ' -f2)
synopsis=$(sed -n "s/^usage: $name //p" <<< "$help" | escaped)
options=$(sed -z 's/\n \{10,\}/ /g' <<< "$help" | sed -nE 's/^  (-.*[^ ])  +([^ ].*)$/\1\t\2/p; s/^  (--[^ ]*, --[^ ]*)$/\1\t/p' | escaped |
	awk -F '\t' '{ printf ".TP\n\\fB%s\\fR\n%s\n", $1, $2 != "" ? $2 : "print this and exit" }')
[ -n "$synopsis" ] && [ -n "$options" ] || { echo "$0: $1 --help: no usage line or no options found" >&2; exit 65; }
echo ".\\\" Generated from $(basename "$2") and the output of $name \\-\\-help."
while IFS= read -r line; do
	case $line in
	@SYNOPSIS@) printf '\\fB%s\\fR %s\n' "$name" "$synopsis" ;;
	@OPTIONS@) printf '%s\n' "$options" ;;
	*) printf '%s\n' "${line//@VERSION@/$version}" ;;
	esac
done < "$2"
