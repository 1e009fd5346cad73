# SPDX-License-Identifier: Apache-2.0
# docs_names - the documentation names only what exists: links, paths of the repository, options of fleet.yaml, verbs of saltctl and their options.
# It reads all *.md files. Only the glossary and CHANGELOG.md may contain former names of options.
set -u
cd "$SOURCE" || exit 1
top='common|ctl|saltctl|client|proto|teacherd|selectord|trainerd|deploy|tests|bench|docs|share|cmake|debian|python'
pages=$(find . -name '*.md' -not -path './build/*' -not -path './run/*' -not -path './.git/*' | sed 's|^\./||' | sort)
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
bad=0
report() { echo "$1: $2"; bad=$((bad + 1)); }

# One version: project() in CMakeLists.txt is what the programs print, and CHANGELOG.md has it.
version=$(sed -nE 's/^project\(.* VERSION ([0-9.]+) .*/\1/p' CMakeLists.txt)
for program in saltctl selectord teacherd trainerd; do
	[ "$("$BIN/$program" --version)" = "$program $version" ] || report "$program --version" "expected $program $version"
done
grep -qE "^## \[$version\]" CHANGELOG.md || report CHANGELOG.md "no heading for version $version"

# Options of fleet.yaml, from config.md, which the test unit/config compares with the table.
grep -oE '^\| `[a-z_]+\.[a-z_]+`' docs/config.md | tr -d '|` ' > "$scratch/options"
sections=$(cut -d. -f1 "$scratch/options" | sort -u | paste -sd'|')
[ "$(wc -l < "$scratch/options")" -ge 60 ] || report docs/config.md "at least 60 options expected"

# Verbs, and the help text of each in a separate file.
"$BIN/saltctl" help | sed -nE 's/^  ([a-z]+( [a-z]+)?)  +.*/\1/p' > "$scratch/verbs"
[ "$(wc -l < "$scratch/verbs")" -ge 20 ] || report "saltctl help" "at least 20 verbs expected"
while read -r verb; do
	"$BIN/saltctl" help $verb > "$scratch/help.${verb// /_}" || report "saltctl help" "no help for $verb"
done < "$scratch/verbs"

# One command line: the verb, and the options that come before a comment, a pipe or a backtick.
command_line() {
	local page=$1 words verb help
	read -ra words <<< "${2%%[#|\`]*}"
	verb="${words[1]:-} ${words[2]:-}"
	grep -qxFe "$verb" "$scratch/verbs" || verb=${words[1]:-}
	case $verb in help | -* | VERB* | '' | *[!a-z\ ]*) return ;; esac
	if ! grep -qxFe "$verb" "$scratch/verbs"; then
		# the name of a group of verbs alone, such as "saltctl cache", is accepted too
		grep -q "^$verb " "$scratch/verbs" && [[ ! ${words[2]:-} =~ ^[a-z]+$ ]] || report "$page" "no verb of saltctl: $verb ${words[2]:-}"
		return
	fi
	help=$scratch/help.${verb// /_}
	for word in "${words[@]:1}"; do
		word=${word%%=*}; word=${word%%[),.;:]*}
		case $word in --help | --config | --set | --json) ;; --[a-z]*) grep -qE -- "^ +$word( |$)" "$help" || report "$page" "saltctl $verb has no $word" ;; esac
	done
}

for page in $pages; do
	folder=$(dirname "$page")
	sed -e ':a' -e '/\\$/N; s/\\\n */ /; ta' "$page" > "$scratch/text"
	# [text](target): a file beside the page, and the heading if the target names one
	for link in $(grep -oE '\]\([^)# ]*(#[^) ]*)?\)' "$scratch/text" | sed 's/^](//; s/)$//' | grep -vE '^(https?|mailto):' | sort -u); do
		file=${link%%#*}
		if [ -z "$file" ]; then file=$page; else file=$folder/$file; fi
		[ -e "$file" ] || { report "$page" "link to a file that is not there: $link"; continue; }
		case $link in *\#*) sed -nE 's/^#+ //p' "$file" | tr 'A-Z' 'a-z' | tr -cd 'a-z0-9 _\n-' | tr ' ' '-' | grep -qxF -- "${link#*#}" ||
			report "$page" "link to a heading that is not there: $link" ;; esac
	done
	# paths of the repository, wherever they stand; a pattern must match something
	for path in $(grep -oE "(^|[] \`(\"'])(\./)?($top)/[A-Za-z0-9_.*{},/-]*[A-Za-z0-9_*}/-]" "$scratch/text" | sed -E "s/^[] \`(\"']//; s/^\.\///" | sort -u); do
		case $page in CHANGELOG.md) continue ;; esac
		[[ $path =~ /[A-Z]+(/|\.|$) && ! $path =~ /README ]] && continue		# placeholders such as NAME, LAYER
		eval "set -- $path"		# braces and stars
		for one; do [ -e "$one" ] || [ -e "$folder/$one" ] || { report "$page" "no such path: $path"; break; }; done
	done
	# `section.option`, --set section.option=
	for option in $(grep -oE "(\`|--set )($sections)\.[a-z_]+[a-z]\b(\`|[=: ])" "$scratch/text" | sed -E 's/^(`|--set )//; s/.$//' | sort -u); do
		case $option in *.key | *.pub | *.py | *.md | *.c | *.h | *.json | *.sh | *.yaml | *.proto | *.env) continue ;; esac
		case $page in docs/glossary.md | CHANGELOG.md) continue ;; esac
		grep -rqF --include='*.c' --exclude-dir=config "\"$option\"" common selectord teacherd trainerd && continue	# an event
		grep -qxF "$option" "$scratch/options" || report "$page" "no option of fleet.yaml: $option"
	done
	grep -oE '(^ {4}|`)saltctl [^`]*' "$scratch/text" | sed 's/^`//; s/^ *//' > "$scratch/commands"
	while read -r line; do command_line "$page" "$line"; done < "$scratch/commands"
done
[ "$bad" -eq 0 ] || { echo "$bad names that do not exist"; exit 1; }
echo "$(wc -w <<< "$pages") pages, $(wc -l < "$scratch/options") options, $(wc -l < "$scratch/verbs") verbs"
