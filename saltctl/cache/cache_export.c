/* cache export: a cache as safetensors shards and one JSON file, readable by anything that reads numbers. A shard is made in memory, then written. */
#include "saltctl/cache/cache.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "fabric/config/config.h"
#include "saltctl/core/output.h"
#include "base/json/json.h"
#include "base/mem/mem.h"
#include "engine/weights/weights.h"

#define SHARD_BYTES (UINT64_C(256) << 20)

static const struct ctl_option options[] = {
	CTL_CACHE,
	{"shard-bytes", "N", "begin another file after so many bytes (default 268435456)", false},
	CTL_JSON, CTL_END
};

const char *
export_part_name(enum export_part part)
{
	static const char *const names[EXPORT_PARTS] = {"labels", "scores", "heldout_scores", "rows"};

	return names[part];
}

size_t
export_tensors(enum export_part part, const struct labels_spec *spec, struct export_tensor out[EXPORT_TENSORS_MAX])
{
	const int id = spec->vocab <= 65536 ? WEIGHTS_U16 : WEIGHTS_I32;
	const int count = spec->n_samples <= 255 ? WEIGHTS_U8 : WEIGHTS_I32;
	size_t n = 0;

	/* widest first, so that every tensor lies at a multiple of its element */
	out[n++] = (struct export_tensor){.name = "seq", .dtype = WEIGHTS_U64};
	switch (part) {
	case EXPORT_LABELS:
		out[n++] = (struct export_tensor){.name = "token_hash", .dtype = WEIGHTS_U64, .n_dims = 1, .dims = {2}};
		if (spec->kind == LABELS_KIND_SAMPLED) {
			out[n++] = (struct export_tensor){.name = "row_offsets", .dtype = WEIGHTS_I64, .flat = true};
			if (weights_dtype_bytes((enum weights_dtype)id) >= weights_dtype_bytes((enum weights_dtype)count)) {
				out[n++] = (struct export_tensor){.name = "ids", .dtype = id, .flat = true};
				out[n++] = (struct export_tensor){.name = "counts", .dtype = count, .flat = true};
			} else {
				out[n++] = (struct export_tensor){.name = "counts", .dtype = count, .flat = true};
				out[n++] = (struct export_tensor){.name = "ids", .dtype = id, .flat = true};
			}
		} else if (spec->kind == LABELS_KIND_TOPK) {
			out[n++] = (struct export_tensor){.name = "ids", .dtype = id, .n_dims = 2, .dims = {spec->context, spec->k}};
			out[n++] = (struct export_tensor){.name = "codes", .dtype = WEIGHTS_U16, .n_dims = 2, .dims = {spec->context, spec->k}};
		} else {
			out[n++] = (struct export_tensor){.name = "codes", .dtype = WEIGHTS_U16, .n_dims = 2, .dims = {spec->context, spec->vocab}};
		}
		return n;
	case EXPORT_SCORES:
	case EXPORT_HELDOUT:
		out[n++] = (struct export_tensor){.name = "loss", .dtype = WEIGHTS_U16, .n_dims = 1, .dims = {spec->context}};
		out[n++] = (struct export_tensor){.name = "rank", .dtype = WEIGHTS_U8, .n_dims = 1, .dims = {spec->context}};
		return n;
	default:
		out[n++] = (struct export_tensor){.name = "plan", .dtype = WEIGHTS_U64, .n_dims = 1, .dims = {2}};
		out[n++] = (struct export_tensor){.name = "block", .dtype = WEIGHTS_U64};
		out[n++] = (struct export_tensor){.name = "position", .dtype = WEIGHTS_U64};
		out[n++] = (struct export_tensor){.name = "score", .dtype = WEIGHTS_F32};
		out[n++] = (struct export_tensor){.name = "flags", .dtype = WEIGHTS_U32};
		return n;
	}
}

struct growing {
	uint8_t *bytes;
	size_t len, cap;
};

struct exporter {
	struct ctl_args *args;
	struct cache *c;
	struct cache_id id;
	char dir[CACHE_DIR_BYTES + 32];		/* being written; renamed at the end */
	uint64_t shard_bytes;
	enum export_part part;
	struct export_tensor tensors[EXPORT_TENSORS_MAX];
	size_t n_tensors;
	struct growing data[EXPORT_TENSORS_MAX];
	uint64_t n_records, n_files, total, entries;	/* of the shard; files of the part; records of the part; ids of the shard */
	uint64_t left_out;			/* damaged records */
	struct labels_batch batch;
	struct json *files, *manifest, *plans, *quarantine;
	struct ctl_meter meter;
	uint64_t done;
	float *loss;
	uint8_t *rank;
	struct err_note *note;
};

static int
grow(struct growing *g, size_t n, uint8_t **at)
{
	size_t need;
	int rc;

	if (!mem_add(g->len, n, &need) || (rc = mem_grow((void **)&g->bytes, &g->cap, need, 1)) != 0)
		return ENOMEM;
	*at = g->bytes + g->len;
	g->len = need;
	return 0;
}

static int
put(struct exporter *e, const char *tensor, uint64_t v, size_t n_bytes)
{
	uint8_t *p;

	for (size_t i = 0; i < e->n_tensors; i++)
		if (strcmp(e->tensors[i].name, tensor) == 0) {
			if (n_bytes == 0)
				n_bytes = weights_dtype_bytes((enum weights_dtype)e->tensors[i].dtype);
			if (grow(&e->data[i], n_bytes, &p) != 0)
				return ENOMEM;
			for (size_t b = 0; b < n_bytes; b++)
				p[b] = (uint8_t)(v >> 8 * b);
			return 0;
		}
	return ERR_INTERNAL;
}

static void
begin_part(struct exporter *e, enum export_part part)
{
	e->part = part;
	e->n_tensors = export_tensors(part, &e->id.labels.spec, e->tensors);
	e->files = ctl_array();
	e->n_files = e->total = e->n_records = 0;
	for (size_t i = 0; i < EXPORT_TENSORS_MAX; i++)
		e->data[i].len = 0;
}

static int
write_shard(struct exporter *e)
{
	struct weights_spec specs[EXPORT_TENSORS_MAX];
	struct weights_writer *w = NULL;
	const struct weights_file *file;
	struct json *o;
	char stem[64], hex[HASH_HEX_BYTES];
	int rc;

	if (e->n_records == 0)
		return 0;
	for (size_t i = 0; i < e->n_tensors; i++) {
		const struct export_tensor *t = &e->tensors[i];

		specs[i] = (struct weights_spec){.name = t->name, .dtype = (enum weights_dtype)t->dtype, .n_dims = 1 + t->n_dims,
		    .shape = {t->flat ? e->data[i].len / weights_dtype_bytes((enum weights_dtype)t->dtype) : e->n_records, t->dims[0], t->dims[1]}};
	}
	snprintf(stem, sizeof(stem), "%s-%05" PRIu64, export_part_name(e->part), e->n_files);
	if ((rc = weights_writer_new(&w, e->dir, stem, specs, e->n_tensors, NULL, 0, 0, e->note)) != 0)
		return rc;
	for (size_t i = 0; rc == 0 && i < e->n_tensors; i++)
		rc = weights_writer_bytes(w, e->data[i].bytes, e->data[i].len, e->note);
	if (rc == 0 && (rc = weights_writer_finish(w, e->note)) == 0) {
		file = weights_writer_file(w, 0);
		o = ctl_object();
		ctl_put_text(o, "file", file->name);
		ctl_put_int(o, "records", (int64_t)e->n_records);
		ctl_put_int(o, "bytes", (int64_t)file->size_bytes);
		ctl_put_text(o, "hash", hash_hex(file->hash, hex));
		ctl_push(e->files, o);
		e->n_files++;
		e->total += e->n_records;
	}
	weights_writer_destroy(&w);
	e->n_records = e->entries = 0;
	for (size_t i = 0; i < EXPORT_TENSORS_MAX; i++)
		e->data[i].len = 0;
	return rc;
}

static int
record_done(struct exporter *e)
{
	uint64_t bytes = 0;

	e->n_records++;
	for (size_t i = 0; i < e->n_tensors; i++)
		bytes += e->data[i].len;
	ctl_meter_update(&e->meter, (double)++e->done);
	return bytes >= e->shard_bytes ? write_shard(e) : 0;
}

static struct json *
end_part(struct exporter *e, int *rc)
{
	struct json *o = ctl_object();

	if (*rc == 0)
		*rc = write_shard(e);
	ctl_put_int(o, "records", (int64_t)e->total);
	ctl_put(o, "files", e->files);
	e->files = NULL;
	return o;
}

/* -ln t in 1/2048 nat, as records have it: decoding gave t = exp(-code / 2048). */
static uint64_t
code_of(float t)
{
	return t > 0 ? (uint64_t)llround(-log((double)t) * 2048) : 65535;
}

static int
put_label_rows(struct exporter *e, struct cache_bytes bytes)
{
	const struct labels_spec *spec = &e->id.labels.spec;
	int rc = 0;

	if (spec->kind == LABELS_KIND_DENSE) {
		/* The codes as they lie: decoding scales rows to a sum of 1. */
		if (bytes.len != LABELS_OVERHEAD_BYTES + 2 * (size_t)spec->context * spec->vocab)
			return ERR_CORRUPT;
		for (size_t i = 0; rc == 0 && i < 2 * (size_t)spec->context * spec->vocab; i += 2)
			rc = put(e, "codes", bytes.bytes[LABELS_HEADER_BYTES + i] | (uint64_t)bytes.bytes[LABELS_HEADER_BYTES + i + 1] << 8, 0);
		return rc;
	}
	for (size_t r = 0; rc == 0 && r < e->batch.n_rows; r++) {
		if (spec->kind == LABELS_KIND_SAMPLED && e->n_records + r == 0)
			rc = put(e, "row_offsets", 0, 0);
		for (int64_t i = e->batch.row_offsets[r]; rc == 0 && i < e->batch.row_offsets[r + 1]; i++) {
			rc = put(e, "ids", (uint64_t)e->batch.ids[i], 0);
			if (rc == 0 && spec->kind == LABELS_KIND_SAMPLED)
				rc = put(e, "counts", (uint64_t)lrintf(e->batch.weights[i] * (float)spec->n_samples), 0);
			else if (rc == 0)
				rc = put(e, "codes", code_of(e->batch.weights[i]), 0);
			e->entries++;
		}
		if (rc == 0 && spec->kind == LABELS_KIND_SAMPLED)
			rc = put(e, "row_offsets", e->entries, 0);
	}
	return rc;
}

static int
export_label(void *arg, const struct cache_item *item)
{
	struct exporter *e = arg;
	struct err_note why = {.name = ""};
	struct hash128 tokens;
	int rc;

	if (item->rc != 0 || !item->key_ok || cache_decode(&e->id, NULL, item->bytes, &e->batch, &tokens, &why) != 0) {
		e->left_out++;
		return 0;
	}
	if ((rc = put(e, "seq", item->seq, 0)) != 0 || (rc = put(e, "token_hash", tokens.hi, 8)) != 0 ||
	    (rc = put(e, "token_hash", tokens.lo, 8)) != 0 || (rc = put_label_rows(e, item->bytes)) != 0)
		return rc;
	return record_done(e);
}

static int
export_score(void *arg, const struct cache_item *item)
{
	struct exporter *e = arg;
	uint32_t L = e->id.labels.spec.context;
	int rc;

	if (item->key_ok && item->set != (e->part == EXPORT_HELDOUT ? CACHE_SCORES_TEACHER : CACHE_SCORES_SCORER))
		return 0;
	if (item->rc != 0 || !item->key_ok || labels_scores_decode(item->bytes.bytes, item->bytes.len, L, e->loss, e->rank, NULL) != 0) {
		e->left_out++;
		return 0;
	}
	rc = put(e, "seq", item->seq, 0);
	for (uint32_t t = 0; rc == 0 && t < L; t++)
		if ((rc = put(e, "loss", (uint64_t)lrintf(e->loss[t] * 2048), 0)) == 0)
			rc = put(e, "rank", e->rank[t], 0);
	return rc != 0 ? rc : record_done(e);
}

static int
export_block(void *arg, struct cache_txn *txn, struct hash128 plan, uint64_t block, int rc, const struct cache_row *rows, uint64_t n)
{
	struct exporter *e = arg;
	uint32_t bits;

	(void)txn;
	if (rc != 0) {
		e->left_out++;
		return 0;
	}
	for (uint64_t i = 0; rc == 0 && i < n; i++) {
		memcpy(&bits, &rows[i].score, 4);
		if ((rc = put(e, "seq", rows[i].seq, 0)) == 0 && (rc = put(e, "plan", plan.hi, 8)) == 0 && (rc = put(e, "plan", plan.lo, 8)) == 0 &&
		    (rc = put(e, "block", block, 0)) == 0 && (rc = put(e, "position", rows[i].position, 0)) == 0 &&
		    (rc = put(e, "score", bits, 0)) == 0)
			rc = put(e, "flags", rows[i].flags, 0);
		e->n_records += rc == 0;
	}
	/* A block is never split: its rows are written in one commit when they come back. */
	if (rc == 0 && e->n_records * 60 >= e->shard_bytes)
		rc = write_shard(e);
	return rc;
}

static int
export_plan(void *arg, const struct cache_plan *p)
{
	struct exporter *e = arg;
	struct json *o = ctl_object();
	char hex[HASH_HEX_BYTES];

	ctl_put_text(o, "plan", hash_hex(p->hash, hex));
	ctl_put_int(o, "seed", p->seed);
	ctl_put_int(o, "batch", p->batch);
	ctl_put_int(o, "mode", p->mode);
	ctl_put_int(o, "k", p->k);
	ctl_put_int(o, "window", (int64_t)p->window);
	ctl_put_int(o, "kept", (int64_t)p->kept);
	ctl_put_int(o, "rows", (int64_t)p->n_rows);
	ctl_put_num(o, "keep", p->keep);
	ctl_put_int(o, "oldest_step", (int64_t)p->oldest_step);
	ctl_put_int(o, "released_step", (int64_t)p->released_step);
	ctl_put(o, "released", json_new_flag(p->released));
	ctl_push(e->plans, o);
	return 0;
}

static int
export_quarantine(void *arg, const struct cache_quarantine *q)
{
	struct exporter *e = arg;
	struct json *o = ctl_object();

	ctl_put_int(o, "seq", (int64_t)q->seq);
	ctl_put_int(o, "since", q->since_s);
	ctl_put_text(o, "reason", q->reason);
	ctl_push(e->quarantine, o);
	return 0;
}

/* All the parts and manifest.json, in e->dir. */
static int
export_all(struct exporter *e)
{
	const struct labels_spec *spec = &e->id.labels.spec;
	struct cache_txn *txn = NULL;
	struct json *o;
	char *text, hex[HASH_HEX_BYTES];
	int rc = 0;

	e->loss = mem_alloc(spec->context, sizeof(*e->loss));
	e->rank = mem_alloc(spec->context, 1);
	if (e->loss == NULL || e->rank == NULL)
		return ENOMEM;
	ctl_put_text(e->manifest, "format", EXPORT_FORMAT);
	ctl_put_int(e->manifest, "version", EXPORT_VERSION);
	ctl_put_int(e->manifest, "context", spec->context);
	ctl_put_int(e->manifest, "vocabulary", spec->vocab);
	if (e->id.unigram != NULL) {
		const uint8_t *codes = labels_unigram_bytes(e->id.unigram);

		if ((rc = weights_file_write(e->dir, EXPORT_UNIGRAM, (const char *)codes, spec->vocab, NULL, e->note)) != 0)
			return rc;
		o = ctl_object();
		ctl_put_text(o, "file", EXPORT_UNIGRAM);
		ctl_put_int(o, "bytes", spec->vocab);
		ctl_put_text(o, "hash", hash_hex(labels_unigram_hash(e->id.unigram), hex));
		ctl_put(e->manifest, "unigram", o);
	}
	for (int part = 0; part < EXPORT_PARTS && rc == 0; part++) {
		begin_part(e, (enum export_part)part);
		rc = part == EXPORT_LABELS ? cache_each(e->c, CACHE_TABLE_LABELS, export_label, e) :
		    part == EXPORT_ROWS ? cache_blocks(e->c, export_block, e) : cache_each(e->c, CACHE_TABLE_SCORES, export_score, e);
		o = end_part(e, &rc);
		if (part == EXPORT_LABELS) {
			ctl_put_text(o, "kind", labels_kind_name(spec->kind));
			ctl_put_int(o, "n", spec->kind == LABELS_KIND_SAMPLED ? spec->n_samples : spec->k);
			ctl_put_num(o, "tau", spec->tau);
		}
		ctl_put(e->manifest, export_part_name((enum export_part)part), o);
	}
	if (rc == 0 && (rc = cache_txn_begin(e->c, &txn)) == 0 && (rc = cache_plans_each(txn, export_plan, e)) == 0)
		rc = cache_quarantine_each(txn, export_quarantine, e);
	cache_txn_end(&txn);
	if (rc != 0)
		return rc;
	ctl_put(e->manifest, "plans", e->plans);
	ctl_put(e->manifest, "quarantine", e->quarantine);
	ctl_put(e->manifest, "identity", e->id.texts);
	e->plans = e->quarantine = e->id.texts = NULL;
	if ((text = json_print(e->manifest, true)) == NULL)
		return ENOMEM;
	rc = weights_file_write(e->dir, "manifest.json", text, strlen(text), NULL, e->note);
	free(text);
	return rc;
}

static void
remove_dir(const char *dir)
{
	char path[CACHE_DIR_BYTES + 128];

	for (int part = 0; part < EXPORT_PARTS; part++)
		for (uint64_t i = 0;; i++) {
			snprintf(path, sizeof(path), "%s/%s-%05" PRIu64 ".safetensors", dir, export_part_name((enum export_part)part), i);
			if (unlink(path) != 0)
				break;
		}
	snprintf(path, sizeof(path), "%s/" EXPORT_UNIGRAM, dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/manifest.json", dir);
	unlink(path);
	rmdir(dir);
}

/* One cache into DIR, which appears whole or not at all. */
static int
export_one(struct ctl_args *args, const char *cache_dir, const char *dir, uint64_t shard_bytes, struct json *all, struct err_note *note)
{
	struct exporter e = {.args = args, .shard_bytes = shard_bytes, .manifest = ctl_object(), .plans = ctl_array(), .quarantine = ctl_array(),
	    .note = note};
	struct cache_stat st;
	struct stat there;
	int rc;

	snprintf(e.dir, sizeof(e.dir), "%s.tmp-%d", dir, (int)getpid());
	if (stat(dir, &there) == 0) {
		rc = err_note_set(note, ERR_EXISTS, "%s", dir);
		goto out;
	}
	if ((rc = cache_open(&e.c, cache_dir, CACHE_READ, 0, note)) != 0 || (rc = cache_stat(e.c, &st)) != 0 ||
	    (rc = cache_id_read(e.c, &e.id, note)) != 0)
		goto out;
	if (!e.id.bound) {
		rc = err_note_set(note, ERR_NOT_FOUND, "%s: no selectord has used this cache yet", cache_dir);
		goto out;
	}
	if (mkdir(e.dir, 0777) != 0) {
		rc = err_note_set(note, errno, "%s", e.dir);
		goto out;
	}
	ctl_meter_start(&e.meter, "export", "records", (double)(st.table[CACHE_TABLE_LABELS].n_records + st.table[CACHE_TABLE_SCORES].n_records));
	rc = export_all(&e);
	ctl_meter_end(&e.meter);
	if (rc == 0 && rename(e.dir, dir) != 0)
		rc = err_note_set(note, errno, "renaming to %s", dir);
	if (rc != 0)
		remove_dir(e.dir);
	if (rc == 0 && all != NULL) {
		struct json *o = ctl_object();

		ctl_put_text(o, "cache", cache_dir);
		ctl_put_text(o, "export", dir);
		ctl_put_int(o, "records", (int64_t)e.done);
		ctl_put_int(o, "left_out", (int64_t)e.left_out);
		ctl_push(all, o);
	} else if (rc == 0) {
		ctl_line("exported", "%s -> %s: %" PRIu64 " labels and scores", cache_dir, dir, e.done);
	}
	if (rc == 0 && e.left_out > 0)
		fprintf(stderr, "saltctl cache export: %" PRIu64 " damaged records were left out: saltctl cache fsck tells which\n", e.left_out);
out:
	if (rc != 0 && note->name[0] == '\0')
		err_note_set(note, rc, "%s", cache_dir);
	json_close(&e.manifest);
	json_close(&e.plans);
	json_close(&e.quarantine);
	json_close(&e.files);
	cache_id_free(&e.id);
	cache_destroy(&e.c);
	labels_batch_free(&e.batch);
	for (size_t i = 0; i < EXPORT_TENSORS_MAX; i++)
		free(e.data[i].bytes);
	free(e.loss);
	free(e.rank);
	return rc;
}

static int
run(struct ctl_args *args)
{
	uint64_t shard_bytes = SHARD_BYTES;
	struct cache_dirs dirs = {.n = 0};
	struct config *cfg = NULL;
	struct json *all = ctl_has(args, "json") ? ctl_array() : NULL;
	struct err_note note = {.name = ""};
	char dir[CACHE_DIR_BYTES];
	const char *to = args->operands[0];
	int exit_code, rc = 0;

	if ((exit_code = ctl_get_u64(args, "shard-bytes", 1, UINT64_C(1) << 40, &shard_bytes)) != 0 ||
	    (exit_code = cache_dirs_find(args, &dirs, &cfg)) != 0)
		goto out;
	cache_watch_bus(args);
	if (dirs.shards && mkdir(to, 0777) != 0)
		rc = err_note_set(&note, errno, "%s", to);
	for (size_t i = 0; rc == 0 && i < dirs.n; i++) {
		snprintf(dir, sizeof(dir), dirs.shards ? "%s/shard_%zu" : "%s", to, i);
		rc = export_one(args, dirs.dir[i], dir, shard_bytes, all, &note);
	}
	if (rc != 0)
		exit_code = ctl_fail(args, rc, &note);
	else if (all != NULL) {
		exit_code = ctl_print_json(all);
		all = NULL;
	}
out:
	json_close(&all);
	cache_dirs_free(&dirs);
	config_destroy(&cfg);
	return ctl_flush(exit_code);
}

const struct ctl_verb ctl_cache_export = {
	.name = "cache export", .operands = "DIR", .summary = "a cache as safetensors files and one JSON file",
	.about = "Labels, scores, rows, plans, quarantine and identities; numpy reads them in ten lines (docs/formats.md). DIR must not exist yet. A cache\n"
	    "file itself should not be copied from machine to machine: this may.",
	.example = "saltctl cache export -c fleet.yaml labels-of-my-teacher",
	.options = options, .min_operands = 1, .max_operands = 1, .run = run,
};
