# SPDX-License-Identifier: Apache-2.0
# Every script of this folder sources this file first, after it has set here=. It makes the environment
# independent of the caller's shell. "bash -p" in the first line of the scripts already skips BASH_ENV and
# exported functions and options; this file also covers "bash SCRIPT".
set +o posix +o noclobber +o noglob +o allexport
shopt -u nullglob failglob dotglob nocaseglob nocasematch
shopt -s extquote
unset CDPATH GLOBIGNORE BASH_ENV ENV GREP_OPTIONS GREP_COLOR GREP_COLORS POSIXLY_CORRECT TAR_OPTIONS LANGUAGE LC_NUMERIC
unalias -a
IFS=$' \t\n'
export LC_ALL=C			# decimal points, a fixed order of names, untranslated messages
export -n SHELLOPTS BASHOPTS

self=${0##*/}
die() { echo "$self: $2" >&2; exit "$1"; }

# programs: prints the folder of the programs: $BIN, build/bin of the source tree, or the bin folder of an
# installation (beside its share/).
programs() {
	local dir=${BIN:-$here/../build/bin}
	[ -n "${BIN-}" ] || [ -d "$dir" ] || [ ! -x "$here/../../../bin/saltctl" ] || dir=$here/../../../bin
	(cd -- "$dir" 2> /dev/null && pwd) || echo "$dir"
}

# absolute PATH: prints PATH as an absolute path; its folder must exist
absolute() {
	local dir
	dir=$(cd -- "$(dirname -- "$1")" && pwd) || return
	printf '%s/%s\n' "${dir%/}" "$(basename -- "$1")"
}
