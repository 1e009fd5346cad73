#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# run.sh - installs missing packages (SALT_PEERS_PYTHON: a Python with PyTorch that is used as it is), builds the presets dev and asan, runs all tests
# in both and names the slowest.
# SALT_TEST_PRESETS="dev" runs fewer presets, SALT_TEST_SECONDS bounds the tests of one preset. The last line is
# "N passed, N failed, N skipped" over all presets; the exit code is 0 only if nothing failed.
set -u
cd "$(dirname "$0")/.." || exit 1

presets=${SALT_TEST_PRESETS:-dev asan}
bound_s=${SALT_TEST_SECONDS:-1800}
jobs=$(nproc)
passed=0 failed=0 skipped=0

finish() {
	echo "run.sh: $SECONDS s"
	echo "$passed passed, $failed failed, $skipped skipped"
	[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
	exit
}

step() {
	echo "== $*"
	"$@"
}

# Packages that only tests need. PyTorch and transformers, for tests/peers and python/tests, are several GB.
for_tests() {
	step deploy/install-deps.sh --tests || echo "run.sh: tests that need what is missing will say so and be skipped"
	[ -n "${SALT_PEERS_PYTHON-}" ] || step timeout --kill-after=20 1200 tests/peers/setup.sh ||
	    echo "run.sh: no environment with PyTorch in build/peers: tests that need it are skipped"
}

# The number in name="N" of the one <testsuite ...> of a ctest JUnit file.
count_of() {
	tr '\n\t' '  ' < "$2" | grep -o '<testsuite [^>]*>' | head -1 | grep -o " $1=\"[0-9]*\"" | tr -dc 0-9
}

# slowest FILE: seconds and names of ten tests of a ctest JUnit file.
slowest() {
	local seconds name
	sed -n 's/.*<testcase name="\([^"]*\)".* time="\([^"]*\)".*/\2 \1/p' "$1" | sort -rn | head -n 10 |
	    while read -r seconds name; do printf '%7.1f %s\n' "$seconds" "$name"; done
}

if ! step deploy/install-deps.sh; then
	failed=1
	finish
fi
mkdir -p build
for_tests > build/for_tests.log 2>&1 &		# runs while the compilers run

if [ "$(id -u)" -eq 0 ]; then		# mpirun requires both variables
	export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
export LSAN_OPTIONS="print_suppressions=0:${LSAN_OPTIONS-}"	# Open MPI's own leaks: cmake/asan_mpi.c
export UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1:${UBSAN_OPTIONS-}"	# without it undefined behaviour only prints

built=
for preset in $presets; do
	rm -f "build/$preset/tests.xml"
	if step cmake --preset "$preset" && step cmake --build --preset "$preset" -j "$jobs"; then
		built="$built $preset"
	else
		echo "run.sh: preset $preset does not build"
		failed=$((failed + 1))
	fi
done
echo "run.sh: built after $SECONDS s"
wait
cat build/for_tests.log
echo "run.sh: tests begin after $SECONDS s"

for preset in $built; do
	results=$PWD/build/$preset/tests.xml
	# Four tests for each processor: cmake/Module.cmake.
	step timeout --kill-after=20 "$bound_s" ctest --test-dir "build/$preset" -j "$((jobs * 4))" --no-tests=error --output-on-failure \
	    --timeout 600 --output-junit "$results"
	rc=$?
	if [ ! -s "$results" ]; then		# the time limit was reached, or there was no test
		echo "run.sh: preset $preset: ctest ended with $rc and left no results"
		failed=$((failed + 1))
		continue
	fi
	n=$(count_of tests "$results") f=$(count_of failures "$results")
	s=$(($(count_of skipped "$results") + $(count_of disabled "$results")))
	echo "run.sh: preset $preset: $((n - f - s)) passed, $f failed, $s skipped"
	if [ $rc -ne 0 ] && [ "$f" -eq 0 ]; then
		echo "run.sh: preset $preset: ctest ended with $rc"
		f=1 n=$((n + 1))
	fi
	passed=$((passed + n - f - s)) failed=$((failed + f)) skipped=$((skipped + s))
done
for preset in $built; do
	[ ! -s "build/$preset/tests.xml" ] || { echo "run.sh: the slowest tests of $preset, in seconds:"; slowest "build/$preset/tests.xml"; }
done
finish
