# SPDX-License-Identifier: Apache-2.0
# Sourced by quickstart.sh and smollm2-teacher.sh, which define usage. It finds the programs, and provides
# functions for the working folder, the corpus and a port. The scripts may change build and dir.
source=$(cd -- "$here/.." && pwd)
self=${self%.sh}

# In an installation this folder is PREFIX/share/saltfleet/deploy; there is nothing to build, and results go
# to the current folder.
if [ -e "$source/CMakeLists.txt" ]; then
	build=1 bin=$source/build/bin tokenizer=$source/share/tokenizer-4k dir=$source/run/$self
else
	build=0 bin=$here/../../../bin tokenizer=$source/tokenizer-4k dir=$PWD/saltfleet-$self
fi

programs_install() { "$here/install-deps.sh"; }

programs_build() {
	mkdir -p "$source/build"
	(cd -- "$source" && cmake --preset release -DSALT_WERROR=OFF > build/configure.log) || { cat "$source/build/configure.log" >&2; return 70; }
	cmake --build "$source/build" -j "$(nproc)" --target saltctl selectord teacherd trainerd saltfleet-supervise | tail -n 1 || return 70
}

programs_find() {	# sets bin
	local program
	[ $build -eq 1 ] || bin=${BIN:-$bin}
	for program in saltctl selectord teacherd trainerd saltfleet-supervise; do
		[ -x "$bin/$program" ] || die 69 "$bin/$program does not exist; start without --no-build, or set BIN to the folder of the programs"
	done
	bin=$(cd -- "$bin" && pwd)
}

dir_open() {		# dir_open FILE ...: creates dir and locks it; the script writes these files into it
	local file
	for file; do
		[ -e "$dir/.lock" ] || [ ! -e "$dir/$file" ] ||
		    die 73 "$dir/$file would be overwritten, and $dir was not made by this script; give another --dir"
	done
	mkdir -p -- "$dir" || die 73 "$dir: cannot be created"
	dir=$(cd -- "$dir" && pwd)
	exec 8>>"$dir/.lock"
	flock -n 8 || die 75 "another $self works in $dir"
}

fleet() { "$here/local.sh" "$1" --bin "$bin" -c "$dir/$2.yaml" "${@:3}" 8>&-; }	# fleet VERB NAME [ARG ...]

free_port() {		# free_port FIRST: the first port >= FIRST without a listener
	local port
	for ((port = $1; port < 5800; port++)); do
		(exec 7<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
	done
	echo "$port"
}

# corpus_make TOKENIZER: makes $dir/data from Perl's documentation. One document in 25 is held out and never
# used for training.
corpus_make() {
	local pods=() pod bytes
	while read -r pod; do
		case "$pod" in
		*/perltoc.pod | */perluniprops.pod) ;;		# a list of the other files' headings; a table
		*.pod) [ ! -f "$pod" ] || pods+=("$pod") ;;
		esac
	done < <(dpkg -L perl-doc 2>/dev/null)
	[ ${#pods[@]} -gt 0 ] || { echo "$self: no text to train on: apt-get install perl-doc" >&2; return 66; }
	bytes=$(cat "${pods[@]}" | wc -c)
	[ "$bytes" -ge 5000000 ] || { echo "$self: perl-doc: expected at least 5000000 bytes of text, found $bytes" >&2; return 66; }
	rm -rf "$dir/data.new"
	mkdir "$dir/data.new"
	"$bin/saltctl" corpus build --tokenizer "$1" --out "$dir/data.new/train" --heldout-out "$dir/data.new/heldout" --heldout-one-in 25 \
	    "${pods[@]}" || return
	mv "$dir/data.new" "$dir/data"
}
