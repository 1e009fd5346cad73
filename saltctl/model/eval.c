/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>
#include <unistd.h>

#include "fabric/config/config.h"
#include "data/corpus/corpus.h"
#include "data/tokenizer/tokenizer.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/folder.h"
#include "saltctl/model/eval.h"
#include "saltctl/model/lm.h"
#include "saltctl/core/output.h"
#include "base/clock/clock.h"
#include "base/file/file.h"

static const struct cli_option options[] = {
	{"model", "FOLDER", "a Hugging Face model folder, or a trainer's checkpoint (required)", false},
	{"corpus", "PREFIX", "the text to evaluate on; default corpus.heldout of -c", false},
	{"context", "L", "tokens of a sequence; default corpus.context of -c, else the model's longest", false},
	{"windows", "N", "only the first N sequences; default all", false},
	{"group", "N", "sequences of a micro-batch; default trainer.micro_batch of -c, else 8", false},
	{"lanes", "N", "number of separate sums; default trainer.lanes of -c, else 8", false},
	{"threads", "N", "default: all processors. The result does not depend on it", false},
	{"isolate-documents", NULL, "each document by itself, as with corpus.isolate_documents; the first token of one has no loss", false},
	{"by-sequence", "FILE", "write the loss of each sequence, as JSON lines: what `saltctl report --teacher-losses` reads; an earlier such file is "
	    "replaced", false},
	EVAL_TASK_OPTIONS,
	{"replace", NULL, "--by-sequence, --items: replace any file, not only one of an earlier call", false},
	CTL_DTYPE, CTL_CONFIG, CTL_JSON, CTL_END
};

struct evaluation {
	const struct ctl_args *args;
	struct lm lm;
	struct corpus *corpus;
	struct kernels_options kernels;
	struct config_corpus said;	/* type and isolation, from -c and the options */
	uint64_t context, windows, group, lanes, done;
	double *window_nats;		/* [windows] with --by-sequence */
	struct ctl_meter meter;
	struct err_note note;
};

static int
get_window(void *arg, uint64_t i, int32_t *out)
{
	struct evaluation *e = arg;

	ctl_meter_update(&e->meter, (double)e->done++ * (double)e->context);
	return corpus_window(e->corpus, CORPUS_SEQ_MAKE(CORPUS_HELDOUT, i), (uint32_t)e->context, out, &e->note);
}

static int
settings(struct evaluation *e, char prefix[4200])
{
	const struct ctl_args *args = e->args;
	struct config *cfg = NULL;
	uint64_t threads = 0;
	int exit_code;

	e->group = e->lanes = 8;
	if (ctl_has(args, "config")) {
		if ((exit_code = ctl_open_config(args, 0, &cfg)) != 0)
			return exit_code;
		snprintf(prefix, 4200, "%s", cfg->corpus.heldout);
		e->context = cfg->corpus.context;
		e->said = (struct config_corpus){.dtype = cfg->corpus.dtype, .isolate_documents = cfg->corpus.isolate_documents};
		e->windows = cfg->trainer.eval_sequences;
		e->group = cfg->trainer.micro_batch > 0 ? cfg->trainer.micro_batch : 8;
		e->lanes = cfg->trainer.lanes > 0 ? cfg->trainer.lanes : 8;
		e->kernels.backend = (enum kernels_backend)config_trainer_backend(cfg);
		e->kernels.dtype = (enum kernels_dtype)config_trainer_dtype(cfg);
		config_destroy(&cfg);
	}
	if ((exit_code = ctl_get_u64(args, "context", 1, INT32_MAX, &e->context)) != 0 ||
	    (exit_code = ctl_get_u64(args, "windows", 1, UINT64_MAX, &e->windows)) != 0 ||
	    (exit_code = ctl_get_u64(args, "group", 1, 1u << 16, &e->group)) != 0 ||
	    (exit_code = ctl_get_u64(args, "lanes", 1, 1u << 16, &e->lanes)) != 0 ||
	    (exit_code = ctl_get_u64(args, "threads", 1, 4096, &threads)) != 0)
		return exit_code;
	e->kernels.threads = (int)threads;
	e->said.isolate_documents |= ctl_has(args, "isolate-documents");
	return 0;
}

/* The tokenizer beside the model, if there is one that can be read, must be the corpus's. */
static int
check_tokenizer(struct evaluation *e, const char *prefix)
{
	const struct corpus_info *info = corpus_info(e->corpus);
	char path[4200], why[600], hex[2][HASH_HEX_BYTES];
	struct hash128 id;

	ctl_tokenizer_path(ctl_get(e->args, "model"), path, sizeof(path));
	if (!info->has_tokenizer || access(path, R_OK) != 0 || tokenizer_identify(path, &id, why, sizeof(why), &e->note) != 0 ||
	    why[0] != '\0' || hash_equal(id, info->tokenizer))
		return 0;
	return err_expect(&e->note, ERR_MISMATCH, "%s", "the tokenizer of corpus %.120s, %s", "%s; build the corpus with this tokenizer",
	    path, prefix, hash_hex(info->tokenizer, hex[0]), hash_hex(id, hex[1]));
}

static int
open_corpus(struct evaluation *e, const char *prefix)
{
	uint64_t n;
	int exit_code, rc;

	if ((exit_code = ctl_open_corpus(e->args, &e->said, prefix, CORPUS_HELDOUT, &e->corpus, NULL)) != 0)
		return exit_code;
	if ((rc = check_tokenizer(e, prefix)) != 0 ||
	    (rc = corpus_limit_vocab(e->corpus, (uint32_t)e->lm.model->config.vocab_size, &e->note)) != 0 ||
	    (rc = model_session_documents(e->lm.session, corpus_document_end(e->corpus))) != 0)
		return ctl_fail(e->args, rc, &e->note);
	n = corpus_n_windows(e->corpus, (uint32_t)e->context);
	if (n == 0)
		return ctl_fail(e->args, err_expect(&e->note, ERR_RANGE, "%s",
		    "at least context + 1 = %" PRIu64 " tokens", "%" PRIu64, prefix, e->context + 1,
		    corpus_n_tokens(e->corpus)), &e->note);
	if (e->windows == 0 || e->windows > n)
		e->windows = n;
	return 0;
}

static int
evaluate(struct evaluation *e, struct kernels_loss_sums *total)
{
	struct model_evaluation plan = {.n_windows = e->windows, .context = (int64_t)e->context,
	    .group = (int64_t)e->group, .lanes = (int64_t)e->lanes, .get = get_window, .arg = e,
	    .window_nats = e->window_nats};
	int rc = 0;

	*total = (struct kernels_loss_sums){.finite = true};
	ctl_meter_start(&e->meter, "eval", "tokens", (double)e->windows * (double)e->context);
	for (int64_t lane = 0; lane < plan.lanes && rc == 0; lane++) {
		struct kernels_loss_sums sums;

		if ((rc = model_evaluate_lane(e->lm.session, &plan, lane, &sums)) != 0)
			break;
		total->hard += sums.hard;
		total->correct += sums.correct;
		total->rows += sums.rows;
		total->finite = total->finite && sums.finite;
	}
	ctl_meter_end(&e->meter);
	if (rc == 0 && !total->finite)
		rc = err_note_set(&e->note, ERR_NONFINITE, "loss");
	return rc;
}

int
eval_out_check(const struct ctl_args *args, const char *path, const char *ours, struct err_note *note)
{
	int rc = ctl_may_write(path, ours, ctl_has(args, "replace"), note);
	struct file_replace file;

	if (rc == 0 && (rc = file_replace_begin(&file, path, note)) == 0)
		file_replace_abort(&file);
	return rc;
}

/* Writes the file of --by-sequence. */
static int
write_losses(struct evaluation *e)
{
	struct file_replace file;
	int rc;

	if (e->window_nats == NULL)
		return 0;
	if ((rc = file_replace_begin(&file, ctl_get(e->args, "by-sequence"), &e->note)) != 0)
		return rc;
	for (uint64_t i = 0; i < e->windows; i++)
		fprintf(file.f, "{\"sequence\": %" PRIu64 ", \"loss\": %.9g}\n", i, e->window_nats[i]);
	return file_replace_end(&file, false, &e->note);
}

static int
print(const struct evaluation *e, const char *corpus, const struct kernels_loss_sums *total, double seconds)
{
	const struct corpus_info *info = corpus_info(e->corpus);
	double loss = total->hard / (double)total->rows,
	    accuracy = (double)total->correct / (double)total->rows, bits = NAN;
	char buf[32];

	if (info->n_bytes > 0)
		bits = loss / log(2.0) * (double)info->n_tokens / (double)info->n_bytes;
	if (ctl_has(e->args, "json"))
		return ctl_print_json(ctl_record(CTL("model", ctl_get(e->args, "model")), CTL("corpus", corpus),
		    CTL("context", e->context), CTL("windows", e->windows), CTL("tokens", total->rows),
		    CTL("log_perplexity", loss), CTL("accuracy", accuracy), CTL("bits_per_byte", bits),
		    CTL("seconds", seconds)));
	ctl_line("log-perplexity", "%.6f nats a token (perplexity %.3f)", loss, exp(loss));
	ctl_line("token accuracy", "%.4f %%", 100 * accuracy);
	ctl_line("bits per byte",
	    isfinite(bits) ? "%.6f" : "not known: the corpus does not record the length of its text", bits);
	ctl_line("over", "%" PRId64 " tokens, %" PRIu64 " sequences of %" PRIu64, total->rows, e->windows, e->context);
	ctl_line("took", "%s", ctl_span(seconds, buf));
	return 0;
}

static int
eval(struct ctl_args *args)
{
	struct evaluation e = {.args = args};
	const char *model = ctl_need(args, "model"), *corpus;
	char prefix[4200] = "";
	struct kernels_loss_sums total;
	double start = clock_now_s();
	int exit_code, rc;

	if (model == NULL)
		return EX_USAGE;
	if ((exit_code = settings(&e, prefix)) != 0 || eval_task(args, &e.kernels, e.context, &exit_code))
		return exit_code;
	corpus = ctl_has(args, "corpus") ? ctl_get(args, "corpus") : prefix;
	if (corpus[0] == '\0')
		return ctl_usage(args, "which text? give --corpus PREFIX, or -c fleet.yaml with corpus.heldout");
	if ((rc = lm_open(&e.lm, model, &e.kernels, (int64_t)e.group, (int64_t)e.context, &e.note)) != 0) {
		exit_code = ctl_fail(args, rc, &e.note);
		goto out;
	}
	if (e.context == 0)
		e.context = (uint64_t)e.lm.model->config.context;
	if ((exit_code = open_corpus(&e, corpus)) != 0)
		goto out;
	rc = 0;
	if (ctl_has(args, "by-sequence")) {
		e.window_nats = ctl_alloc(e.windows, sizeof(*e.window_nats));
		/* before the work, which would be lost if the file cannot be written */
		rc = eval_out_check(
		    args, ctl_get(args, "by-sequence"), "{\"sequence\": #, \"loss\": ", &e.note);
	}
	if (rc != 0 || (rc = evaluate(&e, &total)) != 0) {
		exit_code = ctl_fail(args, rc, &e.note);
		goto out;
	}
	rc = write_losses(&e);
	exit_code = print(&e, corpus, &total, clock_now_s() - start);	/* the result is shown in any case */
	if (rc != 0)
		exit_code = ctl_fail(args, rc, &e.note);
out:
	free(e.window_nats);
	corpus_destroy(&e.corpus);
	lm_close(&e.lm);
	return exit_code;
}

const struct ctl_verb ctl_eval = {
	.name = "eval", .operands = "", .summary = "log-perplexity, token accuracy and bits per byte of a model",
	.about = "With -c fleet.yaml and a checkpoint of its trainer the result equals the trainer's, bit for bit,\n"
	    "on the same kind of processor: the sums are made in its order (micro-batches of trainer.micro_batch,\n"
	    "trainer.lanes lanes). Bits per byte is over the whole corpus's tokens and bytes.",
	.example = "saltctl eval --model run/checkpoints/step_00000200 --corpus data/heldout --context 128",
	.options = options, .run = eval,
};
