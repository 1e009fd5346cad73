#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""snippets.py PAGE DIR [A=B ...]: runs the fenced blocks of a page in its order in DIR, in this process's environment, with every A replaced by B;
for tests/system/docs_client.sh and docs_python.sh. Exit status 1 and the output of the block if one fails.

A block of sh is run by bash, one of python by this Python. A block whose first line is a comment with a file name (# fleet.yaml) is written
to that file instead. A block of another language without a name is an error. A line before a block may change that:

    <!-- run: elsewhere PATH -->    PATH, a test of the repository, runs it
    <!-- run: needs MODULE -->      only where this Python has MODULE; where not, that is printed
    <!-- run: s/A/B/; s/C/D/ -->    with these words replaced: what a test has not, such as a second host or a GPU
"""
import importlib.util
import os
import re
import subprocess
import sys
import tempfile


def blocks(text):
    """(line, language, directive, code)"""
    for m in re.finditer(r'^(?:<!-- run: ([^\n]*) -->\n)?```(\w*)\n(.*?)^```$', text, re.S | re.M):
        yield text.count('\n', 0, m.start(2)) + 1, m[2], m[1] or '', m[3]


def replaced(code, directive, where):
    for rule in filter(None, directive.split('; ')):
        _, old, new, _ = rule.split('/') if rule.count('/') == 3 else rule.split('|') if rule.count('|') == 3 else [None] * 4
        if old is None or old not in code:
            sys.exit(f'{where}: {rule}: expected s/A/B/ or s|A|B| with an A that the block has')
        code = code.replace(old, new)
    return code


def main():
    page, folder = sys.argv[1:3]
    everywhere = [pair.split('=', 1) for pair in sys.argv[3:]]
    top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    with open(page, encoding='utf-8') as f:
        text = f.read()
    found = list(blocks(text))
    if len(found) != len(re.findall(r'^```\w*$', text, re.M)) / 2 or not found:
        sys.exit(f'{page}: expected blocks that begin and end with ``` at the beginning of a line')
    for line, language, directive, code in found:
        where = f'{page}:{line}'
        word, _, argument = directive.partition(' ')
        if word == 'elsewhere':
            if not os.path.exists(os.path.join(top, argument)):
                sys.exit(f'{where}: is run elsewhere, by {argument}, which does not exist')
            continue
        if word == 'needs':
            if importlib.util.find_spec(argument) is None:
                print(f'{where}: not run: no module {argument}', flush=True)
                continue
        elif directive:
            code = replaced(code, directive, where)
        for old, new in everywhere:
            code = code.replace(old, new)
        name = re.match(r'(?:#|//|/\*) (\w[\w.-]*\.\w+)\b', code)
        if name:
            with open(os.path.join(folder, name[1]), 'w', encoding='utf-8') as f:
                f.write(code)
            continue
        if language not in ('sh', 'python'):
            sys.exit(f'{where}: a block of {language or "no language"} needs a file name in its first line')
        command = ['bash', '-euc', code] if language == 'sh' else [sys.executable, '-c', code]
        with tempfile.TemporaryFile('w+') as out:       # a file: daemons that a block starts would keep a pipe open
            try:
                rc = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=400).returncode
            except subprocess.TimeoutExpired:
                rc = 'none within 400 s'
            out.seek(0)
            said = out.read()
        if rc != 0:
            sys.exit(f'{said}\n{where}: expected this block to run, found exit status {rc}:\n{code}')
        print(f'{where}: ran' + (f'\n{said}' if os.environ.get('VERBOSE') else ''), flush=True)


main()
