#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""sentences.py SEED N - N sentences drawn at random from README.md, CONTRIBUTING.md, SECURITY.md, docs/, module READMEs and the comments of the
programs' C files, to be read aloud and improved. Not a test. Run it from the source root."""
import random
import re
import subprocess
import sys


def sentences(text):
    return [s for s in re.split(r'(?<=[.!?])\s+', ' '.join(text.split())) if 6 <= len(s.split()) <= 45]


def of_page(text):
    text = re.sub(r'```.*?```', '', text, flags=re.S)
    text = '\n'.join(line for line in text.split('\n') if not line.startswith(('    ', '|', '#', '\t', '!', '<')))
    return [s for part in re.split(r'\n\s*\n|\n\* |\n- ', text) for s in sentences(part)]


def of_source(text):
    comments = re.findall(r'/\*(.*?)\*/', text, re.S)
    return [s for c in comments for s in sentences(re.sub(r'^\s*\* ?', '', c, flags=re.M))]


def main():
    seed, n = int(sys.argv[1]), int(sys.argv[2])
    drawn = []
    for path in subprocess.check_output(['git', 'ls-files'], text=True).split():
        if re.search(r'(^|/)(README|CONTRIBUTING|SECURITY)\.md$|^docs/.*\.md$', path):
            of = of_page
        elif re.search(r'^(common|client|selectord|teacherd|trainerd|saltctl)/.*\.[ch]$', path):
            of = of_source
        else:
            continue
        with open(path, encoding='utf-8') as f:
            drawn += [(path, s) for s in of(f.read())]
    random.Random(seed).shuffle(drawn)
    for path, sentence in drawn[:n]:
        print(f'{path}: {sentence}')


main()
