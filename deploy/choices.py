#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes choices for `saltctl eval --choices` and trainer.eval_choices from Debian packages: the right one among four.

    apt-get install wordnet-base bsdgames
    deploy/choices.py glosses --items 2000 > glosses.jsonl      which gloss belongs to a word (package wordnet-base)
    deploy/choices.py quiz --items 1000 > quiz.jsonl            questions of the game quiz (package bsdgames)

The same version of a package, --items and --seed give the same file. Wrong choices come from the same part of speech, or the same subject, so
that their form does not give them away; `saltctl eval --control` measures what is left of that. --from names a folder other than the
package's. WordNet's licence asks that its copyright notice goes along with copies of what is made of it (/usr/share/doc/wordnet-base/copyright).
"""
import argparse
import json
import pathlib
import random
import re
import sys

CHOICES = 4
PARTS = {"noun": "noun", "verb": "verb", "adj": "adjective", "adv": "adverb"}
NOT_LANGUAGE = {"index", "arith", "ed", "mult", "morse", "seq-easy", "seq-hard"}


def pick(rng, right, others):
    """Choices in a random order and the place of the right one; None if there are too few different ones."""
    wrong = sorted(set(others) - {right})
    if len(wrong) < CHOICES - 1:
        return None
    choices = rng.sample(wrong, CHOICES - 1) + [right]
    rng.shuffle(choices)
    return [" " + c for c in choices], choices.index(right)


def read_glosses(folder):
    """(group, question, answer): each synset's first word and its gloss without the examples."""
    for file, part in PARTS.items():
        for line in (folder / f"data.{file}").read_text(encoding="utf-8").splitlines():
            if line.startswith("  ") or " | " not in line:
                continue
            head, gloss = line.split(" | ", 1)
            word = head.split()[4].split("(")[0].replace("_", " ")
            gloss = re.split(r'; "', gloss)[0].strip()
            if 15 <= len(gloss) <= 120 and word.lower() not in gloss.lower():
                yield part, f'The {part} "{word}" means:', gloss


def plain(pattern):
    """A pattern of quiz(6) as text: optional parts {x} stay, of alternatives the first one."""
    while re.search(r"[{\[][^{}\[\]]*[}\]]", pattern):
        pattern = re.sub(r"[{\[]([^{}\[\]]*)[}\]]", lambda m: m[1].split("|")[0], pattern)
    return re.sub(r"\\(.)", r"\1", pattern.split("|")[0]).strip()


def read_quiz(folder):
    titles = {}
    for line in (folder / "index").read_text(encoding="latin-1").splitlines():
        path, *names = line.split(":")
        titles[pathlib.Path(path).name] = [plain(name) for name in names]
    for file in sorted(titles):
        if file in NOT_LANGUAGE or not (folder / file).exists():
            continue
        text = (folder / file).read_text(encoding="latin-1").replace("\\\n", "")
        for line in text.splitlines():
            parts = [plain(p) for p in re.split(r"(?<!\\):", line)]
            names = titles[file]
            for k in range(1, min(len(parts), len(names))):
                if parts[0] and parts[k]:
                    yield f"{file} {k}", f"{names[0].capitalize()}: {parts[0]}. {names[k].capitalize()}:", parts[k]


class Parser(argparse.ArgumentParser):
    def exit(self, status=0, message=None):
        super().exit(64 if status == 2 else status, message)        # as sysexits.h has it


def main():
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("kind", choices=["glosses", "quiz"])
    parser.add_argument("--items", type=int, default=1000, help="at most so many; default 1000")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--from", dest="folder", type=pathlib.Path, help="default: where the Debian package has its data")
    args = parser.parse_args()
    if args.items < 1:
        parser.error(f"argument --items: expected 1 or more, found {args.items}")
    folder = args.folder or pathlib.Path({"glosses": "/usr/share/wordnet", "quiz": "/usr/share/games/bsdgames/quiz"}[args.kind])
    package = {"glosses": "wordnet-base", "quiz": "bsdgames"}[args.kind]
    try:
        rows = list((read_glosses if args.kind == "glosses" else read_quiz)(folder))
    except OSError as e:
        print(f"choices.py: {e.filename} cannot be read: {e.strerror}; install the package {package}, or give its folder with --from", file=sys.stderr)
        sys.exit(66)
    groups = {}
    for group, _, answer in rows:
        groups.setdefault(group, []).append(answer)
    # A question with several right answers is no question.
    answers = {}
    for _, question, answer in rows:
        answers.setdefault(question, set()).add(answer)
    rows = [row for row in rows if len(answers[row[1]]) == 1]
    rng = random.Random(args.seed)
    rng.shuffle(rows)
    written = 0
    for group, question, answer in rows:
        pool = groups[group]
        picked = pick(rng, answer, rng.sample(pool, min(len(pool), 16)))
        if picked and written < args.items:
            print(json.dumps({"context": question, "choices": picked[0], "gold": picked[1], "set": group.split()[0]}, ensure_ascii=False))
            written += 1
    if written < args.items:
        print(f"choices.py: {written} items, all that there are", file=sys.stderr)


if __name__ == "__main__":
    main()
