#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# exports.sh SOURCE - checks that every function that a header of common/, of a daemon or of saltctl declares has a production caller: its name occurs
# in another .c file than the one that defines it, or in a macro or inline function of a header. Tests and benchmarks do not count. To fix a finding,
# delete the function, or make it static if only its own file calls it.
set -u

# Prints one line for each function without a caller: HEADER: NAME. Reads the current folder.
unused() {
	find common client selectord teacherd trainerd saltctl \( -name '*.[ch]' -o -name '*.cu' \) 2>/dev/null | sort | xargs -r awk '
	FNR == 1 { comment = 0 }
	{
		line = $0
		gsub(/"([^"\\]|\\.)*"/, "\"\"", line)
		if (comment) {
			if (!match(line, /\*\//)) next
			line = substr(line, RSTART + 2); comment = 0
		}
		while (match(line, /\/\*/)) {
			head = substr(line, 1, RSTART - 1); rest = substr(line, RSTART + 2)
			if (!match(rest, /\*\//)) { line = head; comment = 1; break }
			line = head " " substr(rest, RSTART + 2)
		}
		sub(/\/\/.*/, "", line)
		top = line ~ /^[a-z]/
		if (FILENAME ~ /\.h$/ && top) {
			# a declaration: takes the name before the first parenthesis
			if (line !~ /^(static|typedef|struct [a-z_0-9]+ \{|enum|union)/ && FILENAME !~ /^client\// && match(line, /[a-z][a-z0-9_]*\(/)) {
				name = substr(line, RSTART, RLENGTH - 1)
				if (name != "__attribute__" && !(name in header)) header[name] = FILENAME
			}
			next
		}
		# the definition: the name begins the line
		if (top && match(line, /^[a-z][a-z0-9_]*\(/)) home[substr(line, 1, RLENGTH - 1)] = FILENAME
		while (match(line, /[A-Za-z_][A-Za-z0-9_]*/)) {
			word = substr(line, RSTART, RLENGTH); line = substr(line, RSTART + RLENGTH)
			if (!((word, FILENAME) in seen)) { seen[word, FILENAME] = 1; files[word] = files[word] " " FILENAME }
		}
	}
	END {
		for (name in header) {
			n = split(files[name], at, " "); used = 0
			for (i = 1; i <= n; i++) used += at[i] != home[name]
			if (!used) print header[name] ": " name
		}
	}' | sort
}

# The check must be able to fail: a function with a caller, one that only its own file calls, one that only a test calls, and one without a caller.
self_test() {
	local dir out
	dir=$(mktemp -d)
	mkdir -p "$dir/common/base/a" "$dir/selectord" "$dir/tests/unit"
	printf 'int a_used(void);\nint a_own(void);\nint a_tested(void);	/* a_tested */\nstruct a *a_dead(\n    int x);\n#define A a_macro()\nint a_macro(void);\n' \
		> "$dir/common/base/a/a.h"
	printf 'int\na_used(void)\n{\n\treturn a_own();\n}\nint\na_own(void)\n{\n\treturn 0; /* a_dead */\n}\n' > "$dir/common/base/a/a.c"
	printf 'int\nmain(void)\n{\n\treturn a_used() + strlen("a_dead");\n}\n' > "$dir/selectord/main.c"
	printf 'int\nmain(void)\n{\n\treturn a_tested();\n}\n' > "$dir/tests/unit/test_a.c"
	out=$(cd "$dir" && unused | sed 's/.*: //' | tr '\n' ' ')
	rm -r "$dir"
	[ "$out" = "a_dead a_own a_tested " ] && return 0
	echo "FAIL: self test: expected a_dead a_own a_tested, found $out"
	return 1
}

# Functions that stay exported although no program calls them, each with its reason.
allowed() {
	sed 's/[[:space:]]*#.*//; s/^[[:space:]]*//' <<- 'LIST' | grep .
		ctl_verbs		# the table of verbs: tests check every entry
		fleet_add		# called in its own file; tests fill a fleet without daemons
		top_loss		# called in its own file; tests draw given losses
		top_spark		# called in its own file; tests draw given losses
	LIST
}

self_test || exit 1
cd "$1" || exit 1
found=$(unused)
for name in $(allowed); do
	grep -q ": $name\$" <<< "$found" || { echo "FAIL: $name has a caller or is gone: take it off the list in exports.sh"; exit 1; }
done
found=$(grep -vE ": ($(allowed | paste -sd '|'))\$" <<< "$found")
[ -z "$found" ] || { echo "FAIL: declared in a header, but called by no other file of the programs:"; echo "$found"; exit 1; }
