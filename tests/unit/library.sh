#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# library.sh SOURCE LIBRARY - checks that libsaltfleet exports exactly what saltfleet.h declares, each name with its version; that Debian's symbols
# file has the same names; that the library needs neither MPI nor BLAS, directly or indirectly; and that the header compiles as C99, C11, C17 and C++
# without a warning.
set -u
source=$1 library=$2
header=$source/client/saltfleet.h
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
failures=0
fail() {
	echo "FAIL: $*"
	failures=1
}

# declared HEADER: the functions with SALT_API, from the compiler's preprocessed output: without comments, one declaration on each line
declared() {
	"${CC:-cc}" -E -P -DSALT_TEST "$1" | tr '\n' ' ' | tr ';' '\n' | sed -nE 's/.*__attribute__\(\(visibility\("default"\)\)\) [^(]*[ *]([a-z_0-9]+)\(.*/\1/p' | sort
}
# exported LIBRARY: NAME@VERSION of each defined symbol, except the symbol of the version itself
exported() {
	readelf --dyn-syms -W "$1" | awk '$7 != "UND" && $4 != "SECTION" && $8 != "" && $1 ~ /^[0-9]+:/ { sub(/@@/, "@", $8); print $8 }' |
		grep -vE '^SALTFLEET_[0-9]+(@SALTFLEET_[0-9]+)?$' | sort
}
declared "$header" > "$scratch/declared"
[ "$(wc -l < "$scratch/declared")" -ge 30 ] || fail "saltfleet.h: expected at least 30 functions, found $(wc -l < "$scratch/declared")"
sed 's/$/@SALTFLEET_1/' "$scratch/declared" > "$scratch/expected"
exported "$library" > "$scratch/exported"
cmp -s "$scratch/expected" "$scratch/exported" ||
	fail "functions of saltfleet.h (<) and symbols of ${library##*/} (>) differ: $(diff "$scratch/expected" "$scratch/exported")"
sed -nE 's/^ (salt_[a-z_0-9]+@SALTFLEET_[0-9]+) .*/\1/p' "$source/debian/libsaltfleet1.symbols" | sort > "$scratch/debian"
cmp -s "$scratch/expected" "$scratch/debian" ||
	fail "functions of saltfleet.h (<) and debian/libsaltfleet1.symbols (>) differ: $(diff "$scratch/expected" "$scratch/debian")"
# The check can fail: an additional function in the header is found.
sed 's/^SALT_API void salt_free(void \*p);/& SALT_API int *salt_new(void);/' "$header" > "$scratch/saltfleet.h"
[ "$(declared "$scratch/saltfleet.h" | comm -13 "$scratch/declared" -)" = salt_new ] || fail "a function more in the header is not found"

soname=$(readelf -d "$library" | sed -nE 's/.*SONAME.*\[(.*)\]/\1/p')
[ "$soname" = libsaltfleet.so.1 ] || fail "soname: expected libsaltfleet.so.1, found $soname"
[ "$(sed -n '1s/ .*//p' "$source/debian/libsaltfleet1.symbols")" = "$soname" ] || fail "debian/libsaltfleet1.symbols is not of $soname"
needs=$(ldd "$library" | grep -iE 'mpi|open-rte|open-pal|blas|lapack|dnnl|gomp|gfortran') && fail "${library##*/} needs$needs"
ldd "$library" | grep -q libzmq || fail "ldd $library: $(ldd "$library")"
readelf -d "$library" | grep -q TEXTREL && fail "text relocations"

# The header alone, and included first.
printf '#include <saltfleet.h>\nint salt_test(void);\nint salt_test(void) { struct salt_options o = { sizeof(o) }; return (int)o.size; }\n' > "$scratch/a.c"
cp "$scratch/a.c" "$scratch/a.cc"
for std in c99 c11 c17; do
	"${CC:-cc}" -std=$std -pedantic-errors -Wall -Wextra -Wno-missing-field-initializers -Werror -I "$source/client" -c "$scratch/a.c" -o "$scratch/a.o" ||
		fail "saltfleet.h is not $std"
done
if command -v "${CXX:-c++}" > /dev/null; then
	for std in c++11 c++17; do
		"${CXX:-c++}" -std=$std -pedantic-errors -Wall -Wextra -Wno-missing-field-initializers -Werror -I "$source/client" -c "$scratch/a.cc" -o "$scratch/a.o" ||
			fail "saltfleet.h is not $std"
	done
	# in C++ its functions have C linkage
	printf '#include <saltfleet.h>\nint main() { return salt_version()[0] == 0; }\n' > "$scratch/b.cc"
	"${CXX:-c++}" -I "$source/client" -c "$scratch/b.cc" -o "$scratch/b.o" && nm "$scratch/b.o" | grep -q ' U salt_version$' || fail "salt_version in C++ is another name"
fi
exit $failures
