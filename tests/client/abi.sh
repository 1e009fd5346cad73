#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# abi.sh SOURCE LIBRARY - checks that the shared library exports exactly the functions of saltfleet.h, with the version SALTFLEET_1 and each named in
# saltfleet.map; that it has a soname; and that it does not need MPI, BLAS or LMDB.
set -eu
cd "$1"
fail() {
	echo "FAIL: $*" >&2
	exit 1
}
header=$(tr '\n' ' ' < client/saltfleet.h | grep -oE 'SALT_API [^(;]*\(' | grep -oE 'salt_[a-z_]+\($' | tr -d '(' | sort)
[ "$(wc -l <<< "$header")" -ge 30 ] || fail "only $(wc -l <<< "$header") functions found in saltfleet.h"
map=$(grep -oE '^	salt_[a-z_]+;' client/saltfleet.map | tr -d '	;' | sort)
[ "$header" = "$map" ] || fail "saltfleet.h (<) and saltfleet.map (>) differ: $(diff <(echo "$header") <(echo "$map"))"
shown=$(nm -D --defined-only --with-symbol-versions "$2" | awk '$2 != "A" { print $3 }' | grep -v '^__asan\|^__odr' | sort)
want=$(sed 's/$/@@SALTFLEET_1/' <<< "$header")
[ "$shown" = "$want" ] || fail "saltfleet.h (<) and the library (>) differ: $(diff <(echo "$want") <(echo "$shown"))"
readelf -d "$2" | grep -q 'SONAME.*\[libsaltfleet\.so\.1\]' || fail "soname: $(readelf -d "$2" | grep SONAME)"
! readelf -d "$2" | grep -iE 'NEEDED.*(mpi|blas|dnnl|lmdb|cuda)' || fail "the library needs one of the engine's libraries"
! readelf -d "$2" | grep -q TEXTREL || fail "relocations in the code: a part is not position-independent"
