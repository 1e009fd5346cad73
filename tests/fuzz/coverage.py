#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""coverage.py [-v] [TARGET...] - the share of each parser's lines that the kept inputs of its fuzz target execute, by gcov; -v also prints
the lines that they miss. Builds the preset dev's targets once more in build/coverage. Exit code 1 if a target is below 95%."""
import glob
import gzip
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = ROOT + "/build/coverage"
GOAL = 0.95

# Target: its parser's files. Functions that write, or that no input reaches (they take the file's path, an address), are left out by name.
PARSERS = {
    "wire": {
        "common/fabric/wire/decode.c": [], "common/fabric/wire/scan.c": [], "common/fabric/wire/fields.c": [],
        "common/fabric/wire/check.c": []},
    "labels": {
        "common/data/labels/decode.c": [], "common/data/labels/sampled_decode.c": [], "common/data/labels/batch.c": [],
        "common/data/labels/scores.c": ["labels_scores_encode"]},
    "safetensors": {
        "common/engine/weights/safetensors.c": [], "common/engine/weights/read.c": []},
    "index": {
        "common/engine/weights/set.c": ["weights_meta", "weights_at", "weights__indexed", "weights__unindexed", "weights__unread"]},
    "tokenizer": {"common/data/tokenizer/" + f: [] for f in (
        "load.c", "load_steps.c", "added.c", "vocab.c", "normal.c", "split.c", "encode.c", "bpe.c")},
    "config_json": {
        "common/engine/weights/config.c": []},
    "config": {
        "common/fabric/config/load.c": [], "common/fabric/config/yaml.c": [], "common/fabric/config/value.c": []},
    "gguf": {"common/engine/gguf/" + f: [] for f in (
        "gguf.c", "gguf_pairs.c", "gguf_model.c", "gguf_tokenizer.c", "gguf_pre.c", "gguf_blocks.c")},
    "idx": {
        "common/data/corpus/idx.c": [], "common/data/corpus/open.c": [], "common/data/corpus/format.c": [],
        "common/data/corpus/about.c": ["corpus__about_write", "hash_text"], "common/base/hash/blocks.c": []},
    "manifest": {
        "common/engine/checkpoint/open.c": ["checkpoint__check_optim"],
        "common/engine/checkpoint/find.c": ["by_step", "checkpoint_list", "checkpoint_find_latest", "checkpoint_clean", "remove_one",
                                            "checkpoint_prune", "warn_left"]},
    "status": {
        "common/fabric/wire/status_answer.c": [], "common/base/log/recent.c": [],
        "common/fabric/status/announce.c": ["status_announce_fill", "status_announce_write", "by_name"],
        "saltctl/watch/exporter_metrics.c": [], "saltctl/watch/top_model.c": ["halve", "top_pace"]},
    "http": {
        "saltctl/watch/exporter_http.c": ["split", "bind_to", "exporter_http_new"]},
    "text": {
        "common/data/text/text.c": [], "common/data/text/source.c": [],
        "common/data/text/kind.c": [], "common/base/json/scan.c": []},
}


def lines_of(source, without):
    """{line: (function, executed)} of a source, over all objects made from it."""
    found = {}
    for gcda in glob.glob(BUILD + "/**/%s.c.gcda" % os.path.basename(source)[:-2], recursive=True):
        out = subprocess.run(["gcov", "--json-format", "--stdout", gcda], capture_output=True, check=True, cwd=BUILD).stdout
        if out[:2] == b"\x1f\x8b":
            out = gzip.decompress(out)
        for unit in out.splitlines():
            for f in json.loads(unit)["files"]:
                if os.path.normpath(os.path.join(BUILD, f["file"])) != os.path.join(ROOT, source):
                    continue
                for line in f["lines"]:
                    if line.get("function_name") not in without:
                        found[line["line_number"]] = found.get(line["line_number"], 0) + line["count"]
    return found


def measure(target, verbose):
    for gcda in glob.glob(BUILD + "/**/*.gcda", recursive=True):
        os.remove(gcda)
    subprocess.run([BUILD + "/bin/fuzz_" + target, "corpus/" + target], cwd=ROOT + "/tests/fuzz", check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    run = total = 0
    for source, without in PARSERS[target].items():
        found = lines_of(source, without)
        missed = sorted(n for n, count in found.items() if count == 0)
        run += len(found) - len(missed)
        total += len(found)
        print("%-12s %-44s %4d of %4d  %5.1f%%" % (target, source, len(found) - len(missed), len(found),
                                                    100 * (1 - len(missed) / max(1, len(found)))))
        if verbose and missed:
            text = open(os.path.join(ROOT, source)).read().split("\n")
            for n in missed:
                print("    %s:%d: %s" % (source, n, text[n - 1].strip()))
    print("%-12s %-44s %4d of %4d  %5.1f%%%s" % (target, "all", run, total, 100 * run / total, "" if run >= GOAL * total else "  below the goal"))
    return run >= GOAL * total


def main():
    args = sys.argv[1:]
    verbose = "-v" in args
    targets = [a for a in args if a != "-v"] or list(PARSERS)
    quiet = {"stdout": subprocess.DEVNULL, "check": True, "cwd": ROOT}
    subprocess.run(["cmake", "-S", ".", "-B", BUILD, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_C_FLAGS=--coverage"], **quiet)
    subprocess.run(["cmake", "--build", BUILD, "-j", "2", "--target", "fuzz_targets"], **quiet)
    sys.exit(0 if all([measure(t, verbose) for t in targets]) else 1)


main()
