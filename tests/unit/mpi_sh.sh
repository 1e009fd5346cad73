#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# deploy/mpi.sh with a fake mpirun that prints a version and records its arguments: the options for each version, and the launchers that are refused.
# Then the rule that only deploy/mpi.sh has options that depend on the version. Usage: mpi_sh.sh SOURCE
set -u
source=$1 failures=0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() {
	echo "FAIL: $*"
	failures=1
}
mkdir "$dir/bin"
cat > "$dir/bin/mpirun" <<'FAKE'
#!/bin/bash
[ "$*" != --version ] || { cat "$SAYS"; exit 0; }
printf '%s\n' "$@" > "$GOT"
echo "wait policy: ${OMP_WAIT_POLICY-unset}"
exit 3
FAKE
printf '#!/bin/bash\necho "${FAKE_UID:-1000}"\n' > "$dir/bin/id"
chmod +x "$dir/bin/"*
export SAYS=$dir/says GOT=$dir/got
unset SALT_SSH OMP_WAIT_POLICY GOMP_SPINCOUNT

# mpi TEXT_OF_VERSION ARG...: sets rc to the exit code, got to mpirun's arguments as one line, and out to the output
mpi() {
	printf '%s\n' "$1" > "$SAYS"
	shift
	rm -f "$GOT"
	out=$(PATH=$dir/bin:$PATH "$source/deploy/mpi.sh" "$@" 2>&1)
	rc=$?
	got=' '$(paste -s -d ' ' "$GOT" 2>/dev/null)' '
}
has() {		# has WORDS...: mpirun got each of them
	local words
	for words; do
		case "$got" in *" $words "*) ;; *) fail "expected mpirun to get \"$words\", found:$got(exit code $rc: $out)" ;; esac
	done
}
lacks() {
	local words
	for words; do
		case "$got" in *"$words"*) fail "expected mpirun not to get \"$words\", found:$got" ;; esac
	done
}

four='mpirun (Open MPI) 4.1.4' five='mpirun (Open MPI) 5.0.7'
mpi "$four" -n 2 program 'two words' --mca
[ $rc -eq 3 ] || fail "exit code $rc instead of mpirun's own, 3: $out"
has '--mca btl self,vader' '--mca oob_tcp_if_include lo' '--mca btl_vader_single_copy_mechanism none' '--map-by slot:OVERSUBSCRIBE' \
    '--bind-to none' '-n 2 program two words --mca'
[ "$(tail -n 2 "$GOT" | head -n 1)" = 'two words' ] || fail "an argument with a space was split: $got"
lacks prtemca ' sm' _sm_ --allow-run-as-root --host
mpi "$five" -n 2 program
has '--mca btl self,sm' '--mca btl_sm_single_copy_mechanism none' '--map-by slot:OVERSUBSCRIBE' '-n 2 program'
lacks vader if_include prtemca --oversubscribe --host
FAKE_UID=0 mpi "$five" -n 1 program
has --allow-run-as-root

mpi "$four" --hosts a:2,b:1 --network 10.0.0.0/24 -n 3 program
has '--host a:2,b:1' '--mca plm rsh' '--mca plm_rsh_agent ssh -o BatchMode=yes' '--mca btl self,vader,tcp' \
    '--mca btl_tcp_if_include 10.0.0.0/24' '--mca oob_tcp_if_include 10.0.0.0/24'
lacks prtemca '-x OMP' '-x GOMP' 'include lo'
export OMP_WAIT_POLICY=passive
SALT_SSH='ssh -F file' mpi "$five" --hosts a:2,b:1 --network eth0 -n 3 program
has '--host a:2,b:1' '--prtemca plm ssh' '--prtemca plm_ssh_agent ssh -F file' '--mca btl self,sm,tcp' \
    '--mca btl_tcp_if_include eth0' '--prtemca prte_if_include eth0' '-x OMP_WAIT_POLICY'
lacks vader rsh oob_
GOMP_SPINCOUNT=5 SALT_SSH='ssh -F file' mpi "$five" --hosts a:2,b:1 -n 3 program
has '-x OMP_WAIT_POLICY' '-x GOMP_SPINCOUNT'
lacks if_include

# Later versions are treated as the last known one.
mpi 'mpirun (Open MPI) 6.1.0a1' -n 1 program
has '--mca btl self,sm'
mpi 'mpirun (Open MPI) 10.0.0' -n 1 program
has '--mca btl self,sm'

# Other launchers are refused with the version text that they print, and nothing is started.
for other in 'HYDRA build details:' 'Intel(R) MPI Library for Linux* OS, Version 2021.9' 'mpirun (Open MPI) 1.10.2' ''; do
	for how in '-n 1 program' --check; do
		# shellcheck disable=SC2086	# words
		mpi "$other" $how
		[ $rc -eq 69 ] && [ ! -e "$GOT" ] && grep -q 'expected Open MPI 3 or later' <<< "$out" && grep -qF "says \"$other\"" <<< "$out" ||
			fail "mpirun that says \"$other\", $how: exit code $rc: $out"
	done
done
mpi "$five" --check
[ $rc -eq 0 ] && [ ! -e "$GOT" ] && [ -z "$out" ] || fail "--check: exit code $rc: $out"
for wrong in '' '--hosts'; do
	# shellcheck disable=SC2086	# words
	mpi "$five" $wrong
	[ $rc -eq 64 ] || fail "mpi.sh $wrong: exit code $rc, expected 64: $out"
done
mkdir "$dir/none"
for program in bash env head id readlink dirname; do ln -s "$(command -v $program)" "$dir/none/"; done
out=$(PATH=$dir/none "$source/deploy/mpi.sh" -n 1 program 2>&1)
rc=$?
[ $rc -eq 69 ] && grep -q 'mpirun is not installed' <<< "$out" || fail "without mpirun: exit code $rc: $out"

# elsewhere FOLDER: prints lines of other files that name such an option
elsewhere() {
	(cd "$1" && grep -rnE -- '--(prte)?mca[ "]|btl_(vader|sm|tcp)_|oob_tcp_|--oversubscribe' deploy tests bench 2> /dev/null) |
		grep -vE '^(deploy/mpi\.sh|tests/unit/mpi_sh\.sh|[^:]*\.md):'
}
mkdir -p "$dir/tree/bench"
echo 'mpirun --mca btl self,vader -n 2 program' > "$dir/tree/bench/a.sh"
[ -n "$(elsewhere "$dir/tree")" ] || fail "the search for options does not find one"
found=$(elsewhere "$source")
[ -z "$found" ] || fail "options that depend on the version of Open MPI belong into deploy/mpi.sh:
$found"
exit $failures
