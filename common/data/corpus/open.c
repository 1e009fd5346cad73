/* SPDX-License-Identifier: Apache-2.0 */
/* Recognises the files at PREFIX, opens them and checks them against PREFIX.json. */
#include "data/corpus/corpus_internal.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file/file.h"
#include "base/mem/mem.h"

#define FILES_OPEN 256u /* descriptors that a corpus keeps; the usual limit of a process is 1,024 */
#define FILES_MAX 16384u /* files that a pattern may match */
#define LOOK_TOKENS 1024u /* tokens that are inspected for a wrong dtype */

int
corpus__file_open(struct corpus__file *file, const char *path, struct err_note *note)
{
	struct stat st;
	int rc = 0;

	*file = (struct corpus__file){.fd = -1};
	if ((file->path = strdup(path)) == NULL)
		return err_note_set(note, ENOMEM, "%s", path);
	/* O_NONBLOCK: to open a FIFO, which is rejected below, would wait for its writer. */
	if ((file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)) < 0 || fstat(file->fd, &st) != 0)
		rc = err_note_set(note, errno, "%s", path);
	else if (!S_ISREG(st.st_mode))
		rc = err_expect(note, S_ISDIR(st.st_mode) ? EISDIR : EINVAL, "%s", "a token file", "%s", path,
		    S_ISDIR(st.st_mode) ? "a folder" : "no regular file");
	if (rc != 0) {
		corpus__file_close(file);
		return rc;
	}
	file->size = (uint64_t)st.st_size;
	file->dev = st.st_dev;
	file->inode = st.st_ino;
	return 0;
}

void
corpus__file_close(struct corpus__file *file)
{
	if (file->path != NULL && file->fd >= 0)
		close(file->fd);
	free(file->path);
	*file = (struct corpus__file){.fd = -1};
}

int
corpus__file_fd(const struct corpus__file *file, int *rc, struct err_note *note)
{
	struct corpus__file again;

	*rc = 0;
	if (file->fd >= 0)
		return file->fd;
	if ((*rc = corpus__file_open(&again, file->path, note)) != 0)
		return -1;
	free(again.path);
	if (again.dev == file->dev && again.inode == file->inode)
		return again.fd;
	close(again.fd);
	*rc = err_expect(note, ERR_CORRUPT, "%s", "the file that was opened at the start",
	    "another file with this name", file->path);
	return -1;
}

void
corpus__file_done(const struct corpus__file *file, int fd)
{
	if (file->fd < 0)
		close(fd);
}

int
corpus__file_read(const struct corpus__file *file, uint64_t at, void *out, size_t n, struct err_note *note)
{
	int rc, fd = corpus__file_fd(file, &rc, note);

	if (fd < 0)
		return rc;
	rc = file_pread(fd, file->path, at, out, n, note);
	corpus__file_done(file, fd);
	return rc;
}

int
corpus__file_check(const struct corpus__file *file, struct hash_blocks *blocks, uint64_t at, uint64_t n,
    bool again, struct err_note *note)
{
	int rc, fd = corpus__file_fd(file, &rc, note);

	if (fd < 0)
		return rc;
	rc = hash_blocks_check(blocks, fd, at, n, again, note);
	corpus__file_done(file, fd);
	return rc;
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

/*
 * Appends a file to the stream; the caller fills in n_tokens and tokens_at and calls join. Rejects a file
 * that is there twice.
 */
static int
add_part(struct corpus *c, const char *path, struct corpus__part **part, struct err_note *note)
{
	struct corpus__part *p;
	int rc;

	if ((rc = mem_grow((void **)&c->parts, &c->cap_parts, c->n_parts + 1, sizeof(c->parts[0]))) != 0)
		return err_note_set(note, rc, "%s", path);
	p = &c->parts[c->n_parts];
	memset(p, 0, sizeof(*p));
	if ((rc = corpus__file_open(&p->file, path, note)) != 0)
		return rc;
	c->n_parts++;
	p->first = c->info.n_tokens;
	for (size_t i = 0; i + 1 < c->n_parts; i++)
		if (c->parts[i].file.inode == p->file.inode && c->parts[i].file.dev == p->file.dev)
			return err_expect(note, ERR_FORMAT, "%s", "each token file once",
			    "the file that is also matched as %s (a link)", path, c->parts[i].file.path);
	*part = p;
	return 0;
}

/* Completes the part that add_part appended. kind and dtype must be those of the parts before it. */
static int
join(struct corpus *c, enum corpus_kind kind, enum corpus_dtype dtype, struct err_note *note)
{
	struct corpus__part *part = &c->parts[c->n_parts - 1];

	if (c->n_parts > 1 && (kind != c->info.kind || dtype != c->info.dtype))
		return err_expect_at(note, ERR_FORMAT, "%s", "byte 0", "%s of %s, as in %s", "%s of %s",
		    part->file.path, corpus_kind_name(c->info.kind), corpus_dtype_name(c->info.dtype),
		    c->parts[0].file.path, corpus_kind_name(kind), corpus_dtype_name(dtype));
	c->info.kind = kind;
	c->info.dtype = dtype;
	c->info.n_tokens += part->n_tokens;
	if (c->n_parts > FILES_OPEN) {
		close(part->file.fd);
		part->file.fd = -1;
	}
	return 0;
}

/* Adds STEM.bin with STEM.idx. */
static int
open_megatron(struct corpus *c, const char *stem, struct err_note *note)
{
	struct corpus_info info = {.kind = CORPUS_KIND_MEGATRON};
	char bin[CORPUS__PATH_MAX + 8];
	struct corpus__part *part;
	int rc;

	snprintf(bin, sizeof(bin), "%s.bin", stem);
	if ((rc = add_part(c, bin, &part, note)) != 0)
		return rc;
	if (asprintf(&part->idx_path, "%s.idx", stem) < 0) {
		part->idx_path = NULL;
		return err_note_set(note, ENOMEM, "%s", bin);
	}
	if ((rc = corpus__idx_check(part->idx_path, bin, part->file.size, &info, note)) != 0)
		return rc;
	part->n_tokens = info.n_tokens;
	c->info.n_documents += info.n_documents;
	return join(c, CORPUS_KIND_MEGATRON, info.dtype, note);
}

/*
 * Rejects ids of 32 bits that were stated as uint16: every second value is then 0 (at most 2 for a vocabulary
 * up to 196,608).
 */
static int
look_for_uint32(const struct corpus__part *part, const uint8_t *head, size_t n, struct err_note *note)
{
	size_t n_ids = n / 2 < LOOK_TOKENS ? n / 2 : LOOK_TOKENS, small[2] = {0, 0};

	for (size_t i = 0; i < n_ids; i++)
		small[i % 2] += head[2 * i + 1] == 0 && head[2 * i] <= 2;
	if (n_ids < 64 || small[1] < n_ids / 2 || small[0] > n_ids / 4)
		return 0;
	return err_expect_at(note, ERR_FORMAT, "%s", "token 1", "ids of uint16, as was stated",
	    "0, 1 or 2 in every second place of the first %zu: "
	    "these are ids of 32 bits; state uint32 or int32",
	    part->file.path, n_ids);
}

/* Checks a raw file of the stated dtype and sets its n_tokens. */
static int
open_raw(
    struct corpus__part *part, enum corpus_dtype dtype, const uint8_t *head, size_t n, struct err_note *note)
{
	unsigned width = corpus__token_bytes(dtype);

	if (dtype == 0)
		return err_expect(note, ERR_FORMAT, "%s",
		    "a format that states the type of its ids (Megatron, llm.c, .npy), or a type stated for raw ids: "
		    "--dtype uint16|uint32|int32 of saltctl, corpus.dtype in fleet.yaml, or PREFIX.json",
		    "%" PRIu64 " bytes of no known format", part->file.path, part->file.size);
	if (part->file.size % width != 0)
		return err_expect_at(note, ERR_FORMAT, "%s", "byte %" PRIu64,
		    "a multiple of %u bytes (%s ids)", "%" PRIu64 " bytes", part->file.path,
		    part->file.size / width * width, width, corpus_dtype_name(dtype), part->file.size);
	part->n_tokens = part->file.size / width;
	return dtype == CORPUS_DTYPE_UINT16 ? look_for_uint32(part, head, n, note) : 0;
}

/*
 * Adds a file that is not Megatron's. stated: the dtype from the caller, 0: none. about: PREFIX.json, which
 * may state the dtype of a raw file; NULL: none. raw_allowed: path is the name that the user gave, or a dtype
 * is stated.
 */
static int
open_foreign(struct corpus *c, const char *path, enum corpus_dtype stated, const struct corpus_info *about,
    bool raw_allowed, struct err_note *note)
{
	struct corpus__part *part = NULL;
	uint8_t head[CORPUS__HEAD_BYTES];
	struct corpus__format f;
	size_t n;
	int rc;

	if ((rc = add_part(c, path, &part, note)) != 0)
		return rc;
	n = part->file.size < sizeof(head) ? (size_t)part->file.size : sizeof(head);
	if ((rc = corpus__file_read(&part->file, 0, head, n, note)) != 0 ||
	    (rc = corpus__format(path, head, n, part->file.size, &f, note)) != 0)
		return rc;
	part->tokens_at = f.tokens_at;
	part->n_tokens = f.n_tokens;
	if (f.kind == CORPUS_KIND_RAW) {
		if (stated == 0 && about != NULL && about->kind == CORPUS_KIND_RAW)
			f.dtype = about->dtype;
		else
			f.dtype = stated;
		if (f.dtype == 0 && !raw_allowed)
			return err_expect_at(note, ERR_FORMAT, "%s", "byte 0",
			    "%s.idx beside it, or an llm.c shard (for raw ids give the file's full "
			    "name and their type, as in --dtype uint16)",
			    "%" PRIu64 " bytes of no known format", path, c->stem, part->file.size);
		if ((rc = open_raw(part, f.dtype, head, n, note)) != 0)
			return rc;
	}
	return join(c, f.kind, f.dtype, note);
}

/* Whether saltctl or a daemon wrote this file beside a corpus. Patterns skip such files. */
static bool
is_side(const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash != NULL ? slash + 1 : path;
	char magic[8] = "";
	bool ours = false;
	int fd;

	if (ends_with(name, CORPUS__SOURCES) || ends_with(name, ".salthash") || ends_with(name, ".tmp") || strncmp(name, ".salt", 5) == 0)
		return true;
	if (ends_with(name, ".json") || strcmp(name, ".json") == 0)
		return corpus__about_ours(path, &ours, NULL) == 0 && ours;
	if ((!ends_with(name, ".counts.bin") && !ends_with(name, CORPUS__WEIGHTS)) || (fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
		return false;
	ours = pread(fd, magic, sizeof(magic), 0) == sizeof(magic) &&
	    (memcmp(magic, CORPUS__COUNTS_MAGIC, sizeof(magic)) == 0 || memcmp(magic, CORPUS__WEIGHTS_MAGIC, sizeof(magic)) == 0);
	close(fd);
	return ours;
}

/*
 * The order of shards: runs of digits compare by value, so that PREFIX_10 comes after PREFIX_9, all else byte
 * by byte. Names that differ only in leading zeros are in byte order.
 */
static int
by_number(const void *a, const void *b)
{
	const char *const *first = a, *const *second = b, *x = *first, *y = *second;

	while (*x != '\0' && *y != '\0') {
		size_t n, m;

		if (!isdigit((unsigned char)*x) || !isdigit((unsigned char)*y)) {
			if (*x != *y)
				return (unsigned char)*x < (unsigned char)*y ? -1 : 1;
			x++;
			y++;
			continue;
		}
		x += strspn(x, "0");
		y += strspn(y, "0");
		n = strspn(x, "0123456789");
		m = strspn(y, "0123456789");
		if (n != m || strncmp(x, y, n) != 0)
			return n != m ? (n < m ? -1 : 1) : strncmp(x, y, n);
		x += n;
		y += m;
	}
	return *x != *y ? (*x == '\0' ? -1 : 1) : strcmp(*first, *second);
}

/* Copies into c what PREFIX.json states. whole: it covers all token files, not only some shards. */
static void
states_of(struct corpus *c, const struct corpus_info *about, bool whole)
{
	if (whole && c->info.kind != CORPUS_KIND_MEGATRON)
		c->info.n_documents = about->n_documents;
	c->info.n_bytes = whole ? about->n_bytes : 0;
	c->info.vocab = about->vocab;
	c->info.eod = about->eod;
	c->info.has_tokenizer = about->has_tokenizer;
	c->info.tokenizer = about->tokenizer;
	if (about->vocab > 0)
		c->limit = about->vocab;
}

/* Compares PREFIX.json with the files, then copies what it states into c. */
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
			    "%" PRIu64, c->stem, rows[i].member, rows[i].holds, c->parts[0].file.path,
			    rows[i].says);
	if (about->vocab > 65536 && c->info.dtype == CORPUS_DTYPE_UINT16)
		return err_expect_at(note, ERR_MISMATCH, "%s.json", "vocab",
		    "at most 65,536, what the uint16 ids of %s can name", "%" PRIu32, c->stem,
		    c->parts[0].file.path, about->vocab);
	states_of(c, about, true);
	c->info.has_source = about->has_source;
	c->info.source = about->source;
	c->info.has_counts = about->has_counts;
	c->info.has_weights = about->has_weights;
	return 0;
}

/* What the PREFIX.json files of a pattern's shards state. */
struct shards {
	size_t n;			/* shards that have one */
	char first[CORPUS__PATH_MAX];	/* PREFIX of the first such shard */
	struct corpus_info all;
};

/*
 * Checks the last part of c, a shard with n_documents, against its own PREFIX.json (about; shard has its
 * hashes), and adds what that states to shards.
 */
static int
add_shard(struct corpus *c, struct corpus *shard, enum corpus_kind kind, const struct corpus_info *about, uint64_t n_documents,
    struct shards *shards, struct err_note *note)
{
	int rc;

	shard->parts = &c->parts[c->n_parts - 1];
	shard->info = (struct corpus_info){.kind = c->info.kind, .dtype = c->info.dtype, .n_tokens = shard->parts->n_tokens, .n_documents = n_documents};
	if ((rc = compare(shard, kind, about, note)) != 0)
		return rc;
	if (shards->n++ > 0)
		return corpus__agree(&shards->all, shards->first, &shard->info, shard->stem, note);
	shards->all = shard->info;
	snprintf(shards->first, sizeof(shards->first), "%s", shard->stem);
	return 0;
}

/*
 * Adds a match of a pattern: a token file, or the .bin or .idx of a Megatron corpus, of which both may match
 * but only the first is used. about: the pattern's own PREFIX.json; NULL: the shard's is used.
 * shard: empty; the caller frees its texts.
 */
static int
open_match(struct corpus *c, struct corpus *shard, const char *path, enum corpus_dtype stated,
    const struct corpus_info *about, struct shards *shards, struct err_note *note)
{
	char stem[CORPUS__PATH_MAX], other[CORPUS__PATH_MAX + 8], weights[CORPUS__PATH_MAX + 16];
	bool is_bin = ends_with(path, ".bin"), is_idx = ends_with(path, ".idx");
	struct corpus_info mine;
	uint64_t before = c->info.n_documents;
	enum corpus_kind kind;
	int rc;

	if (strlen(path) >= sizeof(stem))
		return err_note_set(note, ENAMETOOLONG, "%.60s...", path);
	if (is_side(path))
		return 0;
	shard->stem = stem;
	snprintf(stem, sizeof(stem), "%.*s", (int)strlen(path) - (is_idx || is_bin ? 4 : 0), path);
	snprintf(other, sizeof(other), "%s%s", stem, is_bin ? ".idx" : ".bin");
	snprintf(weights, sizeof(weights), "%s" CORPUS__WEIGHTS, stem);
	if (about == NULL && (rc = corpus__about_read(shard, &kind, &mine, note)) != 0)
		return rc;
	if ((is_idx || is_bin) && (exists(weights) || (shard->has_about && mine.has_weights)))
		return err_expect(note, ERR_UNSUPPORTED, "%s", "shards without loss weights in a pattern (saltctl corpus merge makes one corpus of them "
		    "and keeps their weights)", "%s", path, weights);
	for (size_t i = 0; is_idx && i < c->n_parts; i++)
		if (strcmp(c->parts[i].file.path, other) == 0)
			return 0;
	if (!is_idx && !(is_bin && exists(other)))
		rc = open_foreign(c, path, stated, shard->has_about ? &mine : about, true, note);
	else
		rc = open_megatron(c, stem, note);
	return rc != 0 || !shard->has_about ?
	    rc :
	    add_shard(c, shard, kind, &mine, c->info.n_documents - before, shards, note);
}

static int
open_pattern(struct corpus *c, const char *pattern, enum corpus_dtype stated, const struct corpus_info *about,
    struct err_note *note)
{
	struct shards shards = {.n = 0};
	glob_t found;
	int rc = 0, g = glob(pattern, GLOB_ERR | GLOB_NOSORT, NULL, &found);

	if (g != 0) {
		rc = err_expect(note,
		    g == GLOB_NOMATCH	  ? ENOENT :
			g == GLOB_NOSPACE ? ENOMEM :
					    EACCES,
		    "%s", "a pattern that matches token files, in folders that can be read", "", pattern);
		goto out;
	}
	if (found.gl_pathc > FILES_MAX)
		rc = err_expect(note, ERR_RANGE, "%s", "a pattern that matches at most %u files", "%zu",
		    pattern, FILES_MAX, found.gl_pathc);
	if (rc == 0)
		qsort(found.gl_pathv, found.gl_pathc, sizeof(found.gl_pathv[0]), by_number);
	for (size_t i = 0; i < found.gl_pathc && rc == 0; i++) {
		struct corpus shard = {.stem = NULL};

		rc = open_match(c, &shard, found.gl_pathv[i], stated, about, &shards, note);
		free(shard.unknown_bytes);
		free(shard.add_special);
	}
	if (rc == 0 && c->n_parts == 0)
		rc = err_expect(note, ENOENT, "%s", "a pattern that matches token files",
		    "only files that saltctl wrote beside them", pattern);
	if (rc == 0 && shards.n > 0)
		states_of(c, &shards.all, shards.n == c->n_parts);
out:
	globfree(&found);
	return rc;
}

/*
 * Rejects PREFIX.weights.bin without its hash in PREFIX.json, because it would be from another build, and
 * weights for a format that has no documents.
 */
static int
check_weights(const struct corpus *c, struct err_note *note)
{
	char path[CORPUS__PATH_MAX + 16];

	snprintf(path, sizeof(path), "%s" CORPUS__WEIGHTS, c->stem);
	if (c->info.has_weights && c->info.kind != CORPUS_KIND_MEGATRON)
		return err_expect_at(note, ERR_FORMAT, "%s.json", "weights", "a Megatron corpus, whose index has the documents", "%s", c->stem,
		    corpus_kind_name(c->info.kind));
	if (!c->info.has_weights && exists(path))
		return err_expect(note, ERR_CORRUPT, "%s", "its hash in %s.json (\"weights\"): build the corpus again, or remove the file to train "
		    "without loss weights", "none", path, c->stem);
	return 0;
}

/* Recognises the kind of corpus at prefix and opens it; the first match wins, in the order of corpus.h. */
static int
open_any(struct corpus *c, const char *prefix, enum corpus_dtype stated, struct err_note *note)
{
	bool is_pattern = strpbrk(prefix, "*?[") != NULL && !exists(prefix);
	char bin[CORPUS__PATH_MAX + 8], idx[CORPUS__PATH_MAX + 8];
	enum corpus_kind kind = CORPUS_KIND_RAW;
	const struct corpus_info *states = NULL;
	struct corpus_info about;
	size_t n = strlen(prefix);
	int rc;

	if (n == 0 || n >= CORPUS__PATH_MAX)
		return err_note_set(note, n == 0 ? ENOENT : ENAMETOOLONG, "corpus prefix '%.60s'", prefix);
	if (is_pattern)
		n = strcspn(prefix, "*?[");
	else if (ends_with(prefix, ".bin") || ends_with(prefix, ".idx"))
		n -= 4;
	if ((c->stem = strndup(prefix, n)) == NULL)
		return err_note_set(note, ENOMEM, "%s", prefix);
	snprintf(bin, sizeof(bin), "%s.bin", c->stem);
	snprintf(idx, sizeof(idx), "%s.idx", c->stem);
	if ((rc = corpus__about_read(c, &kind, &about, note)) != 0)
		return rc;
	if (c->has_about)
		states = &about;

	if (is_pattern) {
		rc = open_pattern(c, prefix, stated, states, note);
	} else if (exists(idx)) {
		rc = open_megatron(c, c->stem, note);
	} else if (c->has_about && kind == CORPUS_KIND_MEGATRON) {
		rc = err_expect(note, ERR_CORRUPT, "%s", "the index of a finished corpus",
		    "none: the build was interrupted; build the corpus again", idx);
	} else if (exists(prefix)) {
		rc = open_foreign(c, prefix, stated, states, true, note);
	} else if (exists(bin)) {
		rc = open_foreign(c, bin, stated, states, stated != 0 || states != NULL, note);
	} else {
		rc = err_expect(note, ENOENT, "%s", "%s and %s, or a token file", "", prefix, bin, idx);
	}
	if (rc == 0 && stated != 0 && stated != c->info.dtype)
		rc = err_expect(note, ERR_MISMATCH, "%s", "%s ids, as stated (--dtype or corpus.dtype)",
		    "%s, which its format states", c->parts[0].file.path, corpus_dtype_name(stated),
		    corpus_dtype_name(c->info.dtype));
	if (rc == 0 && c->has_about)
		rc = compare(c, kind, &about, note);
	if (rc == 0)
		rc = check_weights(c, note);
	if (rc == 0 && c->info.n_tokens == 0) {
		rc = err_expect(
		    note, ERR_FORMAT, "%s", "at least one token", "an empty corpus", c->parts[0].file.path);
	}
	return rc;
}

/* Replaces a list of one part by that corpus. */
static void
alone(struct corpus **c)
{
	struct corpus *member = (*c)->members[0];

	(*c)->n_members = 0;
	corpus_destroy(c);
	*c = member;
}

int
corpus_open_as(struct corpus **c, const char *prefix, enum corpus_dtype stated, struct err_note *note)
{
	int rc;

	if ((*c = mem_alloc(1, sizeof(**c))) == NULL)
		return err_note_set(note, ENOMEM, "%s", prefix);
	(*c)->info.eod = -1;
	(*c)->limit = (uint32_t)INT32_MAX + 1;
	(*c)->number = CORPUS_TRAIN;
	if (((*c)->prefix = strdup(prefix)) == NULL)
		rc = err_note_set(note, ENOMEM, "%s", prefix);
	else if (corpus_is_list(prefix))
		rc = corpus__list_open(*c, prefix, stated, note);
	else
		rc = open_any(*c, prefix, stated, note);
	if (rc == 0 && (*c)->n_members == 1)
		alone(c);
	if (rc != 0)
		corpus_destroy(c);
	return rc;
}

int
corpus_remember(struct corpus *c, bool *written, struct err_note *note)
{
	char path[CORPUS__PATH_MAX + 8];
	struct hash128 fingerprint;
	int rc;

	*written = false;
	for (size_t i = 0; i < c->n_members; i++) {
		bool one;

		if ((rc = corpus_remember(c->members[i], &one, note)) != 0)
			return rc;
		*written |= one;
	}
	if (c->members != NULL)
		return 0;
	snprintf(path, sizeof(path), "%s.json", c->stem);
	if (c->info.kind != CORPUS_KIND_RAW || c->has_about || exists(path))
		return 0;
	if ((rc = corpus_fingerprint(c, &fingerprint, note)) != 0 ||
	    (rc = corpus__about_write(path, &c->info, NULL, NULL, &fingerprint, NULL, NULL, note)) != 0)
		return rc;
	*written = true;
	return 0;
}

void
corpus_destroy(struct corpus **c)
{
	if (*c == NULL)
		return;
	for (size_t i = 0; i < (*c)->n_parts; i++) {
		corpus__file_close(&(*c)->parts[i].file);
		hash_blocks_close(&(*c)->parts[i].blocks);
		free((*c)->parts[i].idx_path);
	}
	corpus__weights_destroy(&(*c)->weights);
	for (size_t i = 0; i < (*c)->n_members; i++)
		corpus_destroy(&(*c)->members[i]);
	free((*c)->members);
	free((*c)->shares);
	free((*c)->parts);
	free((*c)->stem);
	free((*c)->unknown_bytes);
	free((*c)->add_special);
	free((*c)->prefix);
	free(*c);
	*c = NULL;
}
