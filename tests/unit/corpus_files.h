/* SPDX-License-Identifier: Apache-2.0 */
/* corpus_files - shared by the tests of corpus, beside files.h: they write corpora. */
#ifndef SALT_TESTS_CORPUS_FILES_H
#define SALT_TESTS_CORPUS_FILES_H

#include "data/corpus/corpus.h"
#include "files.h"

#define GOLDEN "tests/golden/corpus/"

extern struct err_note note;

void copy_golden(const char *from, const char *to);

struct corpus_writer *start(const char *prefix, uint32_t vocab, bool replace);
/* Writes n documents of lengths 1, 2, 3 ...; ids run through the vocabulary. Returns corpus_writer's code. */
int write_some(const char *prefix, uint32_t vocab, int n, bool replace);

#endif
