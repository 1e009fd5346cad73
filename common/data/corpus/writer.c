/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes a Megatron corpus. Until corpus_writer_finish all files are PREFIX.*.tmp. Then each file is synced,
 * the old index is removed, PREFIX.json, tokens and counts are renamed, the new index last, and the folder is
 * synced. A crash in between leaves PREFIX.json without PREFIX.idx, which corpus_open rejects with a message
 * that names it.
 */
#include "data/corpus/corpus_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err/crash.h"
#include "base/file/file.h"
#include "base/json/json.h"
#include "base/mem/mem.h"

#define CHUNK_TOKENS 4096u

/* In the order of renaming. */
enum { FILE_JSON, FILE_BIN, FILE_COUNTS, FILE_IDX, N_FILES };

static const char *const suffixes[N_FILES] = {".json", ".bin", ".counts.bin", ".idx"};

#define LOCK_TRIES 10

struct corpus_writer {
	struct corpus_info info;
	char *paths[N_FILES], *temps[N_FILES], *dir;
	int lock;			/* fd of the locked PREFIX.bin.tmp; bin has a duplicate of it */
	FILE *bin, *sources;		/* sources: NULL before corpus_writer_source */
	/* source: the current source file; its line in PREFIX.sources.jsonl has source_nth and source_at */
	char *sources_path, *sources_temp, *source;
	uint64_t source_nth, source_at;
	int32_t *sizes;			/* tokens of each document */
	size_t cap_sizes;
	uint64_t *counts;		/* [vocab] */
	float *weights, next_weight;	/* of each document; NULL: none was set */
	size_t cap_weights;
	char *weights_path, *weights_temp;
	const char *unknown_bytes, *add_special;	/* NULL or "": none */
	bool replace, failed, renaming, finished;
};

static int
failed(struct err_note *note, int rc, const char *step, const char *path)
{
	err_note_set(note, rc, "%s", path);
	err_note_place(note, "%s", step);
	return rc;
}

static int
make_paths(struct corpus_writer *w, const char *prefix)
{
	const char *slash = strrchr(prefix, '/');

	for (int i = 0; i < N_FILES; i++) {
		if (asprintf(&w->paths[i], "%s%s", prefix, suffixes[i]) < 0) {
			w->paths[i] = NULL;
			return ENOMEM;
		}
		if (asprintf(&w->temps[i], "%s.tmp", w->paths[i]) < 0) {
			w->temps[i] = NULL;
			return ENOMEM;
		}
	}
	if (asprintf(&w->sources_path, "%s" CORPUS__SOURCES, prefix) < 0 || asprintf(&w->sources_temp, "%s" CORPUS__SOURCES ".tmp", prefix) < 0)
		return ENOMEM;
	if (asprintf(&w->weights_path, "%s" CORPUS__WEIGHTS, prefix) < 0 || asprintf(&w->weights_temp, "%s" CORPUS__WEIGHTS ".tmp", prefix) < 0)
		return ENOMEM;
	w->dir = slash == NULL ? strdup(".") : slash == prefix ? strdup("/") : strndup(prefix, (size_t)(slash - prefix));
	return w->dir != NULL ? 0 : ENOMEM;
}

static int
check_options(const struct corpus_writer_options *o, const char *prefix, struct err_note *note)
{
	if (o->vocab >= 1 && o->vocab <= INT32_MAX && o->eod >= 0 && (uint32_t)o->eod < o->vocab)
		return 0;
	return err_expect(note, ERR_RANGE, "%s",
	    "a vocabulary of 1..%" PRId32 " and an end-of-document id below it", "%" PRIu32 " and %" PRId32,
	    prefix, INT32_MAX, o->vocab, o->eod);
}

static const char *
stated(const char *text)
{
	return text != NULL && text[0] != '\0' ? text : NULL;
}

/* Without replace there must be no corpus. A PREFIX.json that is not ours, such as the text, is never replaced. */
static int
check_new(const struct corpus_writer *w, struct err_note *note)
{
	const char *idx = w->paths[FILE_IDX], *json = w->paths[FILE_JSON];
	bool ours;
	int rc;

	if (!w->replace && (access(idx, F_OK) == 0 || access(w->paths[FILE_BIN], F_OK) == 0))
		return err_expect(note, ERR_EXISTS, "%s", "no such corpus, or --replace", "one",
		    access(idx, F_OK) == 0 ? idx : w->paths[FILE_BIN]);
	if ((rc = corpus__about_ours(json, &ours, note)) != 0 || ours || access(json, F_OK) != 0)
		return rc;
	return err_expect(note, ERR_EXISTS, "%s", "no such file, because a corpus of this name needs its name",
	    "a file that belongs to no corpus; choose another PREFIX", json);
}

/*
 * Opens and locks the temporary token file. Another writer may rename or remove it between open and flock: the lock is then one of a file that
 * has another name or none, and the file is opened again.
 */
static int
lock_temp(struct corpus_writer *w, struct err_note *note)
{
	const char *path = w->temps[FILE_BIN];
	struct stat locked, named;
	int rc = ERR_BUSY;

	for (int tries = 0; tries < LOCK_TRIES; tries++) {
		int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);

		if (fd < 0)
			return failed(note, errno, "create", path);
		if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
			rc = errno == EWOULDBLOCK ? ERR_BUSY : errno;
			close(fd);
			break;
		}
		if (fstat(fd, &locked) == 0 && stat(path, &named) == 0 && locked.st_dev == named.st_dev && locked.st_ino == named.st_ino) {
			w->lock = fd;		/* from here on this process owns the temporary files */
			return 0;
		}
		close(fd);
	}
	return failed(note, rc, "lock", path);
}

int
corpus_writer_new(struct corpus_writer **out, const char *prefix, const struct corpus_writer_options *options, struct err_note *note)
{
	struct corpus_writer *w;
	int fd, rc;

	*out = NULL;
	if (prefix[0] == '\0' ||
	    prefix[strlen(prefix) - 1] == '/') /* its files would be .bin, .idx, hidden ones */
		return err_expect(note, ERR_USAGE, "corpus \"%s\"",
		    "a prefix with a name, such as FOLDER/NAME", "no name", prefix);
	if ((rc = check_options(options, prefix, note)) != 0)
		return rc;
	if ((rc = file_make_parents(prefix, note)) != 0)
		return rc;
	if ((w = mem_alloc(1, sizeof(*w))) == NULL)
		return err_note_set(note, ENOMEM, "%s", prefix);
	w->lock = -1;
	w->replace = options->replace;
	w->unknown_bytes = options->unknown_bytes;
	w->add_special = options->add_special;
	w->info = (struct corpus_info){.kind = CORPUS_KIND_MEGATRON, .vocab = options->vocab, .eod = options->eod,
	    .has_tokenizer = options->tokenizer.hi != 0 || options->tokenizer.lo != 0, .tokenizer = options->tokenizer, .dtype = options->vocab <= 65536 ? CORPUS_DTYPE_UINT16 : CORPUS_DTYPE_INT32};
	if ((rc = make_paths(w, prefix)) != 0 || (w->counts = mem_alloc(options->vocab, sizeof(w->counts[0]))) == NULL) {
		rc = err_note_set(note, ENOMEM, "%s", prefix);
		goto out;
	}
	/* Before the lock, so that nothing is created, and after it: another writer may have finished the corpus meanwhile. */
	if ((rc = check_new(w, note)) != 0 || (rc = lock_temp(w, note)) != 0 || (rc = check_new(w, note)) != 0)
		goto out;
	if (ftruncate(w->lock, 0) != 0 || (fd = fcntl(w->lock, F_DUPFD_CLOEXEC, 0)) < 0 || (w->bin = fdopen(fd, "w")) == NULL)
		rc = failed(note, errno, "create", w->temps[FILE_BIN]);
out:
	if (rc != 0)
		corpus_writer_destroy(&w);
	*out = w;
	return rc;
}

void
corpus_writer_withdraw(struct corpus_writer *w)
{
	if (!w->replace)
		w->finished = false;
}

void
corpus_writer_destroy(struct corpus_writer **out)
{
	struct corpus_writer *w = *out;

	if (w == NULL)
		return;
	if (w->bin != NULL)
		fclose(w->bin);
	if (w->sources != NULL)
		fclose(w->sources);
	if (w->lock >= 0) {
		if (!w->finished) {
			unlink(w->sources_temp);
			unlink(w->weights_temp);
			if (w->renaming && !w->replace) {
				unlink(w->sources_path);
				unlink(w->weights_path);
			}
		}
		for (int i = N_FILES - 1; i >= 0 && !w->finished; i--) {	/* the index first */
			unlink(w->temps[i]);
			if (w->renaming && !w->replace)
				unlink(w->paths[i]);
		}
		close(w->lock);
	}
	for (int i = 0; i < N_FILES; i++) {
		free(w->paths[i]);
		free(w->temps[i]);
	}
	free(w->sources_path);
	free(w->sources_temp);
	free(w->weights_path);
	free(w->weights_temp);
	free(w->weights);
	free(w->source);
	free(w->dir);
	free(w->sizes);
	free(w->counts);
	free(w);
	*out = NULL;
}

uint64_t
corpus_writer_n_tokens(const struct corpus_writer *w)
{
	return w->info.n_tokens;
}

uint64_t
corpus_writer_n_documents(const struct corpus_writer *w)
{
	return w->info.n_documents;
}

/* Writes all bytes. A short fwrite that sets no errno is reported as ENOSPC. */
static int
put(FILE *f, const void *p, size_t bytes)
{
	errno = 0;
	return fwrite(p, 1, bytes, f) == bytes ? 0 : errno != 0 ? errno : ENOSPC;
}

static int
put_tokens(struct corpus_writer *w, const int32_t *ids, size_t n)
{
	uint16_t narrow[CHUNK_TOKENS];
	int rc = 0;

	if (w->info.dtype == CORPUS_DTYPE_INT32)
		return put(w->bin, ids, 4 * n);
	while (n > 0 && rc == 0) {
		size_t take = n < CHUNK_TOKENS ? n : CHUNK_TOKENS;

		for (size_t i = 0; i < take; i++)
			narrow[i] = (uint16_t)ids[i];
		rc = put(w->bin, narrow, 2 * take);
		ids += take;
		n -= take;
	}
	return rc;
}

int
corpus_writer_document(struct corpus_writer *w, const int32_t *ids, size_t n, uint64_t n_bytes, struct err_note *note)
{
	int rc;

	if (w->failed || w->finished)
		return err_note_set(note, ERR_CLOSED, "%s", w->paths[FILE_BIN]);
	if (n == 0)
		return 0;
	w->failed = true;		/* until the whole document is written */
	if (n > INT32_MAX - 1)
		return err_expect_at(note, ERR_RANGE, "%s", "document %" PRIu64, "at most %d tokens", "%zu",
		    w->paths[FILE_BIN], w->info.n_documents, INT32_MAX - 1, n);
	for (size_t i = 0; i < n; i++)
		if (ids[i] < 0 || (uint32_t)ids[i] >= w->info.vocab)
			return err_expect_at(note, ERR_RANGE, "%s", "document %" PRIu64 ", position %zu",
			    "an id below the vocabulary of %" PRIu32, "%" PRId32, w->paths[FILE_BIN],
			    w->info.n_documents, i, w->info.vocab, ids[i]);
	if ((rc = mem_grow((void **)&w->sizes, &w->cap_sizes, w->info.n_documents + 1, sizeof(w->sizes[0]))) != 0 || (w->weights != NULL &&
	    (rc = mem_grow((void **)&w->weights, &w->cap_weights, w->info.n_documents + 1, sizeof(w->weights[0]))) != 0))
		return err_note_set(note, rc, "%s", w->paths[FILE_BIN]);
	if ((rc = put_tokens(w, ids, n)) != 0 || (rc = put_tokens(w, &w->info.eod, 1)) != 0)
		return failed(note, rc, "write", w->temps[FILE_BIN]);
	for (size_t i = 0; i < n; i++)
		w->counts[ids[i]]++;
	w->counts[w->info.eod]++;
	if (w->weights != NULL) {
		w->weights[w->info.n_documents] = w->next_weight;
		w->next_weight = 1;
	}
	w->sizes[w->info.n_documents++] = (int32_t)(n + 1);
	w->info.n_tokens += n + 1;
	w->info.n_bytes += n_bytes;
	w->failed = false;
	return 0;
}

int
corpus_writer_source(struct corpus_writer *w, const char *file, uint64_t nth, struct err_note *note)
{
	struct json *line;
	char *text;
	int rc = 0;

	if (w->source != NULL && strcmp(w->source, file) == 0 &&
	    (nth == UINT64_MAX || nth - w->source_nth == w->info.n_documents - w->source_at))
		return 0;
	w->source_nth = nth;
	w->source_at = w->info.n_documents;
	free(w->source);
	if ((w->source = strdup(file)) == NULL)
		return err_note_set(note, ENOMEM, "%s", file);
	if (w->sources == NULL) {
		if ((w->sources = fopen(w->sources_temp, "we")) == NULL)
			return failed(note, errno, "create", w->sources_temp);
		rc = put(w->sources, CORPUS__SOURCES_HEAD, strlen(CORPUS__SOURCES_HEAD));
	}
	line = json_build("{s:I, s:o, s:o*}", "document", (long long)w->info.n_documents, "file", json_new_text(file), "first",
	    nth != UINT64_MAX ? json_new_int((int64_t)nth) : NULL);
	if ((text = json_print(line, false)) == NULL)
		rc = ENOMEM;
	if (rc == 0 && (rc = put(w->sources, text, strlen(text))) == 0)
		rc = put(w->sources, "\n", 1);
	json_close(&line);
	free(text);
	return rc == 0 ? 0 : failed(note, rc, "write", w->sources_temp);
}

int
corpus_writer_weight(struct corpus_writer *w, float weight, struct err_note *note)
{
	if (!corpus_weight_valid((double)weight))
		return err_expect_at(note, ERR_RANGE, "%s", "document %" PRIu64, CORPUS_WEIGHT_RANGE, "%g", w->weights_path, w->info.n_documents,
		    (double)weight);
	if (w->weights == NULL) {
		if (mem_grow((void **)&w->weights, &w->cap_weights, w->info.n_documents + 1, sizeof(w->weights[0])) != 0)
			return err_note_set(note, ENOMEM, "%s", w->weights_path);
		for (uint64_t i = 0; i < w->info.n_documents; i++)
			w->weights[i] = 1;
	}
	w->next_weight = weight;
	return 0;
}

static int
sync_and_close(FILE *f)
{
	int rc = fflush(f) != 0 || fsync(fileno(f)) != 0 ? errno : 0;

	return fclose(f) != 0 && rc == 0 ? errno : rc;
}

/* The last line has the number of documents; by it corpus_source detects a side file of another build. */
static int
finish_sources(struct corpus_writer *w, struct err_note *note)
{
	int rc;

	if (w->sources == NULL)
		return 0;
	rc = fprintf(w->sources, "{\"document\": %" PRIu64 "}\n", w->info.n_documents) < 0 ? errno : 0;
	if (rc == 0)
		rc = sync_and_close(w->sources);
	else
		fclose(w->sources);
	w->sources = NULL;
	return rc == 0 ? 0 : failed(note, rc, "write", w->sources_temp);
}

/* Renames an optional side file, or removes the old one if the new corpus has none (`there` false). */
static int
rename_side(bool there, const char *temp, const char *path, struct err_note *note)
{
	if (!there)
		return unlink(path) == 0 || errno == ENOENT ? 0 : failed(note, errno, "remove", path);
	return rename(temp, path) == 0 ? 0 : failed(note, errno, "rename", temp);
}

static int
write_weights(const struct corpus_writer *w, struct hash128 *hash, struct err_note *note)
{
	size_t bytes = CORPUS__WEIGHTS_HEADER + 4 * (size_t)w->info.n_documents;
	uint8_t *p = mem_alloc(bytes, 1);
	int rc;

	if (p == NULL)
		return err_note_set(note, ENOMEM, "%s", w->weights_temp);
	memcpy(p, CORPUS__WEIGHTS_MAGIC, 8);
	memcpy(p + 8, &w->info.n_documents, 8);
	memcpy(p + CORPUS__WEIGHTS_HEADER, w->weights, 4 * (size_t)w->info.n_documents);
	*hash = hash_bytes(p, bytes);
	rc = file_replace_all(w->weights_temp, p, bytes, true, note);
	free(p);
	return rc;
}

static int
write_counts(const struct corpus_writer *w, struct hash128 *hash, struct err_note *note)
{
	size_t bytes = CORPUS__COUNTS_HEADER + 8 * (size_t)w->info.vocab;
	uint8_t *p = mem_alloc(bytes, 1);
	int rc;

	if (p == NULL)
		return err_note_set(note, ENOMEM, "%s", w->temps[FILE_COUNTS]);
	memcpy(p, CORPUS__COUNTS_MAGIC, 8);
	memcpy(p + 8, &w->info.vocab, 4);
	for (uint32_t v = 0; v < w->info.vocab; v++) {
		uint64_t smoothed = w->counts[v] + 1;

		memcpy(p + CORPUS__COUNTS_HEADER + 8 * (size_t)v, &smoothed, 8);
	}
	*hash = hash_bytes(p, bytes);
	rc = file_replace_all(w->temps[FILE_COUNTS], p, bytes, true, note);
	free(p);
	return rc;
}

static int
write_idx(const struct corpus_writer *w, struct err_note *note)
{
	uint64_t n = w->info.n_documents, m = n + 1, version = 1, token_bytes = corpus__token_bytes(w->info.dtype);
	uint8_t header[CORPUS__IDX_HEADER], dtype = (uint8_t)w->info.dtype;
	FILE *f = fopen(w->temps[FILE_IDX], "we");
	uint64_t at = 0;
	int rc;

	if (f == NULL)
		return failed(note, errno, "create", w->temps[FILE_IDX]);
	memcpy(header, CORPUS__IDX_MAGIC, CORPUS__IDX_MAGIC_BYTES);
	memcpy(header + 9, &version, 8);
	header[17] = dtype;
	memcpy(header + 18, &n, 8);
	memcpy(header + 26, &m, 8);
	rc = put(f, header, sizeof(header));
	if (rc == 0)
		rc = put(f, w->sizes, 4 * n);
	for (uint64_t i = 0; i < n && rc == 0; at += (uint64_t)w->sizes[i++] * token_bytes)
		rc = put(f, &at, 8);
	for (uint64_t i = 0; i < m && rc == 0; i++)
		rc = put(f, &i, 8);
	if (rc != 0)
		fclose(f);
	else
		rc = sync_and_close(f);
	return rc == 0 ? 0 : failed(note, rc, "write", w->temps[FILE_IDX]);
}

int
corpus_writer_finish(struct corpus_writer *w, const struct hash128 *source, struct err_note *note)
{
	static const char *const points[N_FILES] = {"corpus.renamed_json", "corpus.renamed_bin", "corpus.renamed_counts", "corpus.renamed_idx"};
	struct hash128 fingerprint, counts, weights, bin, idx;
	int rc;

	if (w->failed || w->finished)
		return err_note_set(note, ERR_CLOSED, "%s", w->paths[FILE_BIN]);
	w->failed = true;
	if (w->info.n_documents == 0)
		return err_expect(note, ERR_FORMAT, "%s", "at least one document with a token", "none",
		    w->paths[FILE_BIN]);
	if (source != NULL) {
		w->info.has_source = true;
		w->info.source = *source;
	}
	rc = sync_and_close(w->bin);
	w->bin = NULL;
	if (rc != 0)
		return failed(note, rc, "write", w->temps[FILE_BIN]);
	if ((rc = finish_sources(w, note)) != 0 || (rc = write_counts(w, &counts, note)) != 0 || (rc = write_idx(w, note)) != 0 ||
	    (w->weights != NULL && (rc = write_weights(w, &weights, note)) != 0))
		return rc;
	if ((rc = hash_file(w->temps[FILE_IDX], &idx, note)) != 0 || (rc = hash_file(w->temps[FILE_BIN], &bin, note)) != 0 ||
	    (rc = corpus__identity(CORPUS_KIND_MEGATRON, w->info.dtype, &idx, &bin, 1, &fingerprint, note)) != 0)
		return rc;
	if ((rc = corpus__about_write(w->temps[FILE_JSON], &w->info, stated(w->unknown_bytes),
		 stated(w->add_special), &fingerprint, &counts, w->weights != NULL ? &weights : NULL,
		 note)) != 0)
		return rc;
	crash_point("corpus.written");
	/* An old index must never be read together with new tokens. */
	if (w->replace && unlink(w->paths[FILE_IDX]) == 0) {
		if ((rc = file_sync_dir(w->dir, note)) != 0)
			return rc;
	} else if (w->replace && errno != ENOENT) {
		return failed(note, errno, "remove", w->paths[FILE_IDX]);
	}
	crash_point("corpus.unlinked_idx");
	w->renaming = true;
	if ((rc = rename_side(w->source != NULL, w->sources_temp, w->sources_path, note)) != 0 ||
	    (rc = rename_side(w->weights != NULL, w->weights_temp, w->weights_path, note)) != 0)
		return rc;
	for (int i = 0; i < N_FILES; i++) {
		if (i == FILE_IDX && (rc = file_sync_dir(w->dir, note)) != 0)
			return rc;
		if (rename(w->temps[i], w->paths[i]) != 0)
			return failed(note, errno, "rename", w->temps[i]);
		crash_point(points[i]);
	}
	if ((rc = file_sync_dir(w->dir, note)) != 0)
		return rc;
	w->failed = false;
	w->finished = true;
	return 0;
}
