# SPDX-License-Identifier: Apache-2.0
# hardened.sh BIN NAME...: checks that programs are position independent, that their relocated tables are read-only after loading, that their stack is
# not executable, and that they contain the compiler's checks of the stack and of copies.
cd "$1" || exit 1
shift
failed=0
wants() {		# wants PATTERN WHAT TEXT
	grep -qE -- "$1" <<< "$3" || { echo "FAIL: $name: no $2" >&2; failed=1; }
}
for name; do
	header=$(readelf -hlW "$name") dynamic=$(readelf -dW "$name") symbols=$(readelf --dyn-syms -W "$name")
	wants 'Type: +DYN' "position independent code" "$header"
	wants 'GNU_RELRO' "RELRO" "$header"
	wants 'GNU_STACK .* RW +0x' "stack that is not executable" "$header"
	wants 'BIND_NOW|FLAGS_1.* NOW' "binding of all symbols at start" "$dynamic"
	wants 'FLAGS_1.* PIE' "PIE" "$dynamic"
	wants '__stack_chk_fail' "stack protector" "$symbols"
	wants '__(memcpy|snprintf|vsnprintf|fprintf|printf)_chk' "_FORTIFY_SOURCE" "$symbols"
done
exit $failed
