/* SPDX-License-Identifier: Apache-2.0 */
/* PREFIX.json: properties of the corpus that the token files do not contain. */
#include "data/corpus/corpus_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file/file.h"
#include "base/json/json.h"

static const struct {
	enum corpus_kind kind;
	const char *name;
} kinds[] = {{CORPUS_KIND_MEGATRON, "megatron"}, {CORPUS_KIND_LLMC, "llmc"}, {CORPUS_KIND_RAW, "raw"},
    {CORPUS_KIND_NPY, "npy"}};

static const struct {
	enum corpus_dtype dtype;
	const char *name;
	unsigned bytes;
} dtypes[] = {{CORPUS_DTYPE_UINT16, "uint16", 2}, {CORPUS_DTYPE_INT32, "int32", 4}, {CORPUS_DTYPE_UINT32, "uint32", 4},
    {CORPUS_DTYPE_INT64, "int64", 8}, {CORPUS_DTYPE_UINT64, "uint64", 8}};

const char *
corpus_kind_name(enum corpus_kind kind)
{
	if (kind == CORPUS_KIND_BLEND)
		return "blend";
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (kinds[i].kind == kind)
			return kinds[i].name;
	return "?";
}

const char *
corpus_dtype_name(enum corpus_dtype dtype)
{
	for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++)
		if (dtypes[i].dtype == dtype)
			return dtypes[i].name;
	return "?";
}

unsigned
corpus__token_bytes(enum corpus_dtype dtype)
{
	for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++)
		if (dtypes[i].dtype == dtype)
			return dtypes[i].bytes;
	return 0;
}

static int
wrong(struct err_note *note, const char *path, const char *member, const char *expected, const struct json *found)
{
	return err_expect_at(note, ERR_FORMAT, "%s", "%s", "%s", "%s", path, member, expected,
	    found == NULL ? "nothing" : json_kind_name(json_kind(found)));
}

/* Reads an integer lo..hi; leaves *out unchanged if the member is absent. */
static int
get_int(const struct json *root, const char *path, const char *member, int64_t lo, int64_t hi, int64_t *out, struct err_note *note)
{
	struct json *j = json_get(root, member);
	int64_t v;

	if (j == NULL)
		return 0;
	if (!json_int(j, &v))
		return wrong(note, path, member, "an integer", j);
	if (v < lo || v > hi) {
		wrong(note, path, member, "", j);
		return err_expect(note, ERR_FORMAT, "", "%" PRId64 "..%" PRId64, "%" PRId64, lo, hi, v);
	}
	*out = v;
	return 0;
}

static int
get_hash(const struct json *root, const char *path, const char *member, bool *has, struct hash128 *out, struct err_note *note)
{
	struct json *j = json_get(root, member);
	const char *hex;

	*has = false;
	if (j == NULL)
		return 0;
	if (!json_text(j, &hex) || strlen(hex) != HASH_HEX_BYTES - 1 || hash_from_hex(out, hex) != 0)
		return wrong(note, path, member, "32 hex digits", j);
	*has = true;
	return 0;
}

/* Copies a text; *out stays NULL if the member is absent. */
static int
get_text(const struct json *root, const char *path, const char *member, char **out, struct err_note *note)
{
	struct json *j = json_get(root, member);
	const char *text;

	free(*out);
	*out = NULL;
	if (j == NULL)
		return 0;
	if (!json_text(j, &text))
		return wrong(note, path, member, "a text", j);
	return (*out = strdup(text)) != NULL ? 0 : err_note_set(note, ENOMEM, "%s", path);
}

/*
 * Our files have the format's name and the number of tokens near the beginning. One of them is enough, so
 * that a file with one damaged byte is still recognised. Other JSON (for instance the corpus's text) has
 * neither.
 */
int
corpus__about_ours(const char *path, bool *ours, struct err_note *note)
{
	static const char *const marks[] = {"\"" CORPUS__FORMAT "\"", "\"n_tokens\":"};
	char head[512];
	int fd, rc = 0;
	ssize_t n;

	*ours = false;
	if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : err_note_set(note, errno, "%s", path);
	if ((n = pread(fd, head, sizeof(head), 0)) < 0)
		rc = err_note_set(note, errno, "%s", path);
	close(fd);
	for (size_t i = 0; n > 0 && i < sizeof(marks) / sizeof(marks[0]); i++)
		*ours |= memmem(head, (size_t)n, marks[i], strlen(marks[i])) != NULL;
	return rc;
}

#define CHECK_MEMBER ",\n  \"check\": \""

/* Checks the hash at the end of a version 2 file, which covers the text before it. */
static int
verify(const char *path, const char *text, size_t len, struct err_note *note)
{
	const size_t tail = sizeof(CHECK_MEMBER) - 1 + 32 + sizeof("\"\n}\n") - 1;
	char hex[HASH_HEX_BYTES] = "", now[HASH_HEX_BYTES];
	const char *at = text + len - tail;

	if (len < tail || memcmp(at, CHECK_MEMBER, sizeof(CHECK_MEMBER) - 1) != 0 || strcmp(text + len - 4, "\"\n}\n") != 0)
		return err_expect_at(note, ERR_CORRUPT, "%s", "check", "a hash as the last member (version 2)", "none: the file was damaged or edited; "
		    "restore it, or make it \"version\": 1, which has none", path);
	memcpy(hex, at + sizeof(CHECK_MEMBER) - 1, 32);
	if (strcmp(hash_hex(hash_bytes(text, len - tail), now), hex) != 0)
		return err_expect_at(note, ERR_CORRUPT, "%s", "check", "%s, the hash of the text before", "%s: the file was damaged or edited; "
		    "restore it, or make it \"version\": 1 without this member", path, now, hex);
	return 0;
}

int
corpus__about_read(struct corpus *c, enum corpus_kind *kind, struct corpus_info *about, struct err_note *note)
{
	int64_t version = 0, n_tokens = 0, n_documents = 0, n_bytes = 0, vocab = 0, eod = -1;
	char path[CORPUS__PATH_MAX + 8];
	struct json *root = NULL;
	const char *text;
	char *bytes = NULL;
	size_t i, len;
	int rc;

	memset(about, 0, sizeof(*about));
	about->eod = -1;
	snprintf(path, sizeof(path), "%s.json", c->stem);
	if ((rc = corpus__about_ours(path, &c->has_about, note)) != 0 || !c->has_about)
		return rc;
	if ((rc = file_read(path, CORPUS__ABOUT_MAX, &bytes, &len, note)) != 0 || (rc = json_parse(bytes, len, path, &root, note)) != 0 ||
	    (rc = get_int(root, path, "version", 1, INT32_MAX, &version, note)) != 0)
		goto out;
	if (version < 1 || version > 2) {
		rc = ERR_VERSION;
		wrong(note, path, "version", "1 or 2", NULL);
		err_note_found(note, "%" PRId64, version);
		goto out;
	}
	if (version == 2 && (rc = verify(path, bytes, len, note)) != 0)
		goto out;
	if (!json_text(json_get(root, "format"), &text) || strcmp(text, CORPUS__FORMAT) != 0) {
		rc = wrong(note, path, "format", "\"" CORPUS__FORMAT "\"", json_get(root, "format"));
		goto out;
	}
	if (!json_text(json_get(root, "kind"), &text))
		text = "";
	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]) && strcmp(kinds[i].name, text) != 0;)
		i++;
	if (i == sizeof(kinds) / sizeof(kinds[0])) {
		rc = wrong(note, path, "kind", "megatron, llmc, raw or npy", json_get(root, "kind"));
		goto out;
	}
	*kind = kinds[i].kind;
	if (!json_text(json_get(root, "dtype"), &text))
		text = "";
	for (i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]) && strcmp(dtypes[i].name, text) != 0;)
		i++;
	if (i == sizeof(dtypes) / sizeof(dtypes[0])) {
		rc = wrong(note, path, "dtype", "uint16, int32, uint32, int64 or uint64", json_get(root, "dtype"));
		goto out;
	}
	about->kind = *kind;
	about->dtype = dtypes[i].dtype;
	if ((rc = get_int(root, path, "n_tokens", 1, INT64_MAX, &n_tokens, note)) != 0 ||
	    (rc = get_int(root, path, "n_documents", 0, INT64_MAX, &n_documents, note)) != 0 ||
	    (rc = get_int(root, path, "n_bytes", 0, INT64_MAX, &n_bytes, note)) != 0 ||
	    (rc = get_int(root, path, "vocab", 1, INT32_MAX, &vocab, note)) != 0 ||
	    (rc = get_int(root, path, "eod", 0, INT32_MAX, &eod, note)) != 0 ||
	    (rc = get_text(root, path, "unknown_bytes", &c->unknown_bytes, note)) != 0 ||
	    (rc = get_text(root, path, "add_special", &c->add_special, note)) != 0 ||
	    (rc = get_hash(root, path, "tokenizer", &about->has_tokenizer, &about->tokenizer, note)) != 0 ||
	    (rc = get_hash(root, path, "source", &about->has_source, &about->source, note)) != 0 ||
	    (rc = get_hash(root, path, "counts", &about->has_counts, &c->counts, note)) != 0 ||
	    (rc = get_hash(root, path, "weights", &about->has_weights, &c->weights_hash, note)) != 0 ||
	    (rc = get_hash(root, path, "fingerprint", &c->has_recorded, &c->recorded, note)) != 0)
		goto out;
	if (n_tokens == 0) {
		rc = wrong(note, path, "n_tokens", "an integer", NULL);
		goto out;
	}
	if (vocab != 0 && eod >= vocab) {
		rc = wrong(note, path, "eod", "an id below the vocabulary", NULL);
		err_note_found(note, "%" PRId64, eod);
		goto out;
	}
	about->n_tokens = (uint64_t)n_tokens;
	about->n_documents = (uint64_t)n_documents;
	about->n_bytes = (uint64_t)n_bytes;
	about->vocab = (uint32_t)vocab;
	about->eod = (int32_t)eod;
out:
	json_close(&root);
	free(bytes);
	return rc;
}

/* The hash as JSON text; NULL for h NULL, which json_build leaves out. */
static struct json *
hash_text(const struct hash128 *h)
{
	char hex[HASH_HEX_BYTES];

	return h == NULL ? NULL : json_new_text(hash_hex(*h, hex));
}

int
corpus__about_write(const char *path, const struct corpus_info *info, const char *unknown_bytes, const char *add_special,
    const struct hash128 *fingerprint, const struct hash128 *counts, const struct hash128 *weights, struct err_note *note)
{
	struct json *o = json_build("{s:s, s:i, s:s, s:s, s:I, s:I, s:I, s:o*, s:o*, s:s*, s:s*, s:o*, s:o*, s:o*, s:o*, s:o*}", "format", CORPUS__FORMAT,
	    "version", 2, "kind", corpus_kind_name(info->kind), "dtype", corpus_dtype_name(info->dtype),
	    "n_tokens", (int64_t)info->n_tokens, "n_documents", (int64_t)info->n_documents, "n_bytes", (int64_t)info->n_bytes,
	    "vocab", info->vocab > 0 ? json_new_int(info->vocab) : NULL, "eod", info->eod >= 0 ? json_new_int(info->eod) : NULL,
	    "unknown_bytes", unknown_bytes, "add_special", add_special,
	    "tokenizer", hash_text(info->has_tokenizer ? &info->tokenizer : NULL),
	    "source", hash_text(info->has_source ? &info->source : NULL),
	    "fingerprint", hash_text(fingerprint), "counts", hash_text(counts), "weights", hash_text(weights));
	/* json_build also leaves out a value for which there was no memory; the count of members shows it. */
	size_t members = 7 + (info->vocab > 0) + (info->eod >= 0) + (unknown_bytes != NULL) + (add_special != NULL) + info->has_tokenizer + info->has_source +
	    (fingerprint != NULL) + (counts != NULL) + (weights != NULL);
	char *text = json_count(o) == members ? json_print(o, true) : NULL, *whole = NULL, hex[HASH_HEX_BYTES];
	int n = text != NULL ? (int)strlen(text) - 3 : 0, rc;		/* without "\n}\n" */

	if (n <= 0 || asprintf(&whole, "%.*s" CHECK_MEMBER "%s\"\n}\n", n, text, hash_hex(hash_bytes(text, (size_t)n), hex)) < 0)
		rc = err_note_set(note, ENOMEM, "%s", path);
	else
		rc = file_replace_all(path, whole, strlen(whole), true, note);
	free(whole);
	free(text);
	json_close(&o);
	return rc;
}
