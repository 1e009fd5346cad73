/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache export: writes a cache as safetensors files and one JSON file, readable without saltfleet. Each file
 * is assembled in memory and then written.
 */
#include "saltctl/cache/cache.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "saltctl/core/folder.h"
#include "saltctl/core/output.h"
#include "base/json/json.h"
#include "engine/weights/weights.h"

#define SHARD_BYTES (UINT64_C(256) << 20)

static const struct cli_option options[] = {
	CTL_CACHE,
	{"shard-bytes", "N", "begin another file after N bytes (default 268435456)", false},
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

	/* The widest elements come first, so that every tensor is aligned. */
	out[n++] = (struct export_tensor){.name = "seq", .dtype = WEIGHTS_U64};
	switch (part) {
	case EXPORT_LABELS:
		out[n++] = (struct export_tensor){.name = "token_hash", .dtype = WEIGHTS_U64, .n_dims = 1, .dims = {2}};
		if (spec->kind == LABELS_KIND_SAMPLED) {
			bool ids_first =
			    weights_dtype_bytes((enum weights_dtype)id) >= weights_dtype_bytes((enum weights_dtype)count);

			out[n++] = (struct export_tensor){.name = "row_offsets", .dtype = WEIGHTS_I64, .flat = true};
			out[n + !ids_first] = (struct export_tensor){.name = "ids", .dtype = id, .flat = true};
			out[n + ids_first] = (struct export_tensor){.name = "counts", .dtype = count, .flat = true};
			return n + 2;
		}
		if (spec->kind == LABELS_KIND_TOPK)
			out[n++] = (struct export_tensor){.name = "ids", .dtype = id, .n_dims = 2,
			    .dims = {spec->context, spec->k}};
		out[n++] = (struct export_tensor){.name = "codes", .dtype = WEIGHTS_U16, .n_dims = 2,
		    .dims = {spec->context, spec->kind == LABELS_KIND_TOPK ? spec->k : spec->vocab}};
		return n;
	case EXPORT_SCORES:
	case EXPORT_HELDOUT:
		out[n++] = (struct export_tensor){.name = "loss", .dtype = WEIGHTS_U16, .n_dims = 1,
		    .dims = {spec->context}};
		out[n++] = (struct export_tensor){.name = "rank", .dtype = WEIGHTS_U8, .n_dims = 1,
		    .dims = {spec->context}};
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

struct exporter {
	struct cache_job *job;
	const char *dir;
	uint64_t shard_bytes;
	enum export_part part;
	struct export_tensor tensors[EXPORT_TENSORS_MAX];
	size_t n_tensors;
	struct {
		uint8_t *bytes;
		size_t len, cap;
	} data[EXPORT_TENSORS_MAX];		/* of the file under construction */
	/* records of the file; files and records of the part; ids of the file */
	uint64_t n_records, n_files, total, entries;
	uint64_t left_out;			/* damaged records */
	struct labels_batch batch;
	struct json *files, *plans, *quarantine;
	struct ctl_meter meter;
	uint64_t done;
	float *loss;
	uint8_t *rank;
};

/* Appends an element to a tensor of this part, n_bytes wide; 0: the size of its dtype. */
static void
put(struct exporter *e, const char *tensor, uint64_t v, size_t n_bytes)
{
	size_t i = 0;

	while (strcmp(e->tensors[i].name, tensor) != 0)
		i++;
	if (n_bytes == 0)
		n_bytes = weights_dtype_bytes((enum weights_dtype)e->tensors[i].dtype);
	ctl_grow((void **)&e->data[i].bytes, &e->data[i].cap, e->data[i].len + n_bytes, 1);
	for (size_t b = 0; b < n_bytes; b++)
		e->data[i].bytes[e->data[i].len++] = (uint8_t)(v >> 8 * b);
}

static void
put_hash(struct exporter *e, const char *tensor, struct hash128 hash)
{
	put(e, tensor, hash.hi, 8);
	put(e, tensor, hash.lo, 8);
}

static void
begin_part(struct exporter *e, enum export_part part)
{
	e->part = part;
	e->n_tensors = export_tensors(part, &e->job->id.labels.spec, e->tensors);
	e->files = ctl_array();
	e->n_files = e->total = e->n_records = 0;
	for (size_t i = 0; i < EXPORT_TENSORS_MAX; i++)
		e->data[i].len = 0;
}

static int
write_shard(struct exporter *e)
{
	struct weights_spec specs[EXPORT_TENSORS_MAX];
	struct err_note *note = &e->job->note;
	struct weights_writer *w = NULL;
	const struct weights_file *file;
	char stem[64];
	int rc;

	if (e->n_records == 0)
		return 0;
	for (size_t i = 0; i < e->n_tensors; i++) {
		const struct export_tensor *t = &e->tensors[i];
		size_t flat = e->data[i].len / weights_dtype_bytes((enum weights_dtype)t->dtype);

		specs[i] = (struct weights_spec){.name = t->name, .dtype = (enum weights_dtype)t->dtype,
		    .n_dims = 1 + t->n_dims, .shape = {t->flat ? flat : e->n_records, t->dims[0],
		    t->dims[1]}};
	}
	snprintf(stem, sizeof(stem), "%s-%05" PRIu64, export_part_name(e->part), e->n_files);
	if ((rc = weights_writer_new(&w, e->dir, stem, specs, e->n_tensors, NULL, 0, 0, note)) != 0)
		return rc;
	for (size_t i = 0; rc == 0 && i < e->n_tensors; i++)
		rc = weights_writer_bytes(w, e->data[i].bytes, e->data[i].len, note);
	if (rc == 0 && (rc = weights_writer_finish(w, note)) == 0) {
		file = weights_writer_file(w, 0);
		ctl_push(e->files, ctl_record(CTL("file", file->name), CTL("records", e->n_records),
		    CTL("bytes", file->size_bytes), CTL("hash", cache_hex(file->hash))));
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

/* Encodes t again as stored in records, -ln t in units of 1/2048 nat; decoding gave t = exp(-code / 2048). */
static uint64_t
code_of(float t)
{
	return t > 0 ? (uint64_t)llround(-log((double)t) * 2048) : 65535;
}

static int
put_label_rows(struct exporter *e, struct cache_bytes bytes)
{
	const struct labels_spec *spec = &e->job->id.labels.spec;
	bool sampled = spec->kind == LABELS_KIND_SAMPLED;
	const uint8_t *codes = bytes.bytes + LABELS_HEADER_BYTES;
	size_t n = (size_t)spec->context * spec->vocab;

	if (spec->kind == LABELS_KIND_DENSE) {
		/* The codes are exported as stored: decoding would scale each label row to a sum of 1. */
		if (bytes.len != LABELS_OVERHEAD_BYTES + 2 * n)
			return ERR_CORRUPT;
		for (size_t i = 0; i < n; i++)
			put(e, "codes", codes[2 * i] | (uint64_t)codes[2 * i + 1] << 8, 0);
		return 0;
	}
	for (size_t r = 0; r < e->batch.n_rows; r++) {
		if (sampled && e->n_records + r == 0)
			put(e, "row_offsets", 0, 0);
		for (int64_t i = e->batch.row_offsets[r]; i < e->batch.row_offsets[r + 1]; i++) {
			put(e, "ids", (uint64_t)e->batch.ids[i], 0);
			if (sampled)
				put(e, "counts", (uint64_t)lrintf(e->batch.weights[i] * (float)spec->n_samples), 0);
			else
				put(e, "codes", code_of(e->batch.weights[i]), 0);
			e->entries++;
		}
		if (sampled)
			put(e, "row_offsets", e->entries, 0);
	}
	return 0;
}

static int
export_label(void *arg, const struct cache_item *item)
{
	struct exporter *e = arg;
	struct hash128 tokens;
	int rc;

	if (item->rc != 0 || !item->key_ok ||
	    (rc = cache_decode(&e->job->id, item->bytes, &e->batch, &tokens, &e->job->note)) < 0) {
		e->left_out++;
		return 0;
	}
	if (rc != 0)
		return rc;			/* an errno does not mean a damaged record */
	put(e, "seq", item->seq, 0);
	put_hash(e, "token_hash", tokens);
	return (rc = put_label_rows(e, item->bytes)) != 0 ? rc : record_done(e);
}

static int
export_score(void *arg, const struct cache_item *item)
{
	struct exporter *e = arg;
	uint32_t L = e->job->id.labels.spec.context;

	/* Both parts read this table. A record with a bad key has set 0, so only EXPORT_SCORES counts it. */
	if (item->set != (e->part == EXPORT_HELDOUT ? CACHE_SCORES_TEACHER : CACHE_SCORES_SCORER))
		return 0;
	if (item->rc != 0 || !item->key_ok ||
	    labels_scores_decode(item->bytes.bytes, item->bytes.len, L, e->loss, e->rank, NULL) != 0) {
		e->left_out++;
		return 0;
	}
	put(e, "seq", item->seq, 0);
	for (uint32_t t = 0; t < L; t++) {
		put(e, "loss", (uint64_t)lrintf(e->loss[t] * 2048), 0);
		put(e, "rank", e->rank[t], 0);
	}
	return record_done(e);
}

static int
export_block(void *arg, struct cache_txn *txn, struct hash128 plan, uint64_t block, int rc,
    const struct cache_row *rows, uint64_t n)
{
	struct exporter *e = arg;
	uint32_t bits;

	(void)txn;
	e->left_out += rc != 0;
	for (uint64_t i = 0; rc == 0 && i < n; i++) {
		memcpy(&bits, &rows[i].score, 4);
		put(e, "seq", rows[i].seq, 0);
		put_hash(e, "plan", plan);
		put(e, "block", block, 0);
		put(e, "position", rows[i].position, 0);
		put(e, "score", bits, 0);
		put(e, "flags", rows[i].flags, 0);
		e->n_records++;
	}
	/* A block is not split over two files, because import writes its rows in one commit. */
	return rc == 0 && e->n_records * 60 >= e->shard_bytes ? write_shard(e) : 0;
}

static int
export_plan(void *arg, const struct cache_plan *p)
{
	struct exporter *e = arg;

	ctl_push(e->plans, ctl_record(CTL("plan", cache_hex(p->hash)), CTL("seed", p->seed),
	    CTL("batch", p->batch), CTL("mode", p->mode), CTL("k", p->k), CTL("window", p->window),
	    CTL("kept", p->kept), CTL("rows", p->n_rows), CTL("keep", p->keep),
	    CTL("oldest_step", p->oldest_step), CTL("released_step", p->released_step), CTL("released", p->released)));
	return 0;
}

static int
export_quarantine(void *arg, const struct cache_quarantine *q)
{
	struct exporter *e = arg;

	ctl_push(e->quarantine, ctl_record(CTL("seq", q->seq), CTL("since", q->since_s), CTL("reason", q->reason)));
	return 0;
}

/* Writes the files of a part; *o: its entry in the manifest. */
static int
export_part(struct exporter *e, enum export_part part, struct json **o)
{
	const struct labels_spec *spec = &e->job->id.labels.spec;
	struct cache *c = e->job->c;
	int rc;

	begin_part(e, part);
	rc = part == EXPORT_LABELS ? cache_each(c, CACHE_TABLE_LABELS, export_label, e) :
	    part == EXPORT_ROWS ? cache_blocks(c, export_block, e) : cache_each(c, CACHE_TABLE_SCORES, export_score, e);
	if (rc == 0)
		rc = write_shard(e);
	*o = ctl_record(CTL("records", e->total), CTL("files", e->files));
	if (part == EXPORT_LABELS)
		ctl_put_all(*o, CTL("kind", labels_kind_name(spec->kind)),
		    CTL("n", spec->kind == LABELS_KIND_SAMPLED ? spec->n_samples : spec->k), CTL("tau", spec->tau));
	return rc;
}

/* Writes all parts, and manifest.json last. */
static int
export_all(struct exporter *e, struct json *manifest)
{
	struct cache_id *id = &e->job->id;
	const struct labels_spec *spec = &id->labels.spec;
	struct err_note *note = &e->job->note;
	struct cache_txn *txn = NULL;
	struct json *o;
	uint64_t n_corrupt;
	char *text;
	int rc = 0;

	ctl_put_all(manifest, CTL("format", EXPORT_FORMAT), CTL("version", EXPORT_VERSION),
	    CTL("context", spec->context), CTL("vocabulary", spec->vocab));
	if (id->unigram != NULL) {
		const char *codes = (const char *)labels_unigram_bytes(id->unigram);

		if ((rc = weights_file_write(e->dir, EXPORT_UNIGRAM, codes, spec->vocab, NULL, note)) != 0)
			return rc;
		ctl_put(manifest, "unigram", ctl_record(CTL("file", EXPORT_UNIGRAM), CTL("bytes", spec->vocab),
		    CTL("hash", cache_hex(labels_unigram_hash(id->unigram)))));
	}
	for (int part = 0; part < EXPORT_PARTS && rc == 0; part++) {
		rc = export_part(e, (enum export_part)part, &o);
		ctl_put(manifest, export_part_name((enum export_part)part), o);
	}
	e->plans = ctl_array();
	e->quarantine = ctl_array();
	n_corrupt = cache_n_corrupt(e->job->c);
	if (rc == 0 && (rc = cache_txn_begin(e->job->c, &txn)) == 0 &&
	    (rc = cache_plans_each(txn, export_plan, e)) == 0)
		rc = cache_quarantine_each(txn, export_quarantine, e);
	cache_txn_end(&txn);
	e->left_out += cache_n_corrupt(e->job->c) - n_corrupt;		/* the two walks pass over damaged records */
	ctl_put_all(manifest, CTL("plans", e->plans), CTL("quarantine", e->quarantine), CTL("identity", id->texts));
	id->texts = NULL;
	if (rc != 0)
		return rc;
	if ((text = json_print(manifest, true)) == NULL)
		return ENOMEM;
	rc = weights_file_write(e->dir, "manifest.json", text, strlen(text), NULL, note);
	free(text);
	return rc;
}

static int
export_one(struct cache_job *job, void *arg)
{
	struct exporter e = {.job = job, .shard_bytes = *(const uint64_t *)arg};
	struct json *manifest;
	struct ctl_folder folder;
	struct cache_stat st;
	char to[CACHE_DIR_BYTES];
	int rc;

	snprintf(to, sizeof(to), job->shards ? "%s/shard_%zu" : "%s", job->args->operands[0], job->i);
	if ((rc = cache_job_open(job, CACHE_READ, 0, true)) != 0 || (rc = cache_stat(job->c, &st)) != 0 ||
	    (rc = ctl_folder_begin(&folder, to, &job->note)) != 0)
		return rc;
	e.dir = folder.temp;
	e.loss = ctl_alloc(job->id.labels.spec.context, sizeof(*e.loss));
	e.rank = ctl_alloc(job->id.labels.spec.context, 1);
	manifest = ctl_object();
	ctl_meter_start(&e.meter, "export", "records",
	    (double)(st.table[CACHE_TABLE_LABELS].n_records + st.table[CACHE_TABLE_SCORES].n_records));
	rc = export_all(&e, manifest);
	ctl_meter_end(&e.meter);
	rc = ctl_folder_end(&folder, rc, &job->note);
	if (rc == 0 && job->all != NULL)
		ctl_push(job->all, ctl_record(CTL("cache", job->dir), CTL("export", to), CTL("records", e.done),
		    CTL("left_out", e.left_out)));
	else if (rc == 0)
		ctl_line("exported", "%s -> %s: %" PRIu64 " labels and scores", job->dir, to, e.done);
	if (rc == 0 && e.left_out > 0)
		fprintf(stderr,
		    "saltctl cache export: %" PRIu64 " damaged records were left out: saltctl cache fsck lists them\n",
		    e.left_out);
	json_close(&manifest);
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
	struct cache_job job;
	int exit_code = cache_job_begin(&job, args, false);

	if (exit_code == 0 && (exit_code = ctl_get_u64(args, "shard-bytes", 1, UINT64_C(1) << 40, &shard_bytes)) == 0)
		exit_code = cache_job_each(&job, export_one, &shard_bytes);
	return cache_job_end(&job, exit_code);
}

const struct ctl_verb ctl_cache_export = {
	.name = "cache export", .operands = "DIR", .summary = "a cache as safetensors files and one JSON file",
	.about = "Writes labels, scores, rows, plans, quarantine and identities; numpy reads them in ten lines\n"
	    "(docs/formats.md). DIR appears complete or not at all; it must not exist, or be empty. Use an export\n"
	    "to copy a cache to another machine: the cache's own file should not be copied.",
	.example = "saltctl cache export -c fleet.yaml labels-of-my-teacher",
	.options = options, .min_operands = 1, .max_operands = 1, .run = run,
};
