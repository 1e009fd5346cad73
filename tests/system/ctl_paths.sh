# SPDX-License-Identifier: Apache-2.0
# Every verb makes the missing parent folders of its output. A failed verb leaves neither output nor temporary files.
. "$(dirname "$0")/lib.sh"
cd "$scratch"
tok="$SOURCE/share/tokenizer-4k"
# makes FILE WORD...: checks that saltctl WORD... writes FILE.
makes() {
	local file=$1
	shift
	timeout 60 "$BIN/saltctl" "$@" > out 2> err < /dev/null || fail "saltctl $*: $(cat err)"
	[ -s "$file" ] || fail "saltctl $*: there is no $file: $(find . -type f)"
}
printf 'one\n\ntwo\n\nthree\n\nfour\n\nfive\n\nsix\n' > text
makes new/a/train.bin corpus build --tokenizer "$tok" --split-on blank-lines --out new/a/train --heldout-out new/b/held --heldout-one-in 2 text
[ -s new/b/held.bin ] || fail "the held-out part is not there"
makes models/of/mine/config.json model new --layers 1 --width 8 --context 4 --vocab 10 --weights 3 models/of/mine
[ -s models/of/mine/model.safetensors ] || fail "model new --weights"
makes grown/of/mine/model.safetensors model grow --layers 2 models/of/mine grown/of/mine
makes keys/of/mine/client.key keygen keys/of/mine/
[ "$(stat -c %a keys/of/mine)" = 700 ] || fail "the folder of keys is open to others: $(stat -c %A keys/of/mine)"
mkdir run
printf '%s\n' '{"kind":"step","step":1,"hard":4.5,"seconds":1}' '{"kind":"eval","step":1,"loss":4.25}' > run/metrics.jsonl
makes pages/of/mine/r.html report --run run --out pages/of/mine/r.html
# A report that cannot be renamed because a folder has its name: the folder stays, and no file is left beside it.
mkdir pages/of/taken
timeout 60 "$BIN/saltctl" report --run run --out pages/of/taken > out 2> err && fail "report over a folder: $(cat out)"
grep -q 'pages/of/taken' err || fail "report over a folder does not name it: $(cat err)"
# A device or a pipe is not replaced by a file, with --replace neither; "-" is no file.
mkfifo pages/pipe
for to in pages/pipe -; do
	for replace in '' --replace; do
		timeout 60 "$BIN/saltctl" report --run run --out $to $replace > out 2> err && fail "report --out $to $replace: $(cat out)"
		grep -q 'expected the name of a file\|expected a regular file, or none, found a pipe' err || fail "report --out $to $replace: $(cat err)"
	done
done
[ -p pages/pipe ] && [ ! -e ./- ] || fail "report replaced a pipe, or wrote to -: $(ls -l . pages)"
[ -z "$(find . -name '*.tmp*')" ] || fail "temporary files are left: $(find . -name '*.tmp*')"
# A link to an empty folder stands for that folder. What the rename at the end would fail on is found before the work.
mkdir place
ln -s place link
ln -s nothing dangling
makes place/config.json model new --layers 1 --width 8 --context 4 --vocab 10 link
[ -L link ] || fail "the link was replaced"
while read -r dir found; do
	got=0
	timeout 60 "$BIN/saltctl" model new --layers 1 --width 8 --context 4 --vocab 10 "$dir" > out 2> err || got=$?
	[ $got = 73 ] && grep -q "^saltctl model new: $dir: expected the name of a new folder, or of an empty one, found $found" err || fail "model new $dir: $got $(cat err)"
done <<'END'
dangling a link to nothing
place/.. a folder that other programs may be in
/proc a mount point
END
[ -z "$(find . -name '*.tmp*')" ] || fail "temporary files are left: $(find . -name '*.tmp*')"

# Interrupted while it writes: a stop signal removes the files; after KILL the next command for that folder does, and says so. While one command
# makes a folder, another is refused. A folder of that name that has more than plain files is kept.
python3 - "$BIN/saltctl" <<'END' || fail "an interrupted model new"
import glob, os, signal, subprocess, sys, time
new = [sys.argv[1], "model", "new", "--layers", "4", "--width", "512", "--context", "4", "--vocab", "20000", "--weights", "3", "sub/big"]
small = [sys.argv[1], "model", "new", "--layers", "1", "--width", "8", "--context", "4", "--vocab", "10", "sub/big"]
def stopped():          # a process that is stopped while it writes, and its folder
    for _ in range(50):
        p = subprocess.Popen(new, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        temp = f"sub/big.{p.pid}.tmp"
        while p.poll() is None and not glob.glob(temp + "/*"):
            time.sleep(0.0005)
        os.kill(p.pid, signal.SIGSTOP)
        time.sleep(0.05)
        if os.path.exists(temp):
            return p, temp
        os.kill(p.pid, signal.SIGKILL)
        p.wait()
        subprocess.run(["rm", "-rf", "sub/big"], check=True)
    sys.exit("it ends before it can be stopped")
def end(p, sig):
    os.kill(p.pid, sig)
    os.kill(p.pid, signal.SIGCONT)
    p.communicate(timeout=60)
    assert p.returncode == -sig, (sig, p.returncode)
for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    p, temp = stopped()
    end(p, sig)
    assert glob.glob("sub/*") == [], (sig, glob.glob("sub/*"))
p, temp = stopped()
second = subprocess.run(small, capture_output=True, text=True)
assert second.returncode == 69 and f"sub/big: expected that no other command makes this folder, found one that writes {temp}" in second.stderr, second
end(p, signal.SIGKILL)
os.makedirs("sub/big.1.tmp/inner")
os.makedirs("sub/big.x.tmp")
third = subprocess.run(small, capture_output=True, text=True)
assert third.returncode == 0 and f"saltctl: {temp} was left by an interrupted command; removed\n" in third.stderr, third
assert "sub/big.1.tmp was left by an interrupted command; it cannot be removed here" in third.stderr, third
assert sorted(os.listdir("sub")) == ["big", "big.1.tmp", "big.x.tmp"], os.listdir("sub")
END
