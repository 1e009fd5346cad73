/*
 * cache import: what cache export wrote, into a cache of the same identities. Nothing is believed: files by size and hash, tensors by type and
 * shape, numbers by the encoder that makes records of them; with the corpus, tokens too. What is there already stays.
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
#include "base/json/json.h"
#include "base/mem/mem.h"
#include "engine/weights/weights.h"

#define MANIFEST_MAX_BYTES ((size_t)256 << 20)
#define IDENTITIES_MAX 64

static const struct ctl_option options[] = {
	CTL_CACHE, CTL_CORPORA, CTL_JSON, CTL_END
};

struct importer {
	const struct cache_corpora *corpora;
	struct cache *c;
	struct cache_id id;			/* of the export */
	const char *dir;
	struct json *manifest;
	struct cache_batch batch;
	uint64_t n_new, n_there, n_differ;
	struct labels_buf buf;
	int32_t *n_unique, *ids, *counts, *tokens;
	float *log_p, *loss;
	int32_t *rank;
	uint8_t *score;
	struct cache_row *rows;
	size_t rows_cap;
	struct err_note *note;
};

static int
bad(struct importer *m, const char *file, const char *what, const char *expected)
{
	err_note_set(m->note, ERR_FORMAT, "%s/%s", m->dir, file);
	err_note_place(m->note, "%s", what);
	err_note_expected(m->note, "%s", expected);
	return ERR_FORMAT;
}

/* Hash of a whole file, as the manifest has it. */
static int
hash_of(const char *path, uint64_t *n_bytes, struct hash128 *out)
{
	struct hash_state *h = hash_new();
	uint8_t *buf = malloc(1 << 20);
	FILE *in = fopen(path, "rb");
	int rc = in == NULL ? errno : h == NULL || buf == NULL ? ENOMEM : 0;
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
	char hex[HASH_HEX_BYTES];
	struct hash128 want = {0, 0}, got;
	const char *text = NULL;
	uint64_t bytes;
	int64_t size;
	int rc;

	if (!json_text(json_get(o, "file"), name) || (*name)[0] == '\0' || (*name)[0] == '.' || strchr(*name, '/') != NULL || strlen(*name) > 255)
		return bad(m, "manifest.json", "file", "the name of a file in the same folder");
	if (!json_int(json_get(o, "bytes"), &size) || size < 0 || (json_get(o, "hash") != NULL && (!json_text(json_get(o, "hash"), &text) || hash_from_hex(&want, text) != 0)))
		return bad(m, "manifest.json", *name, "its bytes, and its hash if that is known");
	snprintf(path, CACHE_DIR_BYTES + 300, "%s/%s", m->dir, *name);
	if ((rc = hash_of(path, &bytes, &got)) != 0)
		return err_note_set(m->note, rc, "%s", path);
	if (bytes == (uint64_t)size && (text == NULL || hash_equal(want, got)))
		return 0;
	err_note_set(m->note, ERR_CORRUPT, "%s", path);
	err_note_expected(m->note, "%" PRId64 " bytes with hash %s, as manifest.json says", size, text != NULL ? text : "of any kind");
	err_note_found(m->note, "%" PRIu64 " bytes with hash %s", bytes, hash_hex(got, hex));
	return ERR_CORRUPT;
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

/* The tensors of a shard, in the order of export_tensors, of the types and shapes that the label set asks for. */
static int
shard_tensors(struct importer *m, enum export_part part, const struct weights *w, const char *file, const struct weights_tensor **out, uint64_t *n)
{
	struct export_tensor want[EXPORT_TENSORS_MAX];
	size_t n_want = export_tensors(part, &m->id.labels.spec, want);
	uint64_t flat;

	for (size_t i = 0; i < n_want; i++) {
		const struct weights_tensor *t = weights_find(w, want[i].name);
		bool good = t != NULL && t->dtype == (enum weights_dtype)want[i].dtype && t->n_dims == 1 + want[i].n_dims;

		for (unsigned d = 0; good && d < want[i].n_dims; d++)
			good = t->shape[1 + d] == want[i].dims[d];
		if (good && i == 0)
			*n = t->shape[0];
		if (good && !want[i].flat)
			good = t->shape[0] == *n;
		if (good && strcmp(want[i].name, "row_offsets") == 0)
			good = mem_mul((size_t)*n, m->id.labels.spec.context, &(size_t){0}) && t->shape[0] == *n * m->id.labels.spec.context + 1;
		if (!good) {
			err_note_set(m->note, ERR_FORMAT, "%s/%s", m->dir, file);
			err_note_place(m->note, "tensor %s", want[i].name);
			err_note_expected(m->note, "%s, in the shape that docs/formats.md gives", weights_dtype_name((enum weights_dtype)want[i].dtype));
			err_note_found(m->note, "%s with %u dimensions, the first %" PRIu64, t != NULL ? weights_dtype_name(t->dtype) : "none",
			    t != NULL ? t->n_dims : 0, t != NULL && t->n_dims > 0 ? t->shape[0] : 0);
			return ERR_FORMAT;
		}
		out[i] = t;
	}
	if (part == EXPORT_LABELS && m->id.labels.spec.kind == LABELS_KIND_SAMPLED) {
		flat = weights_find(w, "ids")->shape[0];
		if (weights_find(w, "counts")->shape[0] != flat || value(weights_find(w, "row_offsets"), *n * m->id.labels.spec.context) != flat ||
		    value(weights_find(w, "row_offsets"), 0) != 0)
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
	err_note_set(m->note, ERR_RANGE, "%s/%s", m->dir, file);
	err_note_place(m->note, "seq[%" PRIu64 "]", i);
	err_note_expected(m->note, "corpus %" PRIu32 ", window below %" PRIu64, corpus_no, limit);
	err_note_found(m->note, "corpus %" PRIu32 ", window %" PRIu64, CORPUS_SEQ_NO(seq), CORPUS_SEQ_INDEX(seq));
	return ERR_RANGE;
}

static int
stored(struct importer *m, int rc, bool differs)
{
	m->n_new += rc == 0;
	m->n_there += rc == ERR_EXISTS && !differs;
	m->n_differ += rc == ERR_EXISTS && differs;
	return rc == ERR_EXISTS ? 0 : rc;
}

/* Record i of a shard, encoded into m->buf. */
static int
encode(struct importer *m, const struct weights *w, const struct weights_tensor **t, uint64_t i, struct hash128 tokens)
{
	const struct labels_spec *spec = &m->id.labels.spec;
	uint64_t L = spec->context;

	if (spec->kind == LABELS_KIND_SAMPLED) {
		const struct weights_tensor *offsets = t[2], *ids = weights_find(w, "ids"), *counts = weights_find(w, "counts");

		for (uint64_t r = 0; r < L; r++) {
			uint64_t from = value(offsets, i * L + r), to = value(offsets, i * L + r + 1);

			if (to < from || to > ids->shape[0] || to - from > spec->n_samples) {
				err_note_set(m->note, ERR_RANGE, "row_offsets[%" PRIu64 "]", i * L + r + 1);
				err_note_expected(m->note, "at most %" PRIu32 " above the one before, at most %" PRIu64, spec->n_samples, ids->shape[0]);
				err_note_found(m->note, "%" PRIu64 " after %" PRIu64, to, from);
				return ERR_RANGE;
			}
			m->n_unique[r] = (int32_t)(to - from);
			for (uint64_t j = from; j < to; j++) {
				m->ids[r * spec->n_samples + (j - from)] = (int32_t)(uint32_t)value(ids, j);
				m->counts[r * spec->n_samples + (j - from)] = (int32_t)(uint32_t)value(counts, j);
			}
		}
		return labels_encode_sampled(spec, tokens, m->n_unique, m->ids, m->counts, &m->buf, m->note);
	}
	if (spec->kind == LABELS_KIND_TOPK) {
		for (uint64_t r = 0; r < L; r++) {
			int32_t *id = m->ids + r * spec->k;
			float *p = m->log_p + r * spec->k;

			for (uint32_t j = 0; j < spec->k; j++) {
				uint64_t at = (i * L + r) * spec->k + j, code = value(t[3], at);
				int32_t v = (int32_t)(uint32_t)value(t[2], at);
				float log_p = code == 65535 ? -INFINITY : -(float)code / 2048;
				uint32_t k = j;

				for (; k > 0 && (p[k - 1] < log_p || (p[k - 1] == log_p && id[k - 1] > v)); k--) {	/* best first */
					p[k] = p[k - 1];
					id[k] = id[k - 1];
				}
				p[k] = log_p;
				id[k] = v;
			}
		}
		return labels_encode_topk(spec, tokens, m->ids, m->log_p, &m->buf, m->note);
	}
	for (uint64_t j = 0; j < L * spec->vocab; j++) {
		uint64_t code = value(t[2], i * L * spec->vocab + j);

		m->log_p[j] = code == 65535 ? -INFINITY : -(float)code / 2048;
	}
	return labels_encode_dense(spec, tokens, m->log_p, &m->buf, m->note);
}

static int
import_labels(struct importer *m, const struct weights *w, const struct weights_tensor **t, const char *file, uint64_t n)
{
	struct hash128 tokens, ours;
	char a[HASH_HEX_BYTES], b[HASH_HEX_BYTES];
	int rc = 0;

	for (uint64_t i = 0; rc == 0 && i < n; i++) {
		uint64_t seq = value(t[0], i);
		bool differs = false;

		tokens = (struct hash128){value(t[1], 2 * i), value(t[1], 2 * i + 1)};
		if ((rc = check_seq(m, file, i, seq, CORPUS_TRAIN)) != 0)
			return rc;
		if (m->corpora->train != NULL) {
			if ((rc = cache_tokens_of(m->corpora, seq, m->id.labels.spec.context, m->tokens, &ours, m->note)) != 0)
				return rc;
			if (!hash_equal(ours, tokens)) {
				err_note_set(m->note, ERR_MISMATCH, "%s/%s", m->dir, file);
				err_note_place(m->note, "token_hash[%" PRIu64 "], sequence %" PRIu64, i, CORPUS_SEQ_INDEX(seq));
				err_note_expected(m->note, "%s, the corpus's", hash_hex(ours, a));
				err_note_found(m->note, "%s", hash_hex(tokens, b));
				return ERR_MISMATCH;
			}
		}
		if ((rc = encode(m, w, t, i, tokens)) != 0) {
			struct err_note inner = *m->note;

			err_note_set(m->note, rc, "%s/%s", m->dir, file);
			err_note_place(m->note, "sequence %" PRIu64 ", %.100s %.180s", CORPUS_SEQ_INDEX(seq), inner.name, inner.place);
			err_note_expected(m->note, "%s", inner.expected);
			err_note_found(m->note, "%s", inner.found);
			return rc;
		}
		if ((rc = cache_batch_step(&m->batch)) == 0)
			rc = stored(m, cache_write_labels(m->c, seq, m->buf.bytes, m->buf.len, &differs), differs);
	}
	return rc;
}

static int
import_scores(struct importer *m, enum export_part part, const struct weights_tensor **t, const char *file, uint64_t n)
{
	uint32_t L = m->id.labels.spec.context;
	int rc = 0;

	for (uint64_t i = 0; rc == 0 && i < n; i++) {
		uint64_t seq = value(t[0], i);
		bool differs = false;

		if ((rc = check_seq(m, file, i, seq, part == EXPORT_HELDOUT ? CORPUS_HELDOUT : CORPUS_TRAIN)) != 0)
			return rc;
		for (uint32_t j = 0; j < L; j++) {
			m->loss[j] = (float)value(t[1], i * L + j) / 2048;
			m->rank[j] = (int32_t)value(t[2], i * L + j);
		}
		if ((rc = labels_scores_encode(m->loss, m->rank, L, m->score, m->note)) == 0 && (rc = cache_batch_step(&m->batch)) == 0)
			rc = stored(m, cache_write_scores(m->c, part == EXPORT_HELDOUT ? CACHE_SCORES_TEACHER : CACHE_SCORES_SCORER, seq, m->score,
			    (size_t)L * LABELS_SCORE_BYTES, &differs), differs);
	}
	return rc;
}

static int
import_rows(struct importer *m, const struct weights_tensor **t, const char *file, uint64_t n)
{
	int rc = 0;

	for (uint64_t i = 0, to; rc == 0 && i < n; i = to) {
		struct hash128 plan = {value(t[1], 2 * i), value(t[1], 2 * i + 1)};
		uint64_t block = value(t[2], i);
		bool differs = false;

		for (to = i; to < n && value(t[1], 2 * to) == plan.hi && value(t[1], 2 * to + 1) == plan.lo && value(t[2], to) == block; to++) {
			uint32_t bits = (uint32_t)value(t[4], to);
			struct cache_row *row;

			if ((rc = mem_grow((void **)&m->rows, &m->rows_cap, (size_t)(to - i) + 1, sizeof(*m->rows))) != 0 ||
			    (rc = check_seq(m, file, to, value(t[0], to), CORPUS_TRAIN)) != 0)
				return rc;
			row = &m->rows[to - i];
			row->seq = value(t[0], to);
			row->position = value(t[3], to);
			row->flags = (uint32_t)value(t[5], to);
			memcpy(&row->score, &bits, 4);
			if (isinf(row->score) || (to > i && row->position <= row[-1].position)) {
				char place[64];

				snprintf(place, sizeof(place), "row %" PRIu64, to);
				return bad(m, file, place, "ascending positions in a block, and scores that are numbers");
			}
		}
		if ((rc = cache_batch_step(&m->batch)) == 0)
			rc = stored(m, cache_write_rows(m->c, plan, block, m->rows, (size_t)(to - i), &differs), differs);
	}
	return rc;
}

static int
import_part(struct importer *m, enum export_part part)
{
	const struct json *files = json_get(json_get(m->manifest, export_part_name(part)), "files");
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < json_count(files); i++) {
		const struct weights_tensor *t[EXPORT_TENSORS_MAX];
		char path[CACHE_DIR_BYTES + 300];
		struct weights *w = NULL;
		const char *name;
		uint64_t n = 0;

		if ((rc = check_file(m, json_item(files, i), &name, path)) != 0 || (rc = weights_open(&w, path, m->note)) != 0)
			return rc;
		if ((rc = shard_tensors(m, part, w, name, t, &n)) == 0)
			rc = part == EXPORT_LABELS ? import_labels(m, w, t, name, n) : part == EXPORT_ROWS ? import_rows(m, t, name, n) :
			    import_scores(m, part, t, name, n);
		weights_close(&w);
	}
	return rc;
}

static int64_t
whole(const struct json *o, const char *key)
{
	int64_t v = -1;

	return json_int(json_get(o, key), &v) ? v : -1;
}

static int
import_plans(struct importer *m)
{
	const struct json *plans = json_get(m->manifest, "plans"), *all = json_get(m->manifest, "quarantine");
	struct cache_txn *txn;
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < json_count(plans); i++) {
		const struct json *o = json_item(plans, i);
		struct cache_plan p = {.seed = (uint32_t)whole(o, "seed"), .batch = (uint32_t)whole(o, "batch"), .mode = (uint32_t)whole(o, "mode"),
		    .k = (uint32_t)whole(o, "k"), .window = (uint64_t)whole(o, "window"), .kept = (uint64_t)whole(o, "kept"),
		    .n_rows = (uint64_t)whole(o, "rows"), .oldest_step = (uint64_t)whole(o, "oldest_step"),
		    .released_step = (uint64_t)whole(o, "released_step")}, old;
		const char *hex;

		json_flag(json_get(o, "released"), &p.released);
		if (!json_text(json_get(o, "plan"), &hex) || hash_from_hex(&p.hash, hex) != 0 || whole(o, "batch") < 1 || whole(o, "mode") < 0 ||
		    whole(o, "mode") > 1 || whole(o, "window") < 1 || whole(o, "kept") < 1 || whole(o, "kept") > whole(o, "window") ||
		    whole(o, "rows") < 0 || whole(o, "seed") < 0 || whole(o, "oldest_step") < 0 || !json_num(json_get(o, "keep"), &p.keep))
			return bad(m, "manifest.json", "plans", "objects with plan, seed, batch, mode, k, window, kept, rows, keep");
		if ((rc = cache_txn_begin(m->c, &txn)) != 0)
			break;
		rc = cache_plan_get(txn, p.hash, &old);
		cache_txn_end(&txn);
		if (rc != ERR_NOT_FOUND && rc != ERR_CORRUPT)
			continue;			/* the cache's own stays: it knows how far its trainers are */
		if ((rc = cache_batch_step(&m->batch)) == 0)
			rc = cache_write_plan(m->c, &p);
	}
	for (size_t i = 0; rc == 0 && i < json_count(all); i++) {
		struct cache_quarantine q = {.seq = (uint64_t)whole(json_item(all, i), "seq"), .since_s = whole(json_item(all, i), "since")};
		const char *reason;

		if (whole(json_item(all, i), "seq") < 0 || !json_text(json_get(json_item(all, i), "reason"), &reason))
			return bad(m, "manifest.json", "quarantine", "objects with seq, since, reason");
		snprintf(q.reason, sizeof(q.reason), "%s", reason);
		if ((rc = cache_batch_step(&m->batch)) == 0)
			rc = cache_write_quarantine(m->c, &q);
	}
	return rc;
}

/* The table that sampled labels are coded under; version 1 had none. */
static int
read_unigram(struct importer *m)
{
	const struct json *o = json_get(m->manifest, "unigram");
	char path[CACHE_DIR_BYTES + 300];
	unsigned char *bytes = NULL;
	const char *name;
	int64_t size;
	FILE *in;
	int rc;

	if (o == NULL)
		return 0;
	if ((rc = check_file(m, o, &name, path)) != 0)
		return rc;
	json_int(json_get(o, "bytes"), &size);
	if (size < 1 || size > LABELS_UNIGRAM_VOCAB_MAX)
		return bad(m, "manifest.json", "unigram", "a byte for each id of the vocabulary");
	if ((bytes = malloc((size_t)size)) == NULL)
		return ENOMEM;
	in = fopen(path, "rb");
	if (in == NULL || fread(bytes, 1, (size_t)size, in) != (size_t)size)
		rc = err_note_set(m->note, EIO, "%s", path);
	else
		rc = labels_unigram_new(&m->id.unigram, bytes, (size_t)size, m->note);
	if (in != NULL)
		fclose(in);
	free(bytes);
	return rc;
}

/* The manifest, what it says of itself, and the identity it is for. */
static int
read_manifest(struct importer *m)
{
	char path[CACHE_DIR_BYTES + 300];
	const struct json *identity;
	const char *format;
	int64_t version;
	int rc;

	snprintf(path, sizeof(path), "%s/manifest.json", m->dir);
	if ((rc = json_parse_file(path, MANIFEST_MAX_BYTES, &m->manifest, m->note)) != 0)
		return rc;
	if (!json_text(json_get(m->manifest, "format"), &format) || strcmp(format, EXPORT_FORMAT) != 0)
		return bad(m, "manifest.json", "format", "\"" EXPORT_FORMAT "\"");
	if (!json_int(json_get(m->manifest, "version"), &version) || version != EXPORT_VERSION) {
		err_note_set(m->note, ERR_VERSION, "%s", path);
		err_note_expected(m->note, "version %d", EXPORT_VERSION);
		err_note_found(m->note, "%" PRId64 "; export again with this saltctl: saltctl cache export --cache FOLDER DIR", whole(m->manifest, "version"));
		return ERR_VERSION;
	}
	identity = json_get(m->manifest, "identity");
	if (json_kind(identity) != JSON_KIND_OBJECT || json_count(identity) == 0 || json_count(identity) > IDENTITIES_MAX)
		return bad(m, "manifest.json", "identity", "names and texts, as cache stat shows them");
	m->id = (struct cache_id){.texts = ctl_object(), .n_shards = 1};
	for (void *it = json_first(identity); it != NULL; it = json_next(identity, it)) {
		const char *text;

		if (!json_text(json_value(it), &text) || strlen(text) >= CACHE_IDENTITY_BYTES || strlen(json_key(it)) > 60)
			return bad(m, "manifest.json", json_key(it), "a short text");
		ctl_put_text(m->id.texts, json_key(it), text);
	}
	m->id.upgrade = m->corpora->train;
	if ((rc = read_unigram(m)) != 0 || (rc = cache_id_parse(&m->id, m->note)) != 0)
		return rc;
	return cache_corpora_check(m->corpora, &m->id, m->note);
}

static int
make_room(struct importer *m)
{
	const struct labels_spec *s = &m->id.labels.spec;
	size_t wide = s->kind == LABELS_KIND_SAMPLED ? s->n_samples : s->kind == LABELS_KIND_TOPK ? s->k : s->vocab, n;

	if (!mem_mul(s->context, wide, &n))
		return ERR_RANGE;
	m->n_unique = mem_alloc(s->context, sizeof(*m->n_unique));
	m->ids = mem_alloc(n, sizeof(*m->ids));
	m->counts = mem_alloc(n, sizeof(*m->counts));
	m->log_p = mem_alloc(n, sizeof(*m->log_p));
	m->loss = mem_alloc(s->context, sizeof(*m->loss));
	m->rank = mem_alloc(s->context, sizeof(*m->rank));
	m->score = mem_alloc(s->context, LABELS_SCORE_BYTES);
	m->tokens = mem_alloc((size_t)s->context + 1, sizeof(*m->tokens));
	return m->n_unique != NULL && m->ids != NULL && m->counts != NULL && m->log_p != NULL && m->loss != NULL && m->rank != NULL &&
	    m->score != NULL && m->tokens != NULL ? 0 : ENOMEM;
}

static void
importer_free(struct importer *m)
{
	cache_batch_abort(&m->batch);
	cache_destroy(&m->c);
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
import_one(struct importer *m, const char *cache_dir, uint64_t map_bytes)
{
	struct cache_identity items[IDENTITIES_MAX];
	size_t n = 0;
	int rc;

	if ((rc = read_manifest(m)) != 0 || (rc = make_room(m)) != 0 || (rc = cache_open(&m->c, cache_dir, CACHE_WRITE, map_bytes, m->note)) != 0)
		return rc;
	for (void *it = json_first(m->id.texts); it != NULL; it = json_next(m->id.texts, it)) {
		items[n].name = json_key(it);
		json_text(json_value(it), &items[n++].value);
	}
	if ((rc = cache_identity_bind(m->c, items, n, m->note)) != 0)
		return rc;
	if (m->id.unigram != NULL &&
	    (rc = cache_unigram_put(m->c, labels_unigram_bytes(m->id.unigram), labels_unigram_vocab(m->id.unigram))) != 0)
		return rc;
	m->batch.c = m->c;
	for (int part = 0; rc == 0 && part < EXPORT_PARTS; part++)
		rc = import_part(m, (enum export_part)part);
	if (rc == 0 && (rc = import_plans(m)) == 0)
		rc = cache_batch_end(&m->batch);
	return rc;
}

static int
run(struct ctl_args *args)
{
	struct cache_corpora corpora = {.train = NULL};
	struct cache_dirs dirs = {.n = 0};
	struct config *cfg = NULL;
	struct json *all = ctl_has(args, "json") ? ctl_array() : NULL;
	char from[CACHE_DIR_BYTES];
	struct stat st;
	uint64_t n_differ = 0;
	int exit_code;

	if ((exit_code = cache_dirs_find(args, &dirs, &cfg)) != 0 || (exit_code = cache_corpora_open(args, cfg, &corpora)) != 0)
		goto out;
	snprintf(from, sizeof(from), "%s/shard_0", args->operands[0]);
	if ((stat(from, &st) == 0) != dirs.shards) {
		exit_code = ctl_usage(args, "%s is of a cache %s shards, %s is one %s", args->operands[0], dirs.shards ? "without" : "with", dirs.root,
		    dirs.shards ? "with" : "without");
		goto out;
	}
	cache_watch_bus(args);
	for (size_t i = 0; exit_code == 0 && i < dirs.n; i++) {
		struct err_note note = {.name = ""};
		struct importer m = {.corpora = &corpora, .dir = from, .note = &note};
		int rc;

		snprintf(from, sizeof(from), dirs.shards ? "%s/shard_%zu" : "%s", args->operands[0], i);
		if ((rc = import_one(&m, dirs.dir[i], cfg != NULL ? cfg->cache.map_size : 0)) != 0) {
			if (note.name[0] == '\0')
				err_note_set(&note, rc, "%s", from);
			exit_code = ctl_fail(args, rc, &note);
		} else if (all != NULL) {
			struct json *o = ctl_object();

			ctl_put_text(o, "cache", dirs.dir[i]);
			ctl_put_int(o, "new", (int64_t)m.n_new);
			ctl_put_int(o, "there", (int64_t)m.n_there);
			ctl_put_int(o, "differ", (int64_t)m.n_differ);
			ctl_push(all, o);
		} else {
			ctl_line("imported", "%s -> %s: %" PRIu64 " records new, %" PRIu64 " there already%s", from, dirs.dir[i], m.n_new, m.n_there,
			    m.n_differ > 0 ? "" : ", none that differs");
		}
		if (m.n_differ > 0)
			fprintf(stderr, "saltctl cache import: %s: %" PRIu64 " records differ from those in the cache, which were kept\n", dirs.dir[i], m.n_differ);
		n_differ += m.n_differ;
		importer_free(&m);
	}
	if (exit_code == 0 && all != NULL) {
		exit_code = ctl_print_json(all);
		all = NULL;
	}
	if (exit_code == 0 && n_differ > 0)
		exit_code = EX_DATAERR;
out:
	json_close(&all);
	cache_dirs_free(&dirs);
	cache_corpora_close(&corpora);
	config_destroy(&cfg);
	return ctl_flush(exit_code);
}

const struct ctl_verb ctl_cache_import = {
	.name = "cache import", .operands = "DIR", .summary = "what cache export wrote into a cache of the same identities",
	.about = "Needs the cache for itself; makes it if it is not there. Another corpus, teacher or label set is refused with both values. Doing it again\n"
	    "changes nothing. With the corpus (-c or --corpus) the tokens of every label are compared too. Records come back as the same bytes;\n"
	    "an export of label records of version 1 or 2 needs the corpus and becomes one of today's.",
	.example = "saltctl cache import -c fleet.yaml labels-of-my-teacher",
	.options = options, .min_operands = 1, .max_operands = 1, .run = run,
};
