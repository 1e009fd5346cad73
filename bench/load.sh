# SPDX-License-Identifier: Apache-2.0
# Sourced by compare.sh: was the machine doing something else while a bench ran? /proc/stat has the time that all processors worked, `times`
# that of this shell's children. What remains is others' work, and that disturbs figures; so does time that the hypervisor took away.
# /proc/pressure/cpu adds for how much of the time some thread waited for a processor. Without /proc/stat the load average decides.

# load_now: prints "WALL BUSY STOLEN PRESSURE", seconds, and PRESSURE - where the kernel does not measure it.
load_now() {
	awk -v hz="$(getconf CLK_TCK)" -v wall="$(cut -d ' ' -f 1 /proc/uptime)" -v pressure="$(sed -n 's/^some.*total=//p' /proc/pressure/cpu 2> /dev/null)" \
		'$1 == "cpu" { printf "%s %s %s %s\n", wall, ($2 + $3 + $4 + $7 + $8) / hz, $9 / hz, pressure == "" ? "-" : pressure / 1e6; exit }' /proc/stat
}

# load_children FILE: seconds of processor time of the children that this shell has waited for. Not in a subshell, which has others.
load_children() {
	times > "$1.times"
	children=$(tail -n 1 "$1.times" | awk '{ for (i = 1; i <= 2; i++) { split($i, t, /[ms]/); s += 60 * t[1] + t[2] } print s }')
	rm -f "$1.times"
}

# load_verdict BEFORE AFTER OWN: two lines of load_now, and the processor seconds of the bench between them. Prints what disturbed it, if
# others used more than a tenth of a processor, or a hundredth of the time was taken away; nothing else.
load_verdict() {
	awk -v own="$3" 'NR == 1 { wall = $1; busy = $2; stolen = $3; pressure = $4 }
		NR == 2 {
			seconds = $1 - wall
			if (seconds <= 0)
				exit
			others = ($2 - busy - own) / seconds
			taken = ($3 - stolen) / seconds
			if (others <= 0.1 && taken <= 0.01)
				exit
			printf "other processes used %.2f processors, the hypervisor took %.2f", (others > 0 ? others : 0), taken
			if (pressure != "-")
				printf ", %.0f %% of the time a thread waited for a processor", 100 * ($4 - pressure) / seconds
		}' <<< "$1
$2"
}

# load_begin SCRATCH, load_end SCRATCH: around a bench. load_end leaves in $disturbed what disturbed it, or "".
load_begin() {
	load_children "$1"
	children_before=$children load_before=$(load_now 2> /dev/null || true)
}
load_end() {
	local load_after
	load_children "$1"
	load_after=$(load_now 2> /dev/null || true)
	if [ -n "$load_before" ] && [ -n "$load_after" ]; then
		disturbed=$(load_verdict "$load_before" "$load_after" "$(awk -v a="$children" -v b="$children_before" 'BEGIN { print a - b }')")
	else
		disturbed=$(awk -v n="$(nproc)" '$1 > n + 0.5 { print "load average " $1 " on " n " processors" }' /proc/loadavg 2> /dev/null || true)
	fi
}

# load_mark FILE TEXT: each row of the JSON gets "disturbed": TEXT.
load_mark() {
	sed -i -E "s|(\"ratio\": *[^,}]*[^,} ])|\1, \"disturbed\": \"$2\"|" "$1"
}
