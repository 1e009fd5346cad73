/* SPDX-License-Identifier: Apache-2.0 */
/* table - every option. docs/config.md, config_print and config_identity_diff follow this order. */
#include <math.h>
#include <string.h>
#include "base/err/nearest.h"
#include "fabric/config/config_internal.h"

static const struct config__word serve_words[] = {
	{ "score", CONFIG_SERVE_SCORE }, { "label", CONFIG_SERVE_LABEL }, { "both", CONFIG_SERVE_BOTH }, { NULL, 0 } };
static const struct config__word kind_words[] = {
	{ "sampled", LABELS_KIND_SAMPLED }, { "topk", LABELS_KIND_TOPK }, { "dense", LABELS_KIND_DENSE }, { NULL, 0 } };
static const struct config__word mode_words[] = {
	{ "none", CONFIG_MODE_NONE }, { "salt_ds", CONFIG_MODE_SALT_DS }, { "file", CONFIG_MODE_FILE }, { NULL, 0 } };
static const struct config__word optimizer_words[] = {
	{ "adamw", CONFIG_OPTIMIZER_ADAMW }, { "muon", CONFIG_OPTIMIZER_MUON }, { NULL, 0 } };
static const struct config__word schedule_words[] = {
	{ "cosine", CONFIG_SCHEDULE_COSINE }, { "linear", CONFIG_SCHEDULE_LINEAR }, { "wsd", CONFIG_SCHEDULE_WSD },
	{ "constant", CONFIG_SCHEDULE_CONSTANT }, { NULL, 0 } };
static const struct config__word dtype_words[] = {
	{ "auto", CONFIG_DTYPE_AUTO }, { "fp32", CONFIG_DTYPE_FP32 }, { "bf16", CONFIG_DTYPE_BF16 }, { NULL, 0 } };
static const struct config__word ids_words[] = {
	{ "auto", CORPUS_DTYPE_NONE }, { "uint16", CORPUS_DTYPE_UINT16 }, { "uint32", CORPUS_DTYPE_UINT32 }, { "int32", CORPUS_DTYPE_INT32 },
	{ NULL, 0 } };
static const struct config__word switch_words[] = {
	{ "auto", CONFIG_SWITCH_AUTO }, { "on", CONFIG_SWITCH_ON }, { "off", CONFIG_SWITCH_OFF }, { NULL, 0 } };
static const struct config__word residual_words[] = {
	{ "true_token", CONFIG_RESIDUAL_TRUE_TOKEN }, { "ghost", CONFIG_RESIDUAL_GHOST },
	{ "renormalise", CONFIG_RESIDUAL_RENORMALISE }, { NULL, 0 } };
static const struct config__word token_weight_words[] = {
	{ "constant", CONFIG_TOKEN_WEIGHT_CONSTANT }, { "teacher_confidence", CONFIG_TOKEN_WEIGHT_TEACHER_CONFIDENCE },
	{ "margin", CONFIG_TOKEN_WEIGHT_MARGIN }, { NULL, 0 } };
static const struct config__word handover_words[] = {
	{ "step", CONFIG_HANDOVER_STEP }, { "linear", CONFIG_HANDOVER_LINEAR }, { "ratio", CONFIG_HANDOVER_RATIO }, { NULL, 0 } };
static const struct config__word late_words[] = {
	{ "wait", CONFIG_LATE_WAIT }, { "hard", CONFIG_LATE_HARD }, { NULL, 0 } };
static const struct config__word backend_words[] = {
	{ "auto", CONFIG_BACKEND_AUTO }, { "openblas", CONFIG_BACKEND_OPENBLAS }, { "onednn", CONFIG_BACKEND_ONEDNN },
	{ "cuda", CONFIG_BACKEND_CUDA }, { NULL, 0 } };

/* The field's offset. A line of the table with another type than the field's does not compile. */
#define AT(s, f, ctype) (offsetof(struct config, s.f) + 0 * sizeof((ctype *)0 == &((struct config *)0)->s.f))
#define AT_ENUM(s, f) (offsetof(struct config, s.f) + 0 * sizeof(char[sizeof(((struct config *)0)->s.f) == sizeof(int) ? 1 : -1]))

#define KEY(s, f) .section = #s, .name = #f, .key = #s "." #f
#define OPT_PATH(s, f, c, d, h) { KEY(s, f), .type = CONFIG__PATH, .class = CONFIG__##c, .offset = AT(s, f, char *), .def = d, \
	.unit = "", .help = h }
#define OPT_CORPUS(s, f, c, d, h) { KEY(s, f), .type = CONFIG__CORPUS, .class = CONFIG__##c, .offset = AT(s, f, char *), .def = d, \
	.open = true, .flo = 0, .fhi = 1e15, .unit = "", .help = h }
#define OPT_COMPUTE_CLASS(s, f, c, d, h) { KEY(s, f), .type = CONFIG__COMPUTE_CLASS, .class = CONFIG__##c, .offset = AT(s, f, char *), \
	.def = d, .unit = "", .help = h }
#define OPT_ENDPOINT(s, f, c, d, h) { KEY(s, f), .type = CONFIG__ENDPOINT, .class = CONFIG__##c, .offset = AT(s, f, char *), \
	.def = d, .unit = "", .help = h }
#define OPT_ENDPOINTS(s, f, c, d, h) { KEY(s, f), .type = CONFIG__ENDPOINTS, .class = CONFIG__##c, \
	.offset = AT(s, f, struct config_texts), .def = d, .unit = "", .help = h }
#define OPT_PATHS(s, f, c, h) { KEY(s, f), .type = CONFIG__PATHS, .class = CONFIG__##c, .offset = AT(s, f, struct config_texts), \
	.def = "[]", .unit = "", .help = h }
#define OPT_NUMBERS(s, f, c, d, l, u, un, h) { KEY(s, f), .type = CONFIG__NUMBERS, .class = CONFIG__##c, \
	.offset = AT(s, f, struct config_numbers), .def = d, .lo = l, .hi = u, .unit = un, .help = h }
#define OPT_U32(s, f, c, d, l, u, un, ...) { KEY(s, f), .type = CONFIG__U32, .class = CONFIG__##c, .offset = AT(s, f, uint32_t), \
	.def = d, .lo = l, .hi = u, .unit = un, .help = __VA_ARGS__ }
#define OPT_U64(s, f, c, d, l, u, w, un, ...) { KEY(s, f), .type = CONFIG__U64, .class = CONFIG__##c, .offset = AT(s, f, uint64_t), \
	.def = d, .lo = l, .hi = u, .word = w, .unit = un, .help = __VA_ARGS__ }
#define OPT_BYTES(s, f, c, d, l, u, h) { KEY(s, f), .type = CONFIG__BYTES, .class = CONFIG__##c, .offset = AT(s, f, uint64_t), \
	.def = d, .lo = l, .hi = u, .unit = "bytes", .help = h }
#define OPT_FLOAT(s, f, c, d, o, l, u, w, un, ...) { KEY(s, f), .type = CONFIG__FLOAT, .class = CONFIG__##c, \
	.offset = AT(s, f, double), .def = d, .open = o, .flo = l, .fhi = u, .word = w, .unit = un, .help = __VA_ARGS__ }
#define OPT_PAIR(s, f, c, d, l, u, h) { KEY(s, f), .type = CONFIG__PAIR, .class = CONFIG__##c, .offset = AT(s, f[0], double), \
	.def = d, .flo = l, .fhi = u, .unit = "", .help = h }
#define OPT_FLAG(s, f, c, d, h) { KEY(s, f), .type = CONFIG__FLAG, .class = CONFIG__##c, .offset = AT(s, f, bool), .def = d, \
	.unit = "", .help = h }
#define OPT_CHOICE(s, f, c, d, w, h) { KEY(s, f), .type = CONFIG__CHOICE, .class = CONFIG__##c, .offset = AT_ENUM(s, f), .def = d, \
	.choices = w, .unit = "", .help = h }

#define U53 (1ULL << 53)
#define YEAR_S 31536000.0

const struct config__option config__table[] = {
	OPT_PATH(run, dir, HOST, NULL, "directory of this run: checkpoints, logs, metrics, announcements"),
	OPT_U32(run, seed, IDENTITY, "1", 0, UINT32_MAX, "", "seed of the initial weights and of the shuffle order"),

	OPT_CORPUS(corpus, train, HOST, NULL, "prefix of the training corpus: PREFIX.bin, PREFIX.idx, PREFIX.json; a list blends several in the "
	    "shares of their weights"),
	OPT_PATH(corpus, heldout, HOST, "", "prefix of the held-out corpus; empty: no evaluation"),
	OPT_U32(corpus, context, IDENTITY, NULL, 1, 1U << 24, "tokens",
	    "context L, the length of a sequence: L inputs and L targets"),
	OPT_CHOICE(corpus, dtype, HOST, "auto", ids_words,
	    "type of the ids in raw token files; auto: the file's format or PREFIX.json states it"),
	OPT_FLAG(corpus, isolate_documents, IDENTITY, "false",
	    "attention, positions and labels do not cross the borders of documents inside a sequence; a border is the corpus's end-of-document id"),

	OPT_PATH(cache, dir, HOST, NULL,
	    "directory of scores, labels and rows, on a local file system; several runs can share it"),
	OPT_FLAG(cache, keep_unselected, TUNABLE, "false",
	    "keep the labels of sequences that selection did not choose"),
	OPT_BYTES(cache, map_size, HOST, "1TiB", 1 << 20, 1ULL << 46,
	    "initial address space of the cache's file, which is sparse and grows; warning at 80 % use, no new leases at 95 %"),

	OPT_PATH(teacher, model, HOST, NULL, "directory of the small model that makes labels"),
	OPT_PATH(teacher, scorer, HOST, "",
	    "directory of the small model that scores, such as an early checkpoint; empty: teacher.model"),
	OPT_COMPUTE_CLASS(teacher, compute_class, IDENTITY, "auto",
	    "compute class of the scores and labels; auto: that of compute.backend and compute.dtype, every teacher gives the same bits. "
	    "A name: for teachers that do not, such as PyTorch on a GPU; each of them announces it, and the first label of a sequence stays"),
	OPT_CHOICE(teacher, serve, HOST, "both", serve_words, "what a teacherd with this file offers to do"),
	OPT_U32(teacher, threads, HOST, "0", 0, 4096, "threads", "threads of one teacherd; 0: all processors that it may use"),

	OPT_CHOICE(labels, kind, IDENTITY, "sampled", kind_words,
	    "soft labels hold N draws from the teacher, its k most probable ids, or all ids"),
	OPT_U32(labels, samples, IDENTITY, "50", 1, 65535, "draws",
	    "N, draws for each token in sampled labels, with replacement"),
	OPT_U32(labels, k, IDENTITY, "64", 1, 1U << 20, "ids",
	    "k, ids for each token in topk labels; at most the vocabulary"),
	OPT_FLOAT(labels, tau, IDENTITY, "1", false, 0.01, 100, NULL, "",
	    "temperature of the teacher's distribution; the student's is 1"),
	OPT_U32(labels, seed, IDENTITY, "1", 0, UINT32_MAX, "", "seed of the draws of sampled labels"),

	OPT_CHOICE(selector, mode, IDENTITY, "none", mode_words,
	    "rows of phase one: every sequence in order, those chosen by the scorer, or what selector.file says"),
	OPT_PATH(selector, file, HOST, "",
	    "of mode file: sequences or scores of another program, lines of JSON; its content is part of the rows' identity"),
	OPT_U32(selector, k, IDENTITY, "10", 1, 255, "ids",
	    "a token counts in a sequence score if it is among the scorer's k most probable ids"),
	OPT_U64(selector, block, IDENTITY, "512", 1, 1ULL << 32, NULL, "sequences",
	    "W: sequences in a selection block, the set that is chosen from at a time", .was = "selector.window"),
	OPT_FLOAT(selector, keep_share, IDENTITY, "0.5", true, 0, 1, NULL, "",
	    "share of a block that becomes rows: floor(keep_share * W) sequences, highest score first", .was = "selector.keep"),
	OPT_U64(selector, pool, IDENTITY, "0", 0, 1ULL << 40, NULL, "sequences",
	    "one global block of this many sequences instead of blocks of W; 0: off"),
	OPT_FLAG(selector, by_part, IDENTITY, "true",
	    "corpus.train is a list: rows are chosen within each corpus, in the shares of the weights; false: among all sequences of a block"),
	OPT_ENDPOINTS(selector, endpoints, HOST, "[tcp://127.0.0.1:5750]",
	    "data sockets of selectord, one for each shard, in shard order"),
	OPT_U64(selector, label_ahead_steps, TUNABLE, "32", 1, U53, "all", "steps",
	    "labels are made this far ahead of the trainer"),
	OPT_FLOAT(selector, lease_s, TUNABLE, "60", false, 0.1, 86400, NULL, "seconds",
	    "a lease that is not renewed for this long expires, and its sequences go to another teacher"),
	OPT_U32(selector, lease_sequences, TUNABLE, "8", 1, 1024, "sequences",
	    "largest number of sequences in one lease", .was = "selector.lease_rows"),
	OPT_U32(selector, commit_ms, TUNABLE, "50", 0, 60000, "milliseconds",
	    "time between commits while fewer than 1024 records wait; 0: commit at once"),
	OPT_FLOAT(selector, teacher_idle_s, TUNABLE, "600", false, 0, YEAR_S, NULL, "seconds",
	    "teachers without work for this long are released; 0: never"),
	OPT_U32(selector, quarantine_teachers, TUNABLE, "3", 1, 3, "teachers",
	    "a sequence that so many different teachers fail on is trained without the teacher from then on"),
	OPT_FLOAT(selector, max_quarantined, TUNABLE, "0.01", false, 0, 1, NULL, "",
	    "largest share of sequences in quarantine that a phase one trains with; beyond it, the run stops"),

	OPT_PATH(trainer, model, HOST, NULL, "the student: a model directory or a config.json that describes it"),
	OPT_PATH(trainer, init, HOST, "",
	    "model directory with initial weights; empty: random weights from run.seed"),
	OPT_U64(trainer, steps, TUNABLE, NULL, 1, U53, NULL, "steps", "length of the run"),
	OPT_U32(trainer, batch, IDENTITY, NULL, 1, 1U << 24, "sequences",
	    "sequences in one optimizer step, over all ranks"),
	OPT_U32(trainer, micro_batch, IDENTITY, "0", 0, 1U << 24, "sequences",
	    "sequences in one forward and backward pass; 0: batch / lanes"),
	OPT_U32(trainer, lanes, IDENTITY, "8", 1, 1024, "lanes",
	    "parts of a batch whose gradients are summed apart and added in a fixed tree; a power of two that the ranks divide"),
	OPT_CHOICE(trainer, optimizer, IDENTITY, "adamw", optimizer_words,
	    "muon: orthogonalized momentum for the matrices of the layers, AdamW with the same learning rate for all else"),
	OPT_FLOAT(trainer, lr, TUNABLE, "0.0003", true, 0, 10, NULL, "", "peak learning rate"),
	OPT_FLOAT(trainer, min_lr_ratio, TUNABLE, "0.1", false, 0, 1, NULL, "",
	    "final learning rate as a fraction of lr"),
	OPT_U64(trainer, warmup, TUNABLE, "0", 0, U53, NULL, "steps",
	    "linear warm-up of the learning rate; 1 to 10 % of the steps is usual"),
	OPT_CHOICE(trainer, schedule, TUNABLE, "cosine", schedule_words, "learning rate schedule after the warm-up"),
	OPT_U64(trainer, decay_steps, TUNABLE, "0", 0, U53, NULL, "steps",
	    "length of the final decay of wsd; 0: a tenth of the steps"),
	OPT_FLOAT(trainer, weight_decay, TUNABLE, "0.1", false, 0, 10, NULL, "",
	    "weight decay of either optimizer, applied to matrices only"),
	OPT_PAIR(trainer, betas, TUNABLE, "[0.9, 0.95]", 0, 0.9999999, "beta1 and beta2 of AdamW"),
	OPT_FLOAT(trainer, eps, TUNABLE, "1e-08", true, 0, 1, NULL, "", "epsilon of AdamW"),
	OPT_FLOAT(trainer, clip, TUNABLE, "1", false, 0, 1e6, NULL, "",
	    "gradient clipping: largest norm of the gradient; 0: off"),
	OPT_CHOICE(trainer, dtype, TUNABLE, "auto", dtype_words,
	    "number format of the trainer's arithmetic; master weights are fp32; auto: compute.dtype"),
	OPT_CHOICE(trainer, backend, TUNABLE, "auto", backend_words, "library or device of the trainer's arithmetic; auto: compute.backend"),
	OPT_CHOICE(trainer, deterministic, TUNABLE, "auto", switch_words,
	    "same bits at any number of ranks; auto: on for CPUs"),
	OPT_FLAG(trainer, recompute, TUNABLE, "false",
	    "activation recomputation in backward: less memory, about a third more work, the same bits"),
	OPT_U32(trainer, threads, TUNABLE, "0", 0, 4096, "threads",
	    "threads of one rank; 0: its share of the processors that this host's ranks may use"),
	OPT_U32(trainer, ranks, HOST, "1", 1, 1024, "ranks",
	    "ranks that deploy starts with mpirun; trainerd itself uses the size that MPI reports"),
	OPT_U64(trainer, checkpoint_every, TUNABLE, "100", 0, U53, NULL, "steps",
	    "interval of checkpoints; 0: only at the switch, at a stop and at the end"),
	OPT_U32(trainer, keep_checkpoints, TUNABLE, "2", 1, 1U << 20, "checkpoints",
	    "number of complete checkpoints to keep; older ones are deleted", .was = "trainer.keep"),
	OPT_NUMBERS(trainer, keep_steps, TUNABLE, "[]", 1, U53, "steps",
	    "steps at which a checkpoint is written and never deleted"),
	OPT_U64(trainer, eval_every, TUNABLE, "100", 0, U53, NULL, "steps",
	    "interval of evaluations; 0: only at the switch and at the end"),
	OPT_U64(trainer, eval_sequences, TUNABLE, "0", 0, U53, NULL, "sequences",
	    "held-out sequences in an evaluation, from the first on; 0: all", .was = "trainer.eval_windows"),
	OPT_PATHS(trainer, eval_choices, HOST,
	    "files that each evaluation judges the student by: choices, minimal pairs or last words, JSON lines; or folders of them"),
	OPT_FLAG(trainer, tensorboard, TUNABLE, "true", "write scalars of every step for TensorBoard to run.dir/tb"),
	OPT_FLOAT(trainer, wait_max_s, TUNABLE, "600", false, 0, YEAR_S, NULL, "seconds",
	    "longest wait for rows; then the trainer writes a checkpoint and exits with 75; 0: no limit"),
	OPT_FLOAT(trainer, stall_s, TUNABLE, "60", false, 1, YEAR_S, NULL, "seconds",
	    "a rank without progress for this long, or for ten steps if that is longer, ends the run with exit code 75"),

	OPT_U64(phase_one, steps, TUNABLE, "0", 0, U53, NULL, "steps",
	    "steps with the teacher's labels; 0: no phase one, unless until_margin is given"),
	OPT_FLOAT(phase_one, until_margin, TUNABLE, "none", false, -100, 100, "none", "nats",
	    "phase one ends when the student's held-out loss is at most the teacher's plus this"),
	OPT_FLOAT(phase_one, weight, TUNABLE, "0.667", false, 0, 1, NULL, "",
	    "distillation weight w: weight of the soft label in the loss; the next token has 1 - w"),
	OPT_CHOICE(phase_one, token_weight, TUNABLE, "constant", token_weight_words,
	    "w of each token: the same, by the teacher's probability of the next token, or by how far the student's is below it"),
	OPT_CHOICE(phase_one, residual, TUNABLE, "true_token", residual_words,
	    "tail of topk labels: give it to the next token, to one class of its own, or rescale the k ids to a sum of 1"),
	OPT_CHOICE(phase_one, handover, TUNABLE, "step", handover_words,
	    "end of phase one: at once, with w falling linearly, or with w / (1 - w) falling linearly"),
	OPT_U64(phase_one, handover_steps, TUNABLE, "0", 0, U53, NULL, "steps",
	    "number of last steps of phase one in which linear and ratio fall"),
	OPT_CHOICE(phase_one, late, TUNABLE, "wait", late_words,
	    "rows whose labels are late: wait for them, or train them without the teacher (a repeated run may then differ)"),

	OPT_FLAG(checkpoint, gather, HOST, "false",
	    "rank 0 gathers and writes everything; needed where ranks share no file system"),

	OPT_CHOICE(compute, backend, HOST, "auto", backend_words, "library for matrix products, or cuda: an NVIDIA GPU by the plug-in "
	    "libsalt_cuda.so; auto: a GPU where plug-in and device are there, else a CPU library"),
	OPT_CHOICE(compute, dtype, HOST, "auto", dtype_words,
	    "number format of the arithmetic; backend and dtype are the compute class under which scores and labels are stored"),

	OPT_BYTES(bus, max_message, HOST, "16MiB", 64 << 10, 1 << 30,
	    "largest message that is sent or accepted; a larger one ends the connection"),

	OPT_PATH(security, curve_dir, HOST, "",
	    "directory of CURVE keys; empty: no encryption, and loopback addresses only"),
	OPT_FLAG(security, allow_plain_remote, HOST, "false", "allow endpoints outside of this machine without keys"),

	OPT_ENDPOINT(status, bind, HOST, "tcp://127.0.0.1:*",
	    "status socket of each daemon; *: any free port, announced in run.dir/daemons"),

	OPT_U32(deploy, teachers, HOST, "1", 0, 4096, "processes", "teacherd processes that deploy starts"),
};

const size_t config__n_options = sizeof(config__table) / sizeof(config__table[0]);

const struct config__option *
config__find(const char *key)
{
	for (size_t i = 0; i < config__n_options; i++)
		if (strcmp(config__table[i].key, key) == 0 || (config__table[i].was != NULL && strcmp(config__table[i].was, key) == 0))
			return &config__table[i];
	return NULL;
}

static const char *
key_at(const void *arg, size_t i)
{
	const bool *sections = arg;

	return i == config__n_options ? NULL : *sections ? config__table[i].section : config__table[i].key;
}

static const char *
nearest(const char *key)
{
	const char *dot = strchr(key, '.'), *name = dot != NULL ? dot + 1 : key, *found = NULL;
	size_t best = SIZE_MAX;
	bool sections = dot == NULL;

	/* The right name with a wrong section or none: of several options the one whose key is most similar. */
	for (size_t i = 0; i < config__n_options; i++) {
		const struct config__option *o = &config__table[i];
		size_t d = strcmp(name, o->name) == 0 ? err_distance(key, o->key) : SIZE_MAX;

		if (d < best) {
			best = d;
			found = o->key;
		}
	}
	if (found != NULL || (found = err_nearest(key, key_at, &sections)) == NULL)
		return found;
	return err_distance(key, found) <= (strlen(name) < 6 ? 2 : strlen(name) / 3) ? found : NULL;
}

int
config__unknown(struct err_note *note, const char *key, const char *what)
{
	const char *near = nearest(key);

	if (near != NULL)
		return err_expect(note, ERR_CONFIG, "", "%s (did you mean %s?)", "an unknown key", what, near);
	return err_expect(note, ERR_CONFIG, "", "%s", "an unknown key", what);
}
