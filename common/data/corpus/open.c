/* SPDX-License-Identifier: Apache-2.0 */
/* Recognises the files at PREFIX, maps them and checks them against PREFIX.json. */
#include "data/corpus/corpus_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem/mem.h"

#define LLMC_HEADER 1024u		/* 256 int32 */

int
corpus__map_file(const char *path, struct corpus__map *map, struct err_note *note)
{
	struct stat st;
	void *p = NULL;
	int fd, rc = 0;

	map->bytes = NULL;
	map->len = 0;
	if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
		return err_note_set(note, errno, "%s", path);
	if (fstat(fd, &st) != 0) {
		rc = err_note_set(note, errno, "%s", path);
		goto out;
	}
	if (!S_ISREG(st.st_mode)) {
		rc = err_note_set(note, S_ISDIR(st.st_mode) ? EISDIR : EINVAL, "%s", path);
		goto out;
	}
	if (st.st_size > 0 && (p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0)) == MAP_FAILED) {
		rc = err_note_set(note, errno, "%s", path);
		goto out;
	}
	map->bytes = p;
	map->len = (size_t)st.st_size;
out:
	close(fd);
	return rc;
}

void
corpus__unmap(struct corpus__map *map)
{
	if (map->bytes != NULL)
		munmap((void *)(uintptr_t)map->bytes, map->len);
	map->bytes = NULL;
	map->len = 0;
}

static bool
exists(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0;
}

static bool
ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n > m && strcmp(s + n - m, end) == 0;
}

/* Appends the file to the stream; the caller fills in tokens and dtype. */
static int
add_part(struct corpus *c, const char *path, struct corpus__part **part, struct err_note *note)
{
	struct corpus__part *p;
	int rc;

	if ((rc = mem_grow((void **)&c->parts, &c->cap_parts, c->n_parts + 1, sizeof(c->parts[0]))) != 0)
		return err_note_set(note, rc, "%s", path);
	p = &c->parts[c->n_parts];
	memset(p, 0, sizeof(*p));
	if ((p->path = strdup(path)) == NULL)
		return err_note_set(note, ENOMEM, "%s", path);
	c->n_parts++;
	p->first = c->info.n_tokens;
	*part = p;
	return corpus__map_file(path, &p->map, note);
}

static int
open_megatron(struct corpus *c, struct err_note *note)
{
	char bin[CORPUS__PATH_MAX + 8];
	struct corpus__part *part = NULL;
	struct corpus__map idx = {0};
	int rc;

	snprintf(bin, sizeof(bin), "%s.bin", c->stem);
	if ((rc = add_part(c, bin, &part, note)) != 0 || (rc = corpus__map_file(c->idx_path, &idx, note)) != 0)
		goto out;
	if ((rc = corpus__idx_check(c->idx_path, idx, bin, part->map.len, &c->info, note)) != 0)
		goto out;
	c->info.kind = CORPUS_KIND_MEGATRON;
	part->tokens = part->map.bytes;
	part->n_tokens = c->info.n_tokens;
out:
	corpus__unmap(&idx);
	return rc;
}

/* An llm.c shard by its magic, or raw uint16 if that is allowed. */
static int
open_foreign(struct corpus *c, const char *path, bool raw_allowed, struct err_note *note)
{
	enum corpus_kind kind = CORPUS_KIND_RAW;
	enum corpus_dtype dtype = CORPUS_DTYPE_UINT16;
	struct corpus__part *part = NULL;
	int32_t header[3] = {0};
	uint64_t want;
	int rc;

	if ((rc = add_part(c, path, &part, note)) != 0)
		return rc;
	if (part->map.len >= sizeof(header))
		memcpy(header, part->map.bytes, sizeof(header));
	if (header[0] == 20240520 || header[0] == 20240801) {
		int version = header[0] == 20240520 ? 1 : 7;

		kind = CORPUS_KIND_LLMC;
		dtype = header[0] == 20240520 ? CORPUS_DTYPE_UINT16 : CORPUS_DTYPE_UINT32;
		if (header[1] != version)
			return corpus__bad(note, ERR_VERSION, path, 4, version == 1 ? "version 1" : "version 7", header[1]);
		if (header[2] < 0)
			return corpus__bad(note, ERR_FORMAT, path, 8, "a number of tokens of 0 or more", header[2]);
		part->n_tokens = (uint64_t)header[2];
		want = LLMC_HEADER + part->n_tokens * corpus__token_bytes(dtype);
		if (part->map.len != want) {
			corpus__bad(note, ERR_FORMAT, path, part->map.len < want ? part->map.len : want, "", 0);
			return err_expect(note, ERR_FORMAT, "", "%" PRIu64 " bytes (%" PRId32 " tokens)",
			    "%zu", want, header[2], part->map.len);
		}
		part->tokens = part->map.bytes + LLMC_HEADER;
	} else if (raw_allowed) {
		if (part->map.len % 2 != 0)
			return corpus__bad(note, ERR_FORMAT, path, part->map.len - 1, "an even number of bytes (uint16 tokens)",
			    (int64_t)part->map.len);
		part->tokens = part->map.bytes;
		part->n_tokens = part->map.len / 2;
	} else {
		corpus__bad(note, ERR_FORMAT, path, 0, "", header[0]);
		err_note_expected(note, "%s.idx beside it, or an llm.c shard (for raw uint16 give the file's full name)", c->stem);
		return ERR_FORMAT;
	}
	if (c->n_parts > 1 && (kind != c->info.kind || dtype != c->info.dtype)) {
		corpus__bad(note, ERR_FORMAT, path, 0, "", 0);
		return err_expect(note, ERR_FORMAT, "", "%s of %s, as in %s", "%s of %s",
		    corpus_kind_name(c->info.kind), corpus_dtype_name(c->info.dtype), c->parts[0].path,
		    corpus_kind_name(kind), corpus_dtype_name(dtype));
	}
	c->info.kind = kind;
	c->info.dtype = dtype;
	c->info.n_tokens += part->n_tokens;
	return 0;
}

static int
open_pattern(struct corpus *c, const char *pattern, struct err_note *note)
{
	glob_t found;
	int rc = 0, g = glob(pattern, 0, NULL, &found);

	if (g != 0) {
		rc = err_expect(note, g == GLOB_NOMATCH ? ENOENT : g == GLOB_NOSPACE ? ENOMEM : EIO, "%s",
		    "a pattern that matches token files", "", pattern);
		goto out;
	}
	for (size_t i = 0; i < found.gl_pathc && rc == 0; i++)
		rc = open_foreign(c, found.gl_pathv[i], true, note);
out:
	globfree(&found);
	return rc;
}

/* Compares PREFIX.json with the files. */
static int
compare(struct corpus *c, enum corpus_kind kind, const struct corpus_info *about, struct err_note *note)
{
	const struct {
		const char *member;
		uint64_t says, holds;
	} rows[] = {
		{"kind", kind, c->info.kind},
		{"dtype", about->dtype, c->info.dtype},
		{"n_tokens", about->n_tokens, c->info.n_tokens},
		{"n_documents", about->n_documents, kind == CORPUS_KIND_MEGATRON && about->n_documents != 0 ? c->info.n_documents :
		    about->n_documents},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (rows[i].says != rows[i].holds)
			return err_expect_at(note, ERR_CORRUPT, "%s.json", "%s", "%" PRIu64 " as in %s",
			    "%" PRIu64, c->stem, rows[i].member, rows[i].holds, c->parts[0].path,
			    rows[i].says);
	if (kind != CORPUS_KIND_MEGATRON)
		c->info.n_documents = about->n_documents;
	c->info.n_bytes = about->n_bytes;
	c->info.vocab = about->vocab;
	c->info.eod = about->eod;
	c->info.has_tokenizer = about->has_tokenizer;
	c->info.tokenizer = about->tokenizer;
	c->info.has_source = about->has_source;
	c->info.source = about->source;
	c->info.has_counts = about->has_counts;
	if (about->vocab > 0)
		c->limit = about->vocab;
	return 0;
}

/* Recognises the kind of corpus at prefix; the first match wins, in the order of corpus.h. */
static int
open_any(struct corpus *c, const char *prefix, struct err_note *note)
{
	bool is_pattern = strpbrk(prefix, "*?[") != NULL && !exists(prefix);
	enum corpus_kind kind = CORPUS_KIND_RAW;
	struct corpus_info about;
	char bin[CORPUS__PATH_MAX + 8];
	size_t n = strlen(prefix);
	int rc;

	if (n == 0 || n >= CORPUS__PATH_MAX)
		return err_note_set(note, n == 0 ? ENOENT : ENAMETOOLONG, "corpus prefix '%.60s'", prefix);
	if (is_pattern)
		n = strcspn(prefix, "*?[");
	else if (ends_with(prefix, ".bin") || ends_with(prefix, ".idx"))
		n -= 4;
	if ((c->stem = strndup(prefix, n)) == NULL || asprintf(&c->idx_path, "%s.idx", c->stem) < 0)
		return err_note_set(note, ENOMEM, "%s", prefix);
	snprintf(bin, sizeof(bin), "%s.bin", c->stem);
	if ((rc = corpus__about_read(c, &kind, &about, note)) != 0)
		return rc;

	if (is_pattern) {
		rc = open_pattern(c, prefix, note);
	} else if (exists(c->idx_path)) {
		rc = open_megatron(c, note);
	} else if (c->has_about && kind == CORPUS_KIND_MEGATRON) {
		rc = err_expect(note, ERR_CORRUPT, "%s", "the index of a finished corpus",
		    "none: the build was interrupted; build the corpus again", c->idx_path);
	} else if (exists(prefix)) {
		rc = open_foreign(c, prefix, true, note);
	} else if (exists(bin)) {
		rc = open_foreign(c, bin, false, note);
	} else {
		rc = err_expect(note, ENOENT, "%s", "%s and %s, or a token file", "", prefix, bin,
		    c->idx_path);
	}
	if (rc == 0 && c->has_about)
		rc = compare(c, kind, &about, note);
	if (rc == 0 && c->info.n_tokens == 0) {
		rc = err_expect(note, ERR_FORMAT, "%s", "at least one token", "an empty corpus",
		    c->parts[0].path);
	}
	return rc;
}

int
corpus_open(struct corpus **c, const char *prefix, struct err_note *note)
{
	int rc;

	if ((*c = mem_alloc(1, sizeof(**c))) == NULL)
		return err_note_set(note, ENOMEM, "%s", prefix);
	(*c)->info.eod = -1;
	(*c)->limit = (uint32_t)INT32_MAX + 1;
	(*c)->number = CORPUS_TRAIN;
	if ((rc = open_any(*c, prefix, note)) != 0)
		corpus_destroy(c);
	return rc;
}

void
corpus_destroy(struct corpus **c)
{
	if (*c == NULL)
		return;
	for (size_t i = 0; i < (*c)->n_parts; i++) {
		corpus__unmap(&(*c)->parts[i].map);
		free((*c)->parts[i].path);
	}
	free((*c)->parts);
	free((*c)->stem);
	free((*c)->idx_path);
	free(*c);
	*c = NULL;
}
