#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# run.sh - everything: installs what is missing, builds the presets dev and asan, runs all tests in both.
# SALT_TEST_PRESETS="dev" runs fewer presets, SALT_TEST_SECONDS bounds the tests of one preset. The last line is
# "N passed, N failed, N skipped" over all presets; the exit code is 0 only if nothing failed.
set -u
cd "$(dirname "$0")/.." || exit 1

presets=${SALT_TEST_PRESETS:-dev asan}
bound_s=${SALT_TEST_SECONDS:-1800}
jobs=$(nproc)
passed=0 failed=0 skipped=0

finish() {
	echo "$passed passed, $failed failed, $skipped skipped"
	[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
	exit
}

step() {
	echo "== $*"
	"$@"
}

if ! step deploy/install-deps.sh; then
	failed=1
	finish
fi
step deploy/install-deps.sh --tests || echo "run.sh: tests that need what is missing will say so and be skipped"

if [ "$(id -u)" -eq 0 ]; then		# mpirun asks for both
	export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
export ASAN_OPTIONS="detect_leaks=1:${ASAN_OPTIONS-}"
export LSAN_OPTIONS="print_suppressions=0:${LSAN_OPTIONS-}"	# Open MPI's own leaks: cmake/asan_mpi.c
export UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1:${UBSAN_OPTIONS-}"	# without it undefined behaviour only prints

# The number in name="N" of the one <testsuite ...> of a ctest JUnit file.
count_of() {
	tr '\n\t' '  ' < "$2" | grep -o '<testsuite [^>]*>' | head -1 | grep -o " $1=\"[0-9]*\"" | tr -dc 0-9
}

for preset in $presets; do
	results=$PWD/build/$preset/tests.xml
	rm -f "$results"
	if ! step cmake --preset "$preset" || ! step cmake --build --preset "$preset" -j "$jobs"; then
		echo "run.sh: preset $preset does not build"
		failed=$((failed + 1))
		continue
	fi
	side_by_side=$jobs
	[ "$preset" = asan ] || side_by_side=$((jobs + 1))		# there, many system tests wait more than they compute
	step timeout --kill-after=20 "$bound_s" ctest --test-dir "build/$preset" -j "$side_by_side" --no-tests=error --output-on-failure \
	    --timeout 600 --output-junit "$results"
	rc=$?
	if [ ! -s "$results" ]; then		# out of time, or no test at all
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
finish
