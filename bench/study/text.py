# SPDX-License-Identifier: Apache-2.0
"""The study's text: Debian packages, as JSON lines {"text", "kind", "package"} on standard output, one document a line.

    python3 bench/study/text.py [--packages DIR] > text.jsonl

Packages are downloaded (apt-get download; nothing is installed) to DIR, default build/study/packages, and unpacked there. A document is a file,
or an entry of a dictionary. The order is that of the table below, then of file names. Text is kept as it is, but for HTML, of which the text of
headings, paragraphs, lists, tables and preformatted parts remains. A summary by kind is printed on standard error.
"""
from __future__ import annotations

import argparse
import collections
import gzip
import html.parser
import json
import pathlib
import re
import subprocess
import sys
import zlib

SOURCE = pathlib.Path(__file__).resolve().parents[2]

# kind, package, files (a regular expression over the path in the package), reader
PACKAGES = [
    ("documentation", "linux-doc-6.1", r"/_sources/(?!translations/).*\.rst\.txt(\.gz)?$", "plain"),
    ("documentation", "perl-doc", r"/(?!perltoc|perluniprops)[^/]*\.pod$", "plain"),
    ("documentation", "git-doc", r"\.txt$", "plain"),
    ("documentation", "postgresql-doc-15", r"\.html$", "html"),
    ("documentation", "octave-doc", r"/octave\.html/.*\.html$", "html"),
    ("documentation", "maxima-doc", r"/maxima_\d+\.html$", "html"),
    ("documentation", "libreoffice-help-en-us", r"/text/.*\.html$", "html"),
    ("documentation", "gimp-help-en", r"/en/.*\.html$", "html"),
    ("documentation", "erlang-doc", r"/doc/html/.*\.html$", "html"),
    ("documentation", "rust-doc", r"/html/(book|nomicon|reference|rust-by-example|rustc|edition-guide|cargo)/.*\.html$", "html"),
    ("handbook", "debian-handbook", r"/html/en-US/.*\.html$", "html"),
    ("dictionary", "dict-gcide", r"/gcide\.index$", "dictionary"),
    ("dictionary", "dict-wn", r"/wn\.index$", "dictionary"),
    ("dictionary", "dict-foldoc", r"/foldoc\.index$", "dictionary"),
    ("dictionary", "dict-jargon", r"/jargon\.index$", "dictionary"),
    ("essays", "anarchism", r"/html/.*\.html$", "html"),
    ("fiction", "r-cran-janeaustenr", r"/data/Rdata\.rdb$", "novels"),
    ("sayings", "fortunes", r"/usr/share/games/fortunes/[a-z-]+$", "sayings"),
]


class Html(html.parser.HTMLParser):
    """The visible text of a page: blocks on lines of their own, spaces folded outside of <pre>."""
    BLOCKS = {"p", "div", "h1", "h2", "h3", "h4", "h5", "h6", "li", "tr", "dt", "dd", "pre", "table", "ul", "ol", "dl", "br", "section", "blockquote"}
    HIDDEN = {"script", "style", "head", "nav", "header", "footer", "noscript", "svg"}

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.out, self.hidden, self.pre = [], 0, 0

    def handle_starttag(self, tag, attrs):
        self.hidden += tag in self.HIDDEN
        self.pre += tag == "pre"
        if tag in self.BLOCKS:
            self.out.append("\n")

    def handle_endtag(self, tag):
        self.hidden -= tag in self.HIDDEN and self.hidden > 0
        self.pre -= tag == "pre" and self.pre > 0
        if tag in self.BLOCKS:
            self.out.append("\n")

    def handle_data(self, data):
        if not self.hidden:
            self.out.append(data if self.pre else re.sub(r"\s+", " ", data))


def read_plain(path):
    data = path.read_bytes()
    yield (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8", "replace")


def read_html(path):
    page = Html()
    page.feed(path.read_text("utf-8", "replace"))
    lines = "".join(page.out).split("\n")
    yield re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in lines)).strip() + "\n"


def read_dictionary(path):
    """dictd's format: lines of word, offset and length (digits of base 64) into a text compressed as gzip."""
    digits = {c: i for i, c in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}
    text = gzip.decompress(path.with_name(path.stem + ".dict.dz").read_bytes())

    def number(word):
        n = 0
        for c in word:
            n = n * 64 + digits[c]
        return n
    places = set()
    for line in path.read_text("utf-8", "replace").splitlines():
        word, offset, length = line.split("\t")[:3]
        if not word.startswith("00"):                 # about the dictionary itself
            places.add((number(offset), number(length)))
    for offset, length in sorted(places):
        yield text[offset:offset + length].decode("utf-8", "replace")


def read_novels(path):
    """R's lazy-load data base: compressed serialised vectors of lines. Each vector of some length is a novel."""
    data, at = path.read_bytes(), 0
    while at + 4 < len(data):
        begin = data.find(b"\x78", at)
        if begin < 0:
            return
        unpack = zlib.decompressobj()
        try:
            block = unpack.decompress(data[begin:])
        except zlib.error:
            at = begin + 1
            continue
        at = len(data) - len(unpack.unused_data)
        lines, p = [], 0
        while (p := block.find(b"\x00\x09", p)) >= 0:         # the type of a string in R, then its length
            n = int.from_bytes(block[p + 2:p + 6], "big")
            if n < 2000 and p + 6 + n <= len(block):
                lines.append(block[p + 6:p + 6 + n].decode("utf-8", "replace"))
                p += 6 + n
            else:
                p += 2
        if len(lines) > 1000:
            yield "\n".join(lines) + "\n"


def read_sayings(path):
    for saying in path.read_text("utf-8", "replace").split("\n%\n"):
        yield saying


READERS = {"plain": read_plain, "html": read_html, "dictionary": read_dictionary, "novels": read_novels, "sayings": read_sayings}


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--packages", type=pathlib.Path, default=SOURCE / "build/study/packages")
    args = p.parse_args()
    args.packages.mkdir(parents=True, exist_ok=True)
    size, documents = collections.Counter(), collections.Counter()
    for kind, package, files, reader in PACKAGES:
        folder = args.packages / package
        if not folder.exists():
            if not (found := sorted(args.packages.glob(package + "_*.deb"))):
                subprocess.run(["apt-get", "download", "-q", package], cwd=args.packages, check=True, stdout=sys.stderr)
                found = sorted(args.packages.glob(package + "_*.deb"))
            subprocess.run(["dpkg-deb", "-x", found[-1], folder.with_suffix(".new")], check=True)
            folder.with_suffix(".new").rename(folder)
        count = 0
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not path.is_file() or not re.search(files, str(path.relative_to(folder.parent))):
                continue
            for text in READERS[reader](path):
                if len(text) >= 40:
                    print(json.dumps({"text": text, "kind": kind, "package": package}, ensure_ascii=False))
                    size[kind] += len(text.encode())
                    count += 1
        if count == 0:
            sys.exit(f"text.py: {package}: expected files like {files}, found none")
        documents[kind] += count
        print(f"{package}: {count} documents", file=sys.stderr)
    for kind in size:
        print(f"{kind}: {size[kind] / 1e6:.1f} MB in {documents[kind]} documents", file=sys.stderr)
    print(f"all: {sum(size.values()) / 1e6:.1f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
