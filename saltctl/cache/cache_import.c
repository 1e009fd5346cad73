/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache import: reads the output of cache export into a cache of the same identity. The input is not trusted:
 * the size and hash of files, the dtype and shape of tensors, and all numbers are checked, the numbers by the
 * encoder that makes records from them; if the corpus is given, the tokens too. Existing records are not
 * replaced.
 */
#include "saltctl/cache/cache.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "fabric/config/config.h"
#include "saltctl/core/output.h"
#include "base/file/file.h"
#include "base/json/json.h"
#include "base/mem/mem.h"
#include "engine/weights/weights.h"

#define MANIFEST_MAX_BYTES ((size_t)256 << 20)
#define IDENTITIES_MAX (64 + BLEND_PARTS_MAX)

static const struct cli_option options[] = {
	CTL_CACHE, CTL_CORPORA, CTL_JSON, CTL_END
};

struct importer {
	struct cache_job *job;
	const struct cache_corpora *corpora;
	struct cache_id id;			/* of the export */
	char dir[CACHE_DIR_BYTES];		/* of the export */
	struct json *manifest;
	struct cache_batch batch;		/* with the cache that is written */
	uint64_t n_new, n_there, n_differ;
	struct labels_buf buf;
	int32_t *n_unique, *ids, *counts, *tokens;
	float *log_p, *loss;
	int32_t *rank;
	uint8_t *score;
	struct cache_row *rows;
	size_t rows_cap;
	struct err_note *note;			/* of the job */
};

static int
bad(struct importer *m, const char *file, const char *what, const char *expected)
{
	return err_expect_at(m->note, ERR_FORMAT, "%s/%s", "%s", "%s", "", m->dir, file, what, expected);
}

/* Size and hash of a whole file, to compare with the manifest. */
static int
hash_of(const char *path, uint64_t *n_bytes, struct hash128 *out)
{
	struct hash_state *h = hash_new();
	uint8_t *buf = ctl_alloc(1 << 20, 1);
	FILE *in = fopen(path, "rbe");
	int rc = in == NULL ? errno : h == NULL ? ENOMEM : 0;
	size_t n;

	*n_bytes = 0;
	while (rc == 0 && (n = fread(buf, 1, 1 << 20, in)) > 0) {
		hash_update(h, buf, n);
		*n_bytes += n;
	}
	if (rc == 0 && ferror(in))
		rc = EIO;
	if (rc == 0)
		*out = hash_digest(h);
	if (in != NULL)
		fclose(in);
	free(buf);
	hash_destroy(&h);
	return rc;
}

static int
check_file(struct importer *m, const struct json *o, const char **name, char path[CACHE_DIR_BYTES + 300])
{
	struct hash128 want = {0, 0}, got;
	const char *text = ctl_text_of(o, "hash", NULL);
	int64_t size = ctl_int_of(o, "bytes", -1);
	uint64_t bytes;
	int rc;

	*name = ctl_text_of(o, "file", "");
	if ((*name)[0] == '\0' || (*name)[0] == '.' || strchr(*name, '/') != NULL || strlen(*name) > 255)
		return bad(m, "manifest.json", "file", "the name of a file in the same folder");
	if (size < 0 || (json_get(o, "hash") != NULL && (text == NULL || hash_from_hex(&want, text) != 0)))
		return bad(m, "manifest.json", *name, "its bytes, and its hash if that is known");
	snprintf(path, CACHE_DIR_BYTES + 300, "%s/%s", m->dir, *name);
	if ((rc = hash_of(path, &bytes, &got)) != 0)
		return err_note_set(m->note, rc, "%s", path);
	if (bytes == (uint64_t)size && (text == NULL || hash_equal(want, got)))
		return 0;
	return err_expect(m->note, ERR_CORRUPT, "%s", "%" PRId64 " bytes with hash %s, as in manifest.json",
	    "%" PRIu64 " bytes with hash %s", path, size, text != NULL ? text : "of any kind", bytes, cache_hex(got));
}

static uint64_t
value(const struct weights_tensor *t, uint64_t i)
{
	size_t width = weights_dtype_bytes(t->dtype);
	const unsigned char *p = t->data + i * width;
	uint64_t v = 0;

	for (size_t b = 0; b < width; b++)
		v |= (uint64_t)p[b] << 8 * b;
	return v;
}

/* Whether t has the expected dtype and shape for *n records; the first tensor sets *n. */
static bool
tensor_good(const struct weights_tensor *t, const struct export_tensor *want, uint64_t L, bool first, uint64_t *n)
{
	size_t entries;

	if (t == NULL || t->dtype != (enum weights_dtype)want->dtype || t->n_dims != 1 + want->n_dims)
		return false;
	for (unsigned d = 0; d < want->n_dims; d++)
		if (t->shape[1 + d] != want->dims[d])
			return false;
	if (first)
		*n = t->shape[0];
	if (strcmp(want->name, "row_offsets") == 0)
		return mem_mul((size_t)*n, L, &entries) && t->shape[0] == entries + 1;
	return want->flat || t->shape[0] == *n;
}

/* Finds the tensors of a file in the order of export_tensors and checks their dtypes and shapes. */
static int
shard_tensors(struct importer *m, enum export_part part, const struct weights *w, const char *file,
    const struct weights_tensor **out, uint64_t *n)
{
	const struct labels_spec *spec = &m->id.labels.spec;
	struct export_tensor want[EXPORT_TENSORS_MAX];
	size_t n_want = export_tensors(part, spec, want);
	const struct weights_tensor *offsets;
	uint64_t flat;

	for (size_t i = 0; i < n_want; i++) {
		const struct weights_tensor *t = out[i] = weights_find(w, want[i].name);

		if (!tensor_good(t, &want[i], spec->context, i == 0, n))
			return err_expect_at(m->note, ERR_FORMAT, "%s/%s", "tensor %s",
			    "%s, in the shape that docs/formats.md gives",
			    "%s with %u dimensions, the first %" PRIu64, m->dir, file, want[i].name,
			    weights_dtype_name((enum weights_dtype)want[i].dtype),
			    t != NULL ? weights_dtype_name(t->dtype) : "none", t != NULL ? t->n_dims : 0,
			    t != NULL && t->n_dims > 0 ? t->shape[0] : 0);
	}
	if (part == EXPORT_LABELS && spec->kind == LABELS_KIND_SAMPLED) {
		offsets = out[2];
		flat = weights_find(w, "ids")->shape[0];
		if (weights_find(w, "counts")->shape[0] != flat ||
		    value(offsets, *n * spec->context) != flat || value(offsets, 0) != 0)
			return bad(m, file, "row_offsets", "from 0 to the number of ids and counts");
	}
	return 0;
}

static int
check_seq(struct importer *m, const char *file, uint64_t i, uint64_t seq, uint32_t corpus_no)
{
	uint64_t limit = corpus_no == CORPUS_TRAIN ? m->id.windows : UINT64_C(1) << 48;

	if (CORPUS_SEQ_NO(seq) == corpus_no && CORPUS_SEQ_INDEX(seq) < limit)
		return 0;
	return err_expect_at(m->note, ERR_RANGE, "%s/%s", "seq[%" PRIu64 "]",
	    "corpus %" PRIu32 ", sequence below %" PRIu64,
	    "corpus %" PRIu32 ", sequence %" PRIu64, m->dir, file, i, corpus_no, limit, CORPUS_SEQ_NO(seq),
	    CORPUS_SEQ_INDEX(seq));
}

static int
stored(struct importer *m, int rc, bool differs)
{
	m->n_new += rc == 0;
	m->n_there += rc == ERR_EXISTS && !differs;
	m->n_differ += rc == ERR_EXISTS && differs;
	return rc == ERR_EXISTS ? 0 : rc;
}

static int
encode_sampled(struct importer *m, const struct weights *w, const struct weights_tensor *offsets, uint64_t i,
    struct hash128 tokens)
{
	const struct labels_spec *spec = &m->id.labels.spec;
	const struct weights_tensor *ids = weights_find(w, "ids"), *counts = weights_find(w, "counts");

	for (uint64_t r = 0; r < spec->context; r++) {
		uint64_t at = i * spec->context + r, from = value(offsets, at), to = value(offsets, at + 1);

		if (to < from || to > ids->shape[0] || to - from > spec->n_samples)
			return err_expect(m->note, ERR_RANGE, "row_offsets[%" PRIu64 "]",
			    "at most %" PRIu32 " above the one before, at most %" PRIu64,
			    "%" PRIu64 " after %" PRIu64, at + 1, spec->n_samples, ids->shape[0], to, from);
		m->n_unique[r] = (int32_t)(to - from);
		for (uint64_t j = from; j < to; j++) {
			m->ids[r * spec->n_samples + (j - from)] = (int32_t)(uint32_t)value(ids, j);
			m->counts[r * spec->n_samples + (j - from)] = (int32_t)(uint32_t)value(counts, j);
		}
	}
	return labels_encode_sampled(spec, tokens, m->n_unique, m->ids, m->counts, &m->buf, m->note);
}

static float
log_p_of(const struct weights_tensor *codes, uint64_t i)
{
	uint64_t code = value(codes, i);

	return code == 65535 ? -INFINITY : -(float)code / 2048;
}

/* Sorts the entries of each label row, the most probable first, as the encoder requires. */
static int
encode_topk(struct importer *m, const struct weights_tensor **t, uint64_t i, struct hash128 tokens)
{
	const struct labels_spec *spec = &m->id.labels.spec;

	for (uint64_t r = 0; r < spec->context; r++) {
		int32_t *id = m->ids + r * spec->k;
		float *p = m->log_p + r * spec->k;

		for (uint32_t j = 0, k; j < spec->k; j++) {
			uint64_t at = (i * spec->context + r) * spec->k + j;
			int32_t v = (int32_t)(uint32_t)value(t[2], at);
			float log_p = log_p_of(t[3], at);

			for (k = j; k > 0 && (p[k - 1] < log_p || (p[k - 1] == log_p && id[k - 1] > v)); k--) {
				p[k] = p[k - 1];
				id[k] = id[k - 1];
			}
			p[k] = log_p;
			id[k] = v;
		}
	}
	return labels_encode_topk(spec, tokens, m->ids, m->log_p, &m->buf, m->note);
}

/* Encodes record i of a file into m->buf. */
static int
encode(struct importer *m, const struct weights *w, const struct weights_tensor **t, uint64_t i, struct hash128 tokens)
{
	const struct labels_spec *spec = &m->id.labels.spec;
	uint64_t n = (uint64_t)spec->context * spec->vocab;

	if (spec->kind == LABELS_KIND_SAMPLED)
		return encode_sampled(m, w, t[2], i, tokens);
	if (spec->kind == LABELS_KIND_TOPK)
		return encode_topk(m, t, i, tokens);
	for (uint64_t j = 0; j < n; j++)
		m->log_p[j] = log_p_of(t[2], i * n + j);
	return labels_encode_dense(spec, tokens, m->log_p, &m->buf, m->note);
}

static int
import_labels(struct importer *m, const struct weights *w, const struct weights_tensor **t, const char *file,
    uint64_t n)
{
	struct hash128 tokens, ours;
	int rc = 0;

	for (uint64_t i = 0; rc == 0 && i < n; i++) {
		uint64_t seq = value(t[0], i);
		bool differs = false;

		tokens = (struct hash128){value(t[1], 2 * i), value(t[1], 2 * i + 1)};
		if ((rc = check_seq(m, file, i, seq, CORPUS_TRAIN)) != 0)
			return rc;
		if (m->corpora->train != NULL) {
			if ((rc = cache_tokens_of(m->corpora, seq, m->id.labels.spec.context, m->tokens,
			    &ours, m->note)) != 0)
				return rc;
			if (!hash_equal(ours, tokens))
				return err_expect_at(m->note, ERR_MISMATCH, "%s/%s",
				    "token_hash[%" PRIu64 "], sequence %" PRIu64,
				    "%s, the corpus's", "%s", m->dir, file, i, CORPUS_SEQ_INDEX(seq),
				    cache_hex(ours), cache_hex(tokens));
		}
		if ((rc = encode(m, w, t, i, tokens)) != 0)
			return err_expect_at(m->note, rc, "%s/%s", "sequence %" PRIu64 ", %.100s %.180s",
			    "%s", "%s", m->dir, file, CORPUS_SEQ_INDEX(seq), m->note->name, m->note->place,
			    m->note->expected, m->note->found);
		if ((rc = cache_batch_step(&m->batch)) == 0)
			rc = stored(m, cache_write_labels(m->batch.c, seq, m->buf.bytes, m->buf.len,
			    &differs), differs);
	}
	return rc;
}

static int
import_scores(struct importer *m, enum export_part part, const struct weights_tensor **t, const char *file, uint64_t n)
{
	uint32_t L = m->id.labels.spec.context;
	bool heldout = part == EXPORT_HELDOUT;
	int rc = 0;

	for (uint64_t i = 0; rc == 0 && i < n; i++) {
		uint64_t seq = value(t[0], i);
		bool differs = false;

		if ((rc = check_seq(m, file, i, seq, heldout ? CORPUS_HELDOUT : CORPUS_TRAIN)) != 0)
			return rc;
		for (uint32_t j = 0; j < L; j++) {
			m->loss[j] = (float)value(t[1], i * L + j) / 2048;
			m->rank[j] = (int32_t)value(t[2], i * L + j);
		}
		if ((rc = labels_scores_encode(m->loss, m->rank, L, m->score, m->note)) == 0 &&
		    (rc = cache_batch_step(&m->batch)) == 0)
			rc = stored(m, cache_write_scores(m->batch.c, heldout ? CACHE_SCORES_TEACHER :
			    CACHE_SCORES_SCORER, seq, m->score, (size_t)L * LABELS_SCORE_BYTES, &differs),
			    differs);
	}
	return rc;
}

/* Reads row i of a file into m->rows[j]. */
static int
read_row(struct importer *m, const struct weights_tensor **t, const char *file, uint64_t i, size_t j)
{
	uint32_t bits = (uint32_t)value(t[4], i);
	struct cache_row *row;
	char place[64];
	int rc;

	ctl_grow((void **)&m->rows, &m->rows_cap, j + 1, sizeof(*m->rows));
	if ((rc = check_seq(m, file, i, value(t[0], i), CORPUS_TRAIN)) != 0)
		return rc;
	row = &m->rows[j];
	row->seq = value(t[0], i);
	row->position = value(t[3], i);
	row->flags = (uint32_t)value(t[5], i);
	memcpy(&row->score, &bits, 4);
	if (!isinf(row->score) && (j == 0 || row->position > row[-1].position))
		return 0;
	snprintf(place, sizeof(place), "row %" PRIu64, i);
	return bad(m, file, place, "ascending positions in a block, and scores that are numbers");
}

static int
import_rows(struct importer *m, const struct weights_tensor **t, const char *file, uint64_t n)
{
	int rc = 0;

	for (uint64_t i = 0, to; rc == 0 && i < n; i = to) {
		struct hash128 plan = {value(t[1], 2 * i), value(t[1], 2 * i + 1)};
		uint64_t block = value(t[2], i);
		bool differs = false;

		for (to = i; to < n && value(t[1], 2 * to) == plan.hi && value(t[1], 2 * to + 1) == plan.lo &&
		    value(t[2], to) == block; to++)
			if ((rc = read_row(m, t, file, to, (size_t)(to - i))) != 0)
				return rc;
		if ((rc = cache_batch_step(&m->batch)) == 0)
			rc = stored(m, cache_write_rows(m->batch.c, plan, block, m->rows, (size_t)(to - i),
			    &differs), differs);
	}
	return rc;
}

static int
import_part(struct importer *m, enum export_part part)
{
	const struct json *o = json_get(m->manifest, export_part_name(part)), *files = json_get(o, "files");
	int64_t total = 0;
	int rc = 0;

	if (json_kind(files) != JSON_KIND_ARRAY)
		return bad(m, "manifest.json", export_part_name(part), "an object with records and files");

	for (size_t i = 0; rc == 0 && i < json_count(files); i++) {
		const struct weights_tensor *t[EXPORT_TENSORS_MAX];
		char path[CACHE_DIR_BYTES + 300];
		struct weights *w = NULL;
		const char *name;
		uint64_t n = 0;

		if ((rc = check_file(m, json_item(files, i), &name, path)) != 0 ||
		    (rc = weights_open(&w, path, m->note)) != 0)
			return rc;
		if ((rc = shard_tensors(m, part, w, name, t, &n)) == 0 &&
		    n != (uint64_t)ctl_int_of(json_item(files, i), "records", -1))
			rc = err_expect_at(m->note, ERR_CORRUPT, "%s/%s", "records", "%" PRId64 ", as in manifest.json",
			    "%" PRIu64, m->dir, name, ctl_int_of(json_item(files, i), "records", -1), n);
		total += (int64_t)n;
		if (rc == 0)
			rc = part == EXPORT_LABELS ? import_labels(m, w, t, name, n) :
			    part == EXPORT_ROWS ? import_rows(m, t, name, n) : import_scores(m, part, t, name, n);
		weights_close(&w);
	}
	if (rc == 0 && total != ctl_int_of(o, "records", -1))
		return err_expect_at(m->note, ERR_CORRUPT, "%s/manifest.json", "%s",
		    "%" PRId64 " records, as it says", "%" PRId64 " in its files: the export is not complete, export again",
		    m->dir, export_part_name(part), ctl_int_of(o, "records", -1), total);
	return rc;
}

static int
import_plan(struct importer *m, const struct json *o)
{
	struct cache_plan p, old;
	struct cache_txn *txn;
	struct hash128 hash;
	int64_t seed = ctl_int_of(o, "seed", -1), batch = ctl_int_of(o, "batch", -1), mode = ctl_int_of(o, "mode", -1);
	int64_t window = ctl_int_of(o, "window", -1), kept = ctl_int_of(o, "kept", -1),
	    rows = ctl_int_of(o, "rows", -1);
	int64_t oldest = ctl_int_of(o, "oldest_step", -1);
	double keep = ctl_num_of(o, "keep", NAN);
	int rc;

	if (hash_from_hex(&hash, ctl_text_of(o, "plan", "")) != 0 || batch < 1 || batch > UINT32_MAX ||
	    seed > UINT32_MAX || mode < 0 || mode > CACHE_MODE_LIST || window < 1 || kept < 1 ||
	    kept > window || rows < 0 || seed < 0 || oldest < 0 || isnan(keep))
		return bad(m, "manifest.json", "plans",
		    "objects with plan, seed, batch, mode, k, window, kept, rows, keep");
	p = (struct cache_plan){.hash = hash, .seed = (uint32_t)seed, .batch = (uint32_t)batch, .mode = (uint32_t)mode,
	    .k = (uint32_t)ctl_int_of(o, "k", -1), .window = (uint64_t)window, .kept = (uint64_t)kept,
	    .n_rows = (uint64_t)rows, .keep = keep, .oldest_step = (uint64_t)oldest,
	    .released_step = (uint64_t)ctl_int_of(o, "released_step", -1),
	    .released = ctl_flag_of(o, "released")};
	if ((rc = cache_txn_begin(m->batch.c, &txn)) != 0)
		return rc;
	rc = cache_plan_get(txn, p.hash, &old);
	cache_txn_end(&txn);
	if (rc != ERR_NOT_FOUND && rc != ERR_CORRUPT)
		return rc;			/* 0: the cache's plan stays: it has the trainers' progress */
	return (rc = cache_batch_step(&m->batch)) != 0 ? rc : cache_write_plan(m->batch.c, &p);
}

static int
import_quarantine(struct importer *m, const struct json *o)
{
	struct cache_quarantine q = {.seq = (uint64_t)ctl_int_of(o, "seq", -1), .since_s = ctl_int_of(o, "since", -1)};
	const char *reason = ctl_text_of(o, "reason", NULL);
	int rc;

	if ((int64_t)q.seq < 0 || reason == NULL)
		return bad(m, "manifest.json", "quarantine", "objects with seq, since, reason");
	snprintf(q.reason, sizeof(q.reason), "%s", reason);
	return (rc = cache_batch_step(&m->batch)) != 0 ? rc : cache_write_quarantine(m->batch.c, &q);
}

static int
import_plans(struct importer *m)
{
	const struct json *plans = json_get(m->manifest, "plans"), *all = json_get(m->manifest, "quarantine");
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < json_count(plans); i++)
		rc = import_plan(m, json_item(plans, i));
	for (size_t i = 0; rc == 0 && i < json_count(all); i++)
		rc = import_quarantine(m, json_item(all, i));
	return rc;
}

/* Reads the unigram table of sampled labels; version 1 had none. */
static int
read_unigram(struct importer *m)
{
	const struct json *o = json_get(m->manifest, "unigram");
	char path[CACHE_DIR_BYTES + 300], *bytes;
	const char *name;
	size_t size;
	int rc;

	if (o == NULL)
		return 0;
	if ((rc = check_file(m, o, &name, path)) != 0)
		return rc;
	if ((rc = file_read(path, LABELS_UNIGRAM_VOCAB_MAX, &bytes, &size, m->note)) == ERR_RANGE ||
	    (rc == 0 && size == 0))
		rc = bad(m, "manifest.json", "unigram", "a byte for each id of the vocabulary");
	if (rc == 0)
		rc = labels_unigram_new(&m->id.unigram, (const uint8_t *)bytes, size, m->note);
	free(bytes);
	return rc;
}

/* Reads the manifest: format, version, and the identity of the exported cache. */
static int
read_manifest(struct importer *m)
{
	char path[CACHE_DIR_BYTES + 300];
	const struct json *identity;
	const char *text;
	int rc;

	snprintf(path, sizeof(path), "%s/manifest.json", m->dir);
	if ((rc = json_parse_file(path, MANIFEST_MAX_BYTES, &m->manifest, m->note)) != 0)
		return rc;
	if (strcmp(ctl_text_of(m->manifest, "format", ""), EXPORT_FORMAT) != 0)
		return bad(m, "manifest.json", "format", "\"" EXPORT_FORMAT "\"");
	if (ctl_int_of(m->manifest, "version", -1) != EXPORT_VERSION)
		return err_expect(m->note, ERR_VERSION, "%s", "version %d",
		    "%" PRId64 "; export again with this saltctl: saltctl cache export --cache FOLDER DIR",
		    path, EXPORT_VERSION, ctl_int_of(m->manifest, "version", -1));
	identity = json_get(m->manifest, "identity");
	if (json_kind(identity) != JSON_KIND_OBJECT || json_count(identity) == 0 ||
	    json_count(identity) > IDENTITIES_MAX)
		return bad(m, "manifest.json", "identity", "names and texts, as cache stat shows them");
	m->id = (struct cache_id){.texts = ctl_object(), .n_shards = 1, .upgrade = m->corpora->train};
	for (void *it = json_first(identity); it != NULL; it = json_next(identity, it)) {
		if (!json_text(json_value(it), &text) || strlen(text) >= CACHE_IDENTITY_BYTES ||
		    strlen(json_key(it)) > 60)
			return bad(m, "manifest.json", json_key(it), "a short text");
		ctl_put(m->id.texts, json_key(it), text);
	}
	if ((rc = read_unigram(m)) != 0 || (rc = cache_id_parse(&m->id, m->note)) != 0)
		return rc;
	return cache_corpora_check(m->corpora, &m->id, m->note);
}

static void
allocate(struct importer *m)
{
	const struct labels_spec *s = &m->id.labels.spec;
	size_t wide = s->kind == LABELS_KIND_SAMPLED ? s->n_samples : s->kind == LABELS_KIND_TOPK ? s->k :
	    s->vocab, L = s->context;

	m->n_unique = ctl_alloc(L, sizeof(*m->n_unique));
	m->ids = ctl_alloc(L, wide * sizeof(*m->ids));
	m->counts = ctl_alloc(L, wide * sizeof(*m->counts));
	m->log_p = ctl_alloc(L, wide * sizeof(*m->log_p));
	m->loss = ctl_alloc(L, sizeof(*m->loss));
	m->rank = ctl_alloc(L, sizeof(*m->rank));
	m->score = ctl_alloc(L, LABELS_SCORE_BYTES);
	m->tokens = ctl_alloc(L + 1, sizeof(*m->tokens));
}

static void
importer_free(struct importer *m)
{
	cache_id_free(&m->id);
	json_close(&m->manifest);
	labels_buf_free(&m->buf);
	free(m->n_unique);
	free(m->ids);
	free(m->counts);
	free(m->log_p);
	free(m->loss);
	free(m->rank);
	free(m->score);
	free(m->tokens);
	free(m->rows);
}

static int
import_all(struct importer *m)
{
	struct cache_job *job = m->job;
	const struct labels_unigram *unigram;
	struct cache_identity items[IDENTITIES_MAX];
	size_t n = 0;
	int rc;

	if ((rc = read_manifest(m)) != 0)
		return rc;
	unigram = m->id.unigram;
	allocate(m);
	if ((rc = cache_open(&job->c, job->dir, CACHE_WRITE, job->cfg != NULL ? job->cfg->cache.map_size : 0, m->note)) != 0)
		return rc;
	for (void *it = json_first(m->id.texts); it != NULL; it = json_next(m->id.texts, it)) {
		items[n].name = json_key(it);
		json_text(json_value(it), &items[n++].value);
	}
	if ((rc = cache_identity_bind(job->c, items, n, m->note)) != 0 || (unigram != NULL &&
	    (rc = cache_unigram_put(job->c, labels_unigram_bytes(unigram), labels_unigram_vocab(unigram))) != 0))
		return rc;
	m->batch.c = job->c;
	for (int part = 0; rc == 0 && part < EXPORT_PARTS; part++)
		rc = import_part(m, (enum export_part)part);
	if (rc == 0)
		rc = import_plans(m);
	return cache_batch_end(&m->batch, rc);
}

static int
import_one(struct cache_job *job, void *arg)
{
	struct importer m = {.job = job, .corpora = &job->corpora, .note = &job->note};
	uint64_t *n_differ = arg;
	int rc;

	snprintf(m.dir, sizeof(m.dir), job->shards ? "%s/shard_%zu" : "%s", job->args->operands[0], job->i);
	if ((rc = import_all(&m)) != 0 && m.note->name[0] == '\0')
		err_note_set(m.note, rc, "%s", m.dir);
	if (rc == 0 && job->all != NULL)
		ctl_push(job->all, ctl_record(CTL("cache", job->dir), CTL("new", m.n_new), CTL("there", m.n_there),
		    CTL("differ", m.n_differ)));
	else if (rc == 0)
		ctl_line("imported", "%s -> %s: %" PRIu64 " records new, %" PRIu64 " there already%s", m.dir,
		    job->dir, m.n_new, m.n_there, m.n_differ > 0 ? "" : ", none that differs");
	if (m.n_differ > 0)
		fprintf(stderr,
		    "saltctl cache import: %s: %" PRIu64 " records differ from those in the cache, which were kept\n",
		    job->dir, m.n_differ);
	*n_differ += m.n_differ;
	importer_free(&m);
	return rc;
}

static int
run(struct ctl_args *args)
{
	struct cache_job job;
	char from[CACHE_DIR_BYTES];
	struct stat st;
	uint64_t n_differ = 0;
	int exit_code = cache_job_begin(&job, args, true);

	snprintf(from, sizeof(from), "%s/shard_0", args->operands[0]);
	if (exit_code == 0 && (stat(from, &st) == 0) != job.shards)
		exit_code = ctl_usage(args, "%s is of a cache %s shards, %s is one %s", args->operands[0],
		    job.shards ? "without" : "with", job.root, job.shards ? "with" : "without");
	snprintf(from, sizeof(from), "%s/shard_%zu", args->operands[0], job.n);
	if (exit_code == 0 && job.shards && stat(from, &st) == 0)
		exit_code = ctl_usage(args,
		    "%s has shard_%zu, %s has not: make that folder, or import one shard alone into --cache %s/shard_N",
		    args->operands[0], job.n, job.root, job.root);
	if (exit_code == 0)
		exit_code = cache_job_each(&job, import_one, &n_differ);
	exit_code = cache_job_end(&job, exit_code);
	return exit_code == 0 && n_differ > 0 ? EX_DATAERR : exit_code;
}

const struct ctl_verb ctl_cache_import = {
	.name = "cache import", .operands = "DIR", .summary = "import an export of cache export into a cache of the same identities",
	.about = "No other process may have the cache open; a missing one is made. Another corpus, teacher or\n"
	    "label set is rejected with both values. Repeating an import changes nothing. With the corpus (-c or\n"
	    "--corpus) the tokens of every label are compared too. Records come back as the same bytes; an export\n"
	    "of label records of version 1 or 2 needs the corpus and is upgraded.",
	.example = "saltctl cache import -c fleet.yaml labels-of-my-teacher",
	.options = options, .min_operands = 1, .max_operands = 1, .run = run,
};
