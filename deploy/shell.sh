# SPDX-License-Identifier: Apache-2.0
# Sourced first by every script of this folder, after here= was set: an environment that does not depend on whose shell it was.
# "bash -p" in their first line skips BASH_ENV and exported functions and options; what is here also serves "bash SCRIPT".
set +o posix +o noclobber +o noglob +o allexport
shopt -u nullglob failglob dotglob nocaseglob nocasematch
shopt -s extquote
unset CDPATH GLOBIGNORE BASH_ENV ENV GREP_OPTIONS GREP_COLOR GREP_COLORS POSIXLY_CORRECT TAR_OPTIONS LANGUAGE LC_NUMERIC
unalias -a
IFS=$' \t\n'
export LC_ALL=C			# decimals with a point, one order of names, messages that can be compared
export -n SHELLOPTS BASHOPTS

self=${0##*/}
die() { echo "$self: $2" >&2; exit "$1"; }

# programs: the folder of the programs. $BIN, build/bin of the source tree, or bin beside share/saltfleet/deploy of an installation.
programs() {
	local dir=${BIN:-$here/../build/bin}
	[ -n "${BIN-}" ] || [ -d "$dir" ] || dir=$here/../../../bin
	(cd -- "$dir" 2> /dev/null && pwd) || echo "$dir"
}

# absolute PATH: the same path from the root; its folder must exist
absolute() {
	local dir
	dir=$(cd -- "$(dirname -- "$1")" && pwd) || return
	printf '%s/%s\n' "${dir%/}" "$(basename -- "$1")"
}
