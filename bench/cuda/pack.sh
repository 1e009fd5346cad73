#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# pack.sh [--out DIR] [--build DIR]: what session.sh needs on a machine with a GPU, in one folder of at most 64 MiB (build/cuda/pack): the plug-in
# for compute capability 8.0 and 9.0 with its PTX, tests, benches, the libraries they link (cuBLASLt and the C library excepted) and small data.
# Builds in build/cuda, without oneDNN. --build: takes the programs of a build folder as they are, for this machine: without libraries, and with a
# plug-in if there is one.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
out= build= libraries=1
while [ $# -gt 0 ]; do
	case ${2:+$1} in
	--out) out=$2 ;;
	--build) build=$2 libraries= ;;
	*) sed -n '3s/^# \(.*\]\):.*/usage: \1/p' "$0" >&2; exit 64 ;;
	esac
	shift 2
done
if [ -z "$build" ]; then
	build=$root/build/cuda
	cmake -S "$root" -B "$build" -G Ninja -D CMAKE_BUILD_TYPE=Release -D SALT_ONEDNN=OFF > /dev/null
	cmake --build "$build" --target cuda_session
	[ -e "$build/bin/libsalt_cuda.so" ] || { echo "pack.sh: no plug-in was built: needs nvcc 12 or later in PATH, and cuBLASLt" >&2; exit 69; }
fi
out=${out:-$root/build/cuda/pack}
rm -rf "$out"
mkdir -p "$out/bin" "$out/lib" "$out/tests/golden"
for name in bench_cuda bench_kernels bench_train bench_teacher test_unit_model_session test_golden_model test_plugin_{reference,label,loss,bf16,documents,muon} \
	libsalt_cuda.so libsalt_cuda_small.so; do
	[ -e "$build/bin/$name" ] || [[ $name == libsalt* ]] || { echo "pack.sh: no $build/bin/$name: build the target cuda_session" >&2; exit 66; }
	[ ! -e "$build/bin/$name" ] || strip -o "$out/bin/$name" "$build/bin/$name"
done
[ -z "$libraries" ] || ldd "$out"/bin/* | awk '$2 == "=>" && $3 ~ "^/" { print $3 }' | sort -u |
	grep -vE '/(ld-linux[^/]*|lib(c|m|dl|rt|pthread|cuda|cublasLt))\.so[^/]*$' | xargs -r cp -L -t "$out/lib"
cp -r "$root/tests/golden/model" "$out/tests/golden"
cp "$root/bench/peers/torch_peer.py" "$root/bench/cuda/session.sh" "$out"
git -C "$root" describe --always --dirty --abbrev=12 > "$out/commit" 2> /dev/null || echo unknown > "$out/commit"
if [ -e "$out/bin/libsalt_cuda.so" ]; then
	readelf -d "$out/bin/libsalt_cuda.so" | sed -n 's/.*NEEDED.*\[\(libcublasLt[^]]*\)\].*/\1/p' > "$out/cublas"
fi
mib=$(du -sm --apparent-size "$out" | cut -f1)
echo "$out: $mib MiB"
[ "$mib" -le 64 ] || { echo "pack.sh: more than 64 MiB: $(du -sm --apparent-size "$out"/* | sort -rn | head -3 | tr '\n\t' '  ')" >&2; exit 70; }
