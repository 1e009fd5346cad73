# SPDX-License-Identifier: Apache-2.0
# cmake --install: the installed programs run, and so does a program built with pkg-config's flags for the library; roff accepts the manual pages
# without a warning; each function of the library has a page; completion offers every verb and option; and the deploy scripts find the programs.
. "$(dirname "$0")/lib.sh"
cd "$scratch"
cmake --install "$(dirname "$BIN")" --prefix "$scratch/usr" > install.log 2>&1 || fail "cmake --install: $(tail -3 install.log)"
for program in saltctl selectord teacherd trainerd saltfleet-supervise; do
	usr/bin/$program --version | grep -q "^$program [0-9]" || fail "the installed $program does not run"
done
for script in local.sh ssh.sh quickstart.sh smollm2-teacher.sh; do
	usr/share/saltfleet/deploy/$script --help > /dev/null || fail "the installed $script does not run"
done
echo 'run: {dir: run}' > fleet.yaml
got=0
usr/share/saltfleet/deploy/local.sh status -c fleet.yaml > out 2>&1 || got=$?
[ $got != 69 ] || ! grep -q 'build first' out || fail "the installed local.sh does not find the programs: $(cat out)"
[ -s usr/share/saltfleet/tokenizer-4k/tokenizer.json ] && [ -s usr/share/doc/saltfleet/operation.md ] || fail "no tokenizer, or no docs: $(find usr | head -40)"

# Every unit is installed, and names the programs and mpi.sh at their default paths.
prefix=$(sed -n 's/^CMAKE_INSTALL_PREFIX:PATH=//p' "$(dirname "$BIN")/CMakeCache.txt")
for unit in saltfleet-selectord saltfleet-teacherd@ saltfleet-trainerd; do
	grep -q "^ExecStart=.*$prefix/bin/" "usr/lib/systemd/system/$unit.service" || fail "$unit.service: no program of $prefix/bin"
done
for path in $(grep -oh "$prefix/[^ ]*" usr/lib/systemd/system/*.service); do
	[ -x "usr${path#"$prefix"}" ] || fail "a unit names $path, which is not installed"
done
[ -s usr/lib/systemd/system/saltfleet-.service.d/hardening.conf ] && [ -s usr/lib/sysusers.d/saltfleet.conf ] || fail "no drop-in or no sysusers"

# ---- manual pages ----

man=usr/share/man
for page in man1/saltctl.1 man5/fleet.yaml.5 man7/saltfleet.7 man8/selectord.8 man8/teacherd.8 man8/trainerd.8 man8/saltfleet-supervise.8; do
	[ -s $man/$page ] || fail "no $page"
	grep -q '^\.SH NAME$' $man/$page && grep -q '^\.SH SEE ALSO$' $man/$page || fail "$page: not a whole page"
done
for page in $man/*/*; do
	sed -e 's/\\-/-/g' -e 's/\\e/\\/g' -e 's/\\&//g' -e 's/\\f[BIR]//g' "$page" > "$(basename "$page").plain"
done
while read -r verb; do
	grep -qxF ".SS $verb" saltctl.1.plain || fail "saltctl.1 does not have $verb"
	example=$(usr/bin/saltctl help $verb | sed -n 's/^example: //p')
	grep -qxF -- "$example" saltctl.1.plain || fail "saltctl.1 does not have the example of $verb: $example"
done < <(usr/bin/saltctl help | sed -n 's/^  \([a-z]\+\( [a-z]\+\)\?\)  .*/\1/p')
n=0
while read -r key; do
	grep -qxF "$key" fleet.yaml.5.plain || fail "fleet.yaml.5 does not have $key"
	n=$((n + 1))
done < <(sed -nE 's/^\| `([a-z_.]+)` \|.*/\1/p' "$SOURCE/docs/config.md")
[ $n -gt 50 ] || fail "only $n options in docs/config.md"
for daemon in selectord teacherd trainerd; do
	usr/bin/$daemon --help | grep -oE '^  -[^ ]+(, --[a-z]+)?' | sed 's/^  //' > options
	[ "$(wc -l < options)" -ge 4 ] || fail "$daemon --help: $(cat options)"
	while read -r option; do
		grep -q -- "^$option" $daemon.8.plain || fail "$daemon.8 does not have $option"
	done < options
	! grep -q '@' $man/man8/$daemon.8 || fail "$daemon.8: $(grep @ $man/man8/$daemon.8)"
done

# ---- the library ----

# With header, library and pkg-config file of the prefix, a compiler makes a program that runs.
pc=$(find usr -name saltfleet.pc)
[ -s usr/include/saltfleet.h ] && [ -n "$pc" ] || fail "no header, or no saltfleet.pc: $(find usr -name '*saltfleet*')"
cat > version.c <<'END'
#include <saltfleet.h>
#include <stdio.h>

int
main(void)
{
	struct salt_options o = {.size = sizeof(o), .role = SALT_CLIENT, .config = "nothing.yaml"};
	struct salt_error e;
	struct salt *s;

	printf("%s %s\n", salt_version(), salt_code_name(salt_open(&s, &o, &e)));
	return 0;
}
END
export PKG_CONFIG_PATH=$scratch/${pc%/*}
read -ra flags <<< "$(pkg-config --cflags --libs saltfleet)"
! pkg-config --libs --static saltfleet | grep -iE 'mpi|blas' || fail "saltfleet.pc names MPI or BLAS"
"${CC:-cc}" -std=c99 -Wall -Wextra -Werror version.c -o version "${flags[@]}" || fail "a program with the flags ${flags[*]}"
libdir=$(pkg-config --variable=libdir saltfleet)
version=$(usr/bin/saltctl --version | cut -d' ' -f2)
[ "$(LD_LIBRARY_PATH=$libdir ./version)" = "$version SALT_NOT_FOUND" ] || fail "the program prints $(LD_LIBRARY_PATH=$libdir ./version)"
[ "$(pkg-config --modversion saltfleet)" = "$version" ] || fail "saltfleet.pc has version $(pkg-config --modversion saltfleet)"
[ -L "$libdir/libsaltfleet.so" ] && [ "$(readlink "$libdir/libsaltfleet.so")" = libsaltfleet.so.1 ] || fail "$(ls -l "$libdir"/libsaltfleet*)"
for example in "$SOURCE"/client/examples/*.c; do
	[ -e "$example" ] || continue
	"${CC:-cc}" -std=c17 -D_GNU_SOURCE -Wall -Wextra -Werror "$example" -o example "${flags[@]}" -lm || fail "$example with the flags ${flags[*]}"
	got=0
	LD_LIBRARY_PATH=$libdir ./example nothing.yaml nothing > out 2>&1 || got=$?
	[ $got = 66 ] && grep -q 'nothing.yaml' out || fail "$example nothing.yaml: expected a message and 66, found $got: $(cat out)"
done

# Each function has a page, and the prototypes of the pages agree with the header: the compiler accepts both in one file.
functions=$("${CC:-cc}" -E -P usr/include/saltfleet.h | tr '\n' ' ' | tr ';' '\n' | sed -nE 's/.*__attribute__\(\(visibility[^ ]* [^(]*[ *](salt_[a-z_]+)\(.*/\1/p')
[ "$(wc -l <<< "$functions")" -ge 30 ] || fail "only $(wc -l <<< "$functions") functions in saltfleet.h"
synopsis() { sed -n '/^\.SH SYNOPSIS$/,/^\.SH DESCRIPTION$/p' "$1" | sed -e '/^\./d' -e 's/\\f[BIR]//g' -e 's/\\-/-/g'; }
for page in $man/man3/*.3; do
	grep -q '^\.so ' "$page" || synopsis "$page"
done > prototypes
(echo '#include <saltfleet.h>'; cat prototypes) > prototypes.c
"${CC:-cc}" -Werror "${flags[0]}" -c prototypes.c -o prototypes.o || fail "the prototypes of the manual pages are not those of saltfleet.h"
for function in $functions; do
	[ "$(grep -c "\b$function(" prototypes)" = 1 ] || fail "the synopses of all pages have $function $(grep -c "\b$function(" prototypes) times"
	[ -s $man/man3/$function.3 ] || fail "no page $function.3"
	page=$(sed -nE 's/^\.so (.*)/\1/p' $man/man3/$function.3)
	grep -q "\\\\fB$function\\\\fR(" $man/${page:-man3/$function.3} || fail "$function.3 leads to ${page:-itself}, which does not have it"
done
# The check can fail.
sed -i 's/salt_plan(struct salt \*s/salt_plan(struct salt *s, int x/' prototypes.c
! "${CC:-cc}" -Werror "${flags[0]}" -c prototypes.c -o prototypes.o 2> /dev/null || fail "a wrong prototype is accepted"

# ---- completion ----

completions=usr/share/bash-completion/completions
# complete WORD...: prints the completions that bash would offer for the last word, one on each line.
complete_words() {
	bash -c '
		. '"$completions/saltctl"'
		COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
		fn=$(complete -p "$(basename "$1")" | sed -E "s/.*-F ([^ ]+) .*/\1/")
		$fn "$1" "${!#}" "${@: -2:1}"
		printf "%s\n" "${COMPREPLY[@]}"' complete "$@"
}
offers() {		# offers EXPECTED WORD...
	local expected=$1
	shift
	complete_words "$@" > offered
	grep -qxF -- "$expected" offered || fail "completion of \"$*\" does not offer $expected: $(complete_words "$@" | xargs)"
}
n=0
while read -r verb; do
	read -r first second <<< "$verb"
	offers "$first" saltctl ''
	offers "$first" saltctl help ''
	[ -z "$second" ] || offers "$second" saltctl "$first" ''
	complete_words saltctl $verb -- > offered
	usr/bin/saltctl help $verb | grep -oE '^  --[a-z-]+' | sed 's/^  //' > options
	while read -r option; do
		grep -qxF -- "$option" offered || fail "completion of saltctl $verb does not offer $option"
		n=$((n + 1))
	done < options
done < <(usr/bin/saltctl help | sed -n 's/^  \([a-z]\+\( [a-z]\+\)\?\)  .*/\1/p')
[ $n -gt 100 ] || fail "only $n options"
[ "$(complete_words saltctl to | xargs)" = "tokenizer top" ] || fail "completion of \"to\": $(complete_words saltctl to | xargs)"
[ -z "$(complete_words saltctl status --config '')" ] || fail "a file name is expected after --config: $(complete_words saltctl status --config '')"
[ -z "$(complete_words saltctl nothing --)" ] || fail "an unknown verb has options"
offers --name usr/bin/teacherd -c fleet.yaml --
for script in "$SOURCE"/deploy/local.sh "$SOURCE"/deploy/ssh.sh; do
	n=0
	for verb in $(sed -nE 's/^[[:space:]]*(up( \| [a-z]+)+)\) .*/\1/p' "$SOURCE/deploy/fleet.sh" | head -1 | tr -d '|'); do
		offers "$verb" "$script" ''
		n=$((n + 1))
	done
	[ $n -ge 5 ] || fail "only $n verbs of $script"
	offers "$([ "${script##*/}" = local.sh ] && echo --only || echo --hosts)" "$script" up --
	[ -z "$(complete_words "$script" up '')" ] || fail "two verbs of $script"
done
[ -s $completions/local.sh ] && [ -s $completions/trainerd ] || fail "bash does not find the completion by the command's name"

# ---- roff, last: it may not be installed ----

command -v groff > /dev/null || { echo "skipped: no groff (deploy/install-deps.sh --tests); all else was checked"; exit 77; }
for page in $man/*/*; do
	! grep -q '^\.so ' "$page" || continue
	groff -ww -mandoc -Tutf8 -z "$page" > lint 2>&1 || fail "$page: $(head -3 lint)"
	[ ! -s lint ] || fail "$page: $(head -3 lint)"
	groff -mandoc -Tutf8 "$page" 2> /dev/null | sed 's/\x1b\[[0-9;]*m//g' > shown
	[ "$(wc -l < shown)" -gt 30 ] || fail "$page: $(wc -l < shown) lines"
done
# The lint can fail.
printf '.TH X 1\n.SH NAME\n\\fBx\\fR \\*[nothing]\n.nosuch\n' > bad.1
groff -ww -mandoc -Tutf8 -z bad.1 > lint 2>&1 || true
[ -s lint ] || fail "groff takes anything"
