# SPDX-License-Identifier: Apache-2.0
# Completion for bash. When it is installed, a table of saltctl's verbs precedes this file. Options of the daemons and of the deploy scripts are
# read from their --help.

_saltctl() {
	local cur=${COMP_WORDS[COMP_CWORD]} at=1 verb options word
	COMPREPLY=()
	[ "${COMP_WORDS[1]-}" != help ] || at=2
	if [ "$COMP_CWORD" -eq $at ]; then
		COMPREPLY=($(compgen -W "$_saltctl_first" -- "$cur"))
		return
	fi
	verb=${COMP_WORDS[at]-}
	if [ -n "$(_saltctl_second "$verb")" ]; then
		if [ "$COMP_CWORD" -eq $((at + 1)) ]; then
			COMPREPLY=($(compgen -W "$(_saltctl_second "$verb")" -- "$cur"))
			return
		fi
		verb="$verb ${COMP_WORDS[at + 1]-}"
	fi
	options=$(_saltctl_options "$verb") || return 0
	for word in $options; do		# an option's argument: files are offered by default
		[ "${COMP_WORDS[COMP_CWORD - 1]}=" != "$word" ] || return 0
	done
	case $cur in
	-*) COMPREPLY=($(compgen -W "${options//=/}" -- "$cur")) ;;
	esac
}

_saltfleet_program() {		# selectord, teacherd, trainerd, local.sh and its like
	local cur=${COMP_WORDS[COMP_CWORD]} help word
	COMPREPLY=()
	help=$("${COMP_WORDS[0]}" --help 2> /dev/null) || return 0
	case $cur in
	-*) COMPREPLY=($(compgen -W "$(grep -oE '(^|[^a-z])--?[a-z][a-z-]*' <<< "$help" | grep -oE -- '-.*' | sort -u)" -- "$cur")) ;;
	*)	for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do	# a verb is there already
			case $word in -*) ;; *) return 0 ;; esac
		done
		COMPREPLY=($(compgen -W "$(sed -nE 's/^  ([a-z]+)( .*|$)/\1/p' <<< "$help")" -- "$cur")) ;;
	esac
}

complete -o default -o bashdefault -F _saltctl saltctl
complete -o default -o bashdefault -F _saltfleet_program selectord teacherd trainerd local.sh ssh.sh
