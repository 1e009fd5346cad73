#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make.sh HEADER TEMPLATE VERSION - prints a manual page: the template, in which a line of its own is replaced by what HEADER has under it:
#   @PROTOTYPES name ...@      the prototypes of these functions
#   @COMMENT name@             the comment that stands before the prototype of this function
#   @DECLARATION tag ...@      struct or enum TAG as it is declared, comments included; its own comment goes before it
#   @HEAD@                     the comment at the beginning of the header; its paragraphs NAME. become sections
# A name that HEADER does not have is an error (65). The contract of a call is written once, in the header.
set -euo pipefail
[ $# -eq 3 ] || { echo "usage: $0 HEADER TEMPLATE VERSION" >&2; exit 64; }
awk -v version="$3" '
	function escaped(s) {
		gsub(/\\/, "\\e", s); gsub(/-/, "\\-", s)
		return s ~ /^[.\x27]/ ? "\\&" s : s
	}
	function expanded(s,   out, i, c) {		# tabs of 8
		for (i = 1; i <= length(s); i++) {
			c = substr(s, i, 1)
			if (c != "\t") out = out c
			else do out = out " "; while (length(out) % 8)
		}
		return out
	}
	function fail(what) {
		print "make.sh: " FILENAME ": " what > "/dev/stderr"; failed = 1; exit 65
	}
	# One comment: paragraphs, entries "name - text" or "name   text", lines behind a tab as they are.
	function prose(text,   line, n, i, s, code) {
		n = split(text, line, "\n"); code = 0
		for (i = 1; i <= n; i++) {
			s = line[i]
			if (s ~ /^\t/) {
				if (!code) { print ".PP\n.nf\n.RS 4"; code = 1 }
				print escaped(expanded(substr(s, 2))); continue
			}
			if (code && s == "" && line[i + 1] ~ /^\t/) { print ""; continue }
			if (code) { print ".RE\n.fi"; code = 0 }
			sub(/^ +/, "", s)
			if (s == "") { if (i < n) print ".PP"; continue }
			if (match(s, /^[A-Z][A-Z]+\./)) {
				print ".SH " substr(s, 1, RLENGTH - 1); s = substr(s, RLENGTH + 1); sub(/^ +/, "", s)
				if (s == "") continue
			}
			if (match(s, /^salt_[a-z_]+( -|  )/)) {
				head = s; sub(/ .*/, "", head); sub(/^salt_[a-z_]+ +(- )?/, "", s)
				print ".TP\n\\fB" head "\\fR"
			}
			print escaped(s)
		}
		if (code) print ".RE\n.fi"
	}
	function prototype(s,   n, part, i, lineout) {		# one line, or parameters wrapped at 78
		match(s, /salt_[a-z_]+\(/)
		lineout = substr(s, 1, RSTART - 1) "\\fB" substr(s, RSTART, RLENGTH - 1) "\\fR("
		width = RSTART + RLENGTH - 1
		n = split(substr(s, RSTART + RLENGTH), part, ", ")
		for (i = 1; i <= n; i++) {
			if (i < n) part[i] = part[i] ","
			if (i > 1) {
				if (width + 1 + length(part[i]) > 78) { lineout = lineout "\n        "; width = 8 }
				else { lineout = lineout " "; width++ }
			}
			lineout = lineout part[i]; width += length(part[i])
		}
		print lineout
	}
	FNR == NR {
		if (in_comment) {
			if (/\*\/$/) { in_comment = 0; if (!have_head && blocks == 1) { head_text = block; have_head = 1; block = "" } next }
			s = $0; sub(/^ \* ?/, "", s); block = block (block == "" ? "" : "\n") s; next
		}
		if (/^\/\*$/) { in_comment = 1; block = ""; blocks++; next }
		if (/^\/\* ---/) { block = ""; next }
		if (match($0, /^\/\* .* \*\/$/)) { block = substr($0, 4, length($0) - 6); next }
		if (in_decl) {
			decl[tag] = decl[tag] "\n" $0
			if (/^};/) { in_decl = 0; block = "" }
			next
		}
		if (/^(struct|enum) [a-z_]+ \{/) {
			tag = $2; decl[tag] = $0; decl_comment[tag] = block; block = ""
			if (!/};/) in_decl = 1
			next
		}
		if (in_proto || /^SALT_API /) {
			s = $0; sub(/^SALT_API /, "", s); sub(/^[ \t]+/, "", s); sub(/[ \t]*\/\*.*/, "", s)
			pending = in_proto ? pending " " s : s
			in_proto = pending !~ /;$/
			if (!in_proto) {
				match(pending, /salt_[a-z_]+\(/); name = substr(pending, RSTART, RLENGTH - 1)
				proto[name] = pending; comment[name] = block
			}
		}
		next
	}
	/^@PROTOTYPES .*@$/ {
		n = split(substr($0, 13, length($0) - 13), names, " ")
		print ".nf\n.B #include <saltfleet.h>\n.PP"
		for (k = 1; k <= n; k++) {
			if (!(names[k] in proto)) fail("no function " names[k] " in the header")
			prototype(proto[names[k]])
		}
		print ".fi"; next
	}
	/^@COMMENT .*@$/ {
		name = substr($0, 10, length($0) - 10)
		if (comment[name] == "") fail("no comment before " name " in the header")
		prose(comment[name]); next
	}
	/^@DECLARATION .*@$/ {
		n = split(substr($0, 14, length($0) - 14), names, " ")
		for (k = 1; k <= n; k++) {
			if (!(names[k] in decl)) fail("no struct or enum " names[k] " in the header")
			if (decl_comment[names[k]] != "") { print ".PP"; prose(decl_comment[names[k]]) }
			print ".PP\n.nf\n.RS 4"
			m = split(decl[names[k]], lines, "\n")
			for (i = 1; i <= m; i++) print escaped(expanded(lines[i]))
			print ".RE\n.fi"
		}
		next
	}
	/^@HEAD@$/ { prose(head_text); next }
	FNR == 1 { print ".\\\" Generated from saltfleet.h and " name_of(FILENAME) "." }
	{ gsub(/@VERSION@/, version); print }
	function name_of(path) { sub(/.*\//, "", path); return path }
' "$1" "$2"
