/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scores import: writes the sequences or scores of another program as selector.file, after all checks that
 * selectord makes at its start. A safetensors file is converted to JSON lines, since selectord reads nothing
 * else.
 */
#include "saltctl/scores/scores.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/select/file.h"
#include "engine/weights/weights.h"
#include "fabric/config/config.h"
#include "saltctl/core/folder.h"
#include "saltctl/core/output.h"
#include "data/corpus/blend.h"

static const struct cli_option options[] = {
	CTL_CONFIG,
	{"replace", NULL, "replace a selector.file that is there", false},
	CTL_DTYPE, CTL_JSON, CTL_END
};

static uint64_t
whole_at(const struct weights_tensor *t, uint64_t i)
{
	size_t n = weights_dtype_bytes(t->dtype);
	uint64_t v = 0;

	memcpy(&v, t->data + i * n, n);
	if ((t->dtype == WEIGHTS_I32 || t->dtype == WEIGHTS_I64) && v >> (8 * n - 1) != 0)
		return UINT64_MAX;		/* negative, so not a sequence */
	return v;
}

static float
real_at(const struct weights_tensor *t, uint64_t i)
{
	double v;
	float f = NAN;

	if (t->dtype == WEIGHTS_F64) {
		memcpy(&v, t->data + i * sizeof(v), sizeof(v));
		return (float)v;
	}
	weights_read_f32(t, i, 1, &f, 0, NULL);
	return f;
}

static int
check_tensor(const char *path, const struct weights_tensor *t, const char *name, uint64_t n, bool whole, struct err_note *note)
{
	bool good = t->dtype == WEIGHTS_I32 || t->dtype == WEIGHTS_I64 || t->dtype == WEIGHTS_U32 || t->dtype == WEIGHTS_U64;

	if (!whole)
		good = t->dtype == WEIGHTS_F32 || t->dtype == WEIGHTS_F64 || t->dtype == WEIGHTS_F16 || t->dtype == WEIGHTS_BF16;
	if (!good)
		return err_expect_at(note, ERR_FORMAT, "%s", "tensor %s", "%s", "%s", path, name, whole ? "I32, I64, U32 or U64" :
		    "F32, F64, F16 or BF16", weights_dtype_name(t->dtype));
	if (t->n_dims != 1 || t->n_elements != n)
		return err_expect_at(note, ERR_FORMAT, "%s", "tensor %s", "one dimension of %" PRIu64 " elements, as sequence has",
		    "%u of %" PRIu64, path, name, n, t->n_dims, t->n_elements);
	return 0;
}

/*
 * Writes the tensors sequence and, if there is one, score as lines. NaN and infinity become words, which the
 * reader rejects with their line number.
 */
static int
lines_of_tensors(const char *path, FILE *f, struct err_note *note)
{
	const struct weights_tensor *sequence, *score;
	struct weights *w;
	int rc;

	if ((rc = weights_open(&w, path, note)) != 0)
		return rc;
	sequence = weights_find(w, "sequence");
	score = weights_find(w, "score");
	if (sequence == NULL)
		rc = err_expect(note, ERR_FORMAT, "%s", "a tensor \"sequence\"", "none", path);
	else if ((rc = check_tensor(path, sequence, "sequence", sequence->n_elements, true, note)) == 0 && score != NULL)
		rc = check_tensor(path, score, "score", sequence->n_elements, false, note);
	for (uint64_t i = 0; rc == 0 && i < sequence->n_elements; i++) {
		uint64_t seq = whole_at(sequence, i);

		fprintf(f, "{\"sequence\": %" PRId64, seq > INT64_MAX ? -1 : (int64_t)seq);
		if (score != NULL)
			fprintf(f, ", \"score\": %.9g", (double)real_at(score, i));
		fputs("}\n", f);
	}
	weights_close(&w);
	return rc;
}

static void
write_lines(const struct select_file *file, FILE *f)
{
	for (uint64_t i = 0; file->list != NULL && i < file->n; i++)
		fprintf(f, "{\"sequence\": %" PRIu64 "}\n", file->list[i]);
	for (uint64_t i = 0; file->list == NULL && i < file->n_windows; i++)
		if (!isnan(file->score[i]))
			fprintf(f, "{\"sequence\": %" PRIu64 ", \"score\": %.9g}\n", i, (double)file->score[i]);
}

static int
report(const struct ctl_args *args, const struct select_file *file, const char *to, uint64_t rows)
{
	const char *form = file->list != NULL ? "list" : "scores";
	char hex[HASH_HEX_BYTES];

	if (ctl_has(args, "json"))
		return ctl_print_json(ctl_record(CTL("file", to), CTL("form", form), CTL("sequences", file->n), CTL("of", file->n_windows),
		    CTL("rows", rows), CTL("hash", hash_hex(file->hash, hex))));
	ctl_line("imported", "%s of %" PRIu64 " sequences (of %" PRIu64 ") -> %s", form, file->n, file->n_windows, to);
	ctl_line("hash", "%s", hash_hex(file->hash, hex));
	ctl_line("phase one", "%" PRIu64 " rows: enough", rows);
	return 0;
}

static int
convert(const struct ctl_args *args, const struct config *cfg, const struct corpus *corpus, struct select_file **file, uint64_t rows,
    struct err_note *note)
{
	uint64_t windows = corpus_n_windows(corpus, cfg->corpus.context);
	struct blend *order = NULL;
	const char *from = args->operands[0], *to = cfg->selector.file;
	struct file_replace out = {.f = NULL};
	uint64_t block, kept;
	int rc;

	config_block(cfg, &block, &kept);
	if ((rc = ctl_may_write(to, "\xff", ctl_has(args, "replace"), note)) != 0 || (rc = file_replace_begin(&out, to, note)) != 0)
		return rc;
	if (!scores_is_safetensors(from)) {
		if ((rc = select_file_read(file, from, from, windows, note)) == 0)
			write_lines(*file, out.f);
	} else if ((rc = lines_of_tensors(from, out.f, note)) == 0) {
		if (fflush(out.f) == 0)		/* file_replace_end reports an error */
			rc = select_file_read(file, out.temp, from, windows, note);
	}
	if (rc == 0 && *file != NULL && (rc = corpus_blend(&order, corpus, cfg->corpus.context, note)) == 0)
		rc = select_file_check(*file, order, cfg->run.seed, rows, block, kept, note);
	blend_destroy(&order);
	if (rc == 0)
		return file_replace_end(&out, true, note);
	file_replace_abort(&out);
	return rc;
}

static int
run(struct ctl_args *args)
{
	struct err_note note = {.name = ""};
	struct select_file *file = NULL;
	struct corpus *corpus = NULL;
	struct config *cfg = NULL;
	uint64_t rows;
	int exit_code, rc;

	if (!ctl_has(args, "config"))
		return ctl_usage(args, "give -c fleet.yaml: the scores belong to a run");
	if ((exit_code = ctl_open_config(args, CONFIG_NEED_CORPUS, &cfg)) != 0)
		return exit_code;
	if (cfg->selector.mode != CONFIG_MODE_FILE)
		exit_code = ctl_usage(args, "fleet.yaml has no selector.mode: file with a selector.file, which would be written");
	else
		exit_code = ctl_open_corpus(args, &cfg->corpus, cfg->corpus.train, CORPUS_TRAIN, &corpus, NULL);
	if (exit_code != 0)
		goto out;
	rows = (config_until_margin(cfg, NULL) ? cfg->trainer.steps : cfg->phase_one.steps) * cfg->trainer.batch;
	if ((rc = convert(args, cfg, corpus, &file, rows, &note)) != 0)
		exit_code = ctl_fail(args, rc, &note);
	else
		exit_code = report(args, file, cfg->selector.file, rows);
out:
	select_file_destroy(&file);
	corpus_destroy(&corpus);
	config_destroy(&cfg);
	return exit_code;
}

const struct ctl_verb ctl_scores_import = {
	.name = "scores import", .operands = "FILE", .summary = "check sequences or scores of another program, and make them selector.file",
	.about = "FILE is lines of JSON, {\"sequence\": N} or {\"sequence\": N, \"score\": S}, or a safetensors file with a\n"
	    "tensor \"sequence\" and perhaps a tensor \"score\" of the same length. Needs selector.mode: file in fleet.yaml,\n"
	    "whose selector.file is written. selector.file may also name a file of lines that was not imported.",
	.example = "saltctl scores import -c fleet.yaml perplexity.safetensors",
	.options = options, .min_operands = 1, .max_operands = 1, .run = run,
};
