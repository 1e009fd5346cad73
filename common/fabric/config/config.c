/* SPDX-License-Identifier: Apache-2.0 */
/* config - reads files, checks options against each other, answers questions about the settings. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/file/file.h"
#include "fabric/config/config_internal.h"

int
config_load(const char *path, const char *const *overrides, size_t n, struct config **cfg, struct err_note *note)
{
	char *text = NULL, *full = NULL, *dir = NULL, *slash;
	size_t len = 0;
	int rc = 0;

	*cfg = NULL;
	if (path == NULL) {
		if ((dir = getcwd(NULL, 0)) == NULL)
			return err_note_set(note, errno, "working directory");
		rc = config_load_text("", 0, "", dir, overrides, n, cfg, note);
		goto out;
	}
	if ((rc = file_read(path, CONFIG__FILE_BYTES_MAX, &text, &len, note)) != 0) {
		rc = rc == ERR_RANGE ? ERR_CONFIG : rc;
		goto out;
	}
	/* Relative paths start at the folder of the name as given, even if that is a link to a file elsewhere. */
	if ((full = strdup(path)) == NULL) {
		rc = ENOMEM;
		goto out;
	}
	if ((slash = strrchr(full, '/')) != NULL)
		slash[slash == full ? 1 : 0] = '\0';
	dir = realpath(slash != NULL ? full : ".", NULL);
	rc = dir != NULL ? config_load_text(text, len, path, dir, overrides, n, cfg, note) : err_note_set(note, errno, "directory of %s", path);
out:
	free(text);
	free(full);
	free(dir);
	return rc;
}

const char *
config_origin(const struct config *cfg, const char *key, char *buf, size_t size)
{
	const struct config__origin *o = config__origin_of(cfg, key);

	if (o == NULL)
		snprintf(buf, size, "?");
	else if (o->source == CONFIG__FILE)
		snprintf(buf, size, "line %u", o->line);
	else
		snprintf(buf, size, "%s", o->source == CONFIG__DEFAULT ? "default" : o->source == CONFIG__SET ? "--set" : "derived");
	return buf;
}

/* Fills in note for two options that contradict each other, with their values and origins. */
static int __attribute__((format(printf, 5, 6)))
clash(const struct config *cfg, struct err_note *note, const char *a, const char *b, const char *fmt, ...)
{
	const char *key[2] = { a, b };
	char value[2][120], origin[2][32], expected[256];
	unsigned line = 0;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(expected, sizeof(expected), fmt, ap);
	va_end(ap);
	for (int i = 0; i < 2 && key[i] != NULL; i++) {
		const struct config__origin *o = config__origin_of(cfg, key[i]);

		config_get_text(cfg, key[i], value[i], sizeof(value[i]));
		config_origin(cfg, key[i], origin[i], sizeof(origin[i]));
		if (line == 0 && o != NULL && o->source == CONFIG__FILE)
			line = o->line;
	}
	if (line > 0)
		err_note_set(note, ERR_CONFIG, "%s:%u", cfg->own->file, line);
	else
		err_note_set(note, ERR_CONFIG, "%s", cfg->own->file[0] != '\0' ? cfg->own->file : "options");
	err_note_place(note, "%s", a);
	err_note_expected(note, "%s", expected);
	if (b != NULL)
		err_note_found(note, "%s %s (%s) with %s %s (%s)", a, value[0], origin[0], b, value[1], origin[1]);
	else
		err_note_found(note, "%s (%s)", value[0], origin[0]);
	return ERR_CONFIG;
}

static int
validate_remote(const struct config *cfg, struct err_note *note)
{
	if (cfg->security.curve_dir[0] != '\0' || cfg->security.allow_plain_remote)
		return 0;
	for (size_t i = 0; i < cfg->selector.endpoints.n; i++)
		if (!config__loopback(cfg->selector.endpoints.item[i]))
			return clash(cfg, note, "selector.endpoints", NULL,
			    "loopback endpoints only, security.curve_dir, or security.allow_plain_remote: true");
	if (!config__loopback(cfg->status.bind))
		return clash(cfg, note, "status.bind", NULL,
		    "a loopback endpoint, security.curve_dir, or security.allow_plain_remote: true");
	return 0;
}

static int
validate_trainer(const struct config *cfg, struct err_note *note)
{
	const struct config_trainer *t = &cfg->trainer;
	uint32_t lane = t->batch / t->lanes;

	if ((t->lanes & (t->lanes - 1)) != 0)
		return clash(cfg, note, "trainer.lanes", NULL, "a power of two");
	if (t->lanes % t->ranks != 0)
		return clash(cfg, note, "trainer.ranks", "trainer.lanes", "ranks that divide the lanes");
	if (t->batch > 0 && t->batch % t->lanes != 0)
		return clash(cfg, note, "trainer.batch", "trainer.lanes", "a multiple of the lanes");
	if (t->batch > 0 && (t->micro_batch > lane || lane % t->micro_batch != 0))
		return clash(cfg, note, "trainer.micro_batch", "trainer.batch", "a divisor of batch / lanes, which is %" PRIu32, lane);
	if (t->steps == 0)
		return 0;			/* not given; config_require checks that */
	if (t->batch > 0 && t->steps > (uint64_t)INT64_MAX / t->batch)	/* rows are counted in 63 bits */
		return clash(cfg, note, "trainer.steps", "trainer.batch",
		    "at most %" PRIu64 " steps of so many sequences", (uint64_t)INT64_MAX / t->batch);
	if (t->warmup > t->steps)
		return clash(cfg, note, "trainer.warmup", "trainer.steps", "at most the steps");
	if (t->schedule == CONFIG_SCHEDULE_WSD && t->decay_steps > t->steps - t->warmup)
		return clash(cfg, note, "trainer.decay_steps", "trainer.steps", "at most the steps after the warm-up, %" PRIu64,
		    t->steps - t->warmup);
	if (cfg->phase_one.steps > t->steps)
		return clash(cfg, note, "phase_one.steps", "trainer.steps", "at most the steps of the run");
	for (size_t i = 0; i < t->keep_steps.n; i++)
		if (t->keep_steps.item[i] > t->steps)
			return clash(cfg, note, "trainer.keep_steps", "trainer.steps",
			    "steps up to the end of the run");
	return 0;
}

int
config__validate(const struct config *cfg, struct err_note *note)
{
	const struct config_phase_one *p = &cfg->phase_one;
	uint64_t block, kept;
	int rc;

	if ((rc = validate_trainer(cfg, note)) != 0)
		return rc;
	if (p->steps > 0 && config_until_margin(cfg, NULL))
		return clash(cfg, note, "phase_one.until_margin", "phase_one.steps", "steps or until_margin, not both");
	if (config_until_margin(cfg, NULL) && cfg->corpus.heldout[0] == '\0')
		return clash(cfg, note, "phase_one.until_margin", "corpus.heldout", "a held-out corpus to measure the margin on");
	if (cfg->trainer.eval_choices.n > 0 && cfg->corpus.heldout[0] == '\0')
		return clash(cfg, note, "trainer.eval_choices", "corpus.heldout",
		    "a held-out corpus, because evaluations measure both");
	if (p->handover != CONFIG_HANDOVER_STEP && config_phase_one(cfg)) {
		if (p->handover_steps == 0)
			return clash(cfg, note, "phase_one.handover_steps", "phase_one.handover", "at least one step");
		if (p->steps > 0 && p->handover_steps > p->steps)
			return clash(cfg, note, "phase_one.handover_steps", "phase_one.steps", "at most the steps of phase one");
	}
	if (cfg->selector.mode == CONFIG_MODE_FILE && cfg->selector.file[0] == '\0')
		return clash(cfg, note, "selector.file", "selector.mode", "a file of sequences or scores");
	config_block(cfg, &block, &kept);
	if (kept < 1)
		return clash(cfg, note, "selector.keep_share",
		    cfg->selector.pool > 0 ? "selector.pool" : "selector.block",
		    "at least one sequence kept from a block");
	return validate_remote(cfg, note);
}

int
config_require(const struct config *cfg, unsigned needs, struct err_note *note)
{
	static const struct { unsigned need; const char *key; } keys[] = {
		{ CONFIG_NEED_RUN, "run.dir" }, { CONFIG_NEED_CORPUS, "corpus.train" }, { CONFIG_NEED_CORPUS, "corpus.context" },
		{ CONFIG_NEED_HELDOUT, "corpus.heldout" }, { CONFIG_NEED_CACHE, "cache.dir" }, { CONFIG_NEED_TEACHER, "teacher.model" },
		{ CONFIG_NEED_TRAINER, "trainer.model" }, { CONFIG_NEED_TRAINER, "trainer.steps" },
		{ CONFIG_NEED_TRAINER | CONFIG_NEED_BATCH, "trainer.batch" },
	};
	char buf[256], value[16];

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const struct config__option *o = config__find(keys[i].key);

		config_get_text(cfg, o->key, value, sizeof(value));
		if ((needs & keys[i].need) == 0 || (config__given(cfg, o) && value[0] != '\0'))
			continue;
		return err_expect_at(note, ERR_CONFIG, "%s", "%s", "%s: %s", "nothing", cfg->own->file[0] != '\0' ? cfg->own->file : "options",
		    o->key, config__expected(o, buf, sizeof(buf)), o->help);
	}
	return 0;
}

bool
config_until_margin(const struct config *cfg, double *margin_nats)
{
	if (isnan(cfg->phase_one.until_margin))
		return false;
	if (margin_nats != NULL)
		*margin_nats = cfg->phase_one.until_margin;
	return true;
}

const char *
config_compute_class(const struct config *cfg)
{
	return strcmp(cfg->teacher.compute_class, "auto") == 0 ? NULL : cfg->teacher.compute_class;
}

enum config_dtype
config_trainer_dtype(const struct config *cfg)
{
	return cfg->trainer.dtype != CONFIG_DTYPE_AUTO ? cfg->trainer.dtype : cfg->compute.dtype;
}

enum config_backend
config_trainer_backend(const struct config *cfg)
{
	return cfg->trainer.backend != CONFIG_BACKEND_AUTO ? cfg->trainer.backend : cfg->compute.backend;
}

int
config_teacher_dtype(const struct config *cfg, enum config_dtype *dtype, struct err_note *note)
{
	static const struct { const char *word; enum config_dtype dtype; } classes[] = {{"fp32/", CONFIG_DTYPE_FP32},
	    {"bf16/", CONFIG_DTYPE_BF16}, {"fp16/", CONFIG_DTYPE_AUTO}};
	const char *class = cfg->teacher.compute_class;

	*dtype = cfg->compute.dtype;
	for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
		if (strncmp(class, classes[i].word, strlen(classes[i].word)) != 0)
			continue;
		if (classes[i].dtype == CONFIG_DTYPE_AUTO)
			return err_expect(note, ERR_MISMATCH, "teacher.compute_class", "auto, fp32/... or bf16/... for labels of this engine", "%s", class);
		if (cfg->compute.dtype != CONFIG_DTYPE_AUTO && cfg->compute.dtype != classes[i].dtype)
			return err_expect(note, ERR_MISMATCH, "compute.dtype", "%.4s or auto, because teacher.compute_class is %s", "%s",
			    classes[i].word, class, config_word("compute.dtype", cfg->compute.dtype));
		*dtype = classes[i].dtype;
	}
	return 0;
}

bool
config_phase_one(const struct config *cfg)
{
	return cfg->phase_one.steps > 0 || config_until_margin(cfg, NULL);
}

const char *
config_mode_name(const struct config *cfg)
{
	if (!config_phase_one(cfg))
		return "baseline";
	if (cfg->selector.mode == CONFIG_MODE_SALT_DS)
		return "salt_ds";
	if (cfg->selector.mode == CONFIG_MODE_FILE)
		return "salt_file";
	return cfg->phase_one.steps > 0 && cfg->phase_one.steps == cfg->trainer.steps ? "rkd" : "salt";
}

void
config_block(const struct config *cfg, uint64_t *block, uint64_t *kept)
{
	const struct config_selector *s = &cfg->selector;
	double exact;

	*block = s->pool > 0 ? s->pool : s->block;
	*kept = *block;
	if (s->mode == CONFIG_MODE_NONE)
		return;
	exact = s->keep_share * (double)*block;
	/* Allows for the rounding of keep_share and of the product, half a unit in the last place each: 0.29 is not exact in binary. */
	*kept = (uint64_t)floor(exact + exact * 4 * 2.220446049250313e-16);
	if (*kept > *block)
		*kept = *block;
}

const char *
config_word(const char *key, int value)
{
	const struct config__option *o = config__find(key);

	if (o != NULL && o->choices != NULL)
		for (const struct config__word *w = o->choices; w->word != NULL; w++)
			if (w->value == value)
				return w->word;
	return "?";
}

int
config_get_text(const struct config *cfg, const char *key, char *buf, size_t size)
{
	const struct config__option *o = config__find(key);

	if (o == NULL)
		return ERR_NOT_FOUND;
	config__value(cfg, o, false, buf, size);
	return 0;
}
