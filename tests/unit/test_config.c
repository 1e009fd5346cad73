/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads fleet.yaml and checks the settings or the error. tests/golden/config/NAME.in is the file, NAME.ok the
 * expected error or printed settings. Lines "#! set K=V" are --set, "#! need N" calls config_require, "#!
 * show K K" prints only these options.
 */
#include <errno.h>
#include <dirent.h>
#include <locale.h>
#include <sys/stat.h>
#include <unistd.h>
#include "check.h"
#include "base/file/file.h"
#include "fabric/config/config.h"

#define GOLDEN "tests/golden/config"

static char *
read_file(const char *path, size_t *len)
{
	FILE *f = fopen(path, "rb");
	char *text = calloc(1, 1 << 20);

	REQUIRE(f != NULL && text != NULL);
	*len = fread(text, 1, (1 << 20) - 1, f);
	fclose(f);
	return text;
}

/* Writes the result of NAME.in as text. */
static void
run_golden(const char *text, size_t len, char *out, size_t size)
{
	const char *set[16], *line = text;
	char copy[4096] = "", show[1024] = "", *at = copy, value[512], error[1400];
	struct config *cfg = NULL;
	struct err_note note = { 0 };
	size_t n_set = 0;
	unsigned need = 0;
	FILE *f = fmemopen(out, size, "w");
	int rc;

	REQUIRE(f != NULL);
	for (; strncmp(line, "#! ", 3) == 0; line = strchr(line, '\n') + 1) {
		int n = (int)strcspn(line, "\n");

		if (strncmp(line, "#! set ", 7) == 0) {
			REQUIRE(n_set < 16 && at + n < copy + sizeof(copy));
			set[n_set++] = at;
			at += sprintf(at, "%.*s", n - 7, line + 7) + 1;
		} else if (strncmp(line, "#! show ", 8) == 0) {
			snprintf(show, sizeof(show), "%.*s", n - 8, line + 8);
		} else {
			REQUIRE(sscanf(line, "#! need %u", &need) == 1);
		}
	}
	rc = config_load_text(text, len, "fleet.yaml", "/fleet", set, n_set, &cfg, &note);
	CHECK((rc == 0) == (cfg != NULL));
	if (rc == 0)
		rc = config_require(cfg, need, &note);
	if (rc != 0) {
		CHECK(rc == ERR_CONFIG && err_exit_code(rc) == 78);
		fprintf(f, "%s\n", err_note_str(&note, rc, error, sizeof(error)));
	} else if (len == 0) {
		fprintf(f, "mode: %s\n", config_mode_name(cfg));
	} else if (show[0] == '\0') {
		CHECK(config_print(cfg, f, false) == 0);
	}
	for (char *key = strtok(show, " "); rc == 0 && key != NULL; key = strtok(NULL, " ")) {
		CHECK(config_get_text(cfg, key, value, sizeof(value)) == 0);
		fprintf(f, "%s: %s\n", key, value);
	}
	fclose(f);
	config_destroy(&cfg);
}

static void
test_golden(void)
{
	DIR *dir = opendir(GOLDEN);
	struct dirent *e;
	int n = 0;

	REQUIRE(dir != NULL);
	while ((e = readdir(dir)) != NULL) {
		char path[600], out[16384] = "";
		size_t len = strlen(e->d_name), n_in, n_ok;
		char *in, *ok;

		if (len < 4 || strcmp(e->d_name + len - 3, ".in") != 0)
			continue;
		snprintf(path, sizeof(path), GOLDEN "/%s", e->d_name);
		in = read_file(path, &n_in);
		snprintf(path, sizeof(path), GOLDEN "/%.*s.ok", (int)len - 3, e->d_name);
		ok = read_file(path, &n_ok);
		run_golden(in, n_in, out, sizeof(out));
		CHECK_ROW(e->d_name, strcmp(out, ok) == 0);
		if (strcmp(out, ok) != 0)
			fprintf(stderr, "  got  %s  want %s", out, ok);
		free(in);
		free(ok);
		n++;
	}
	closedir(dir);
	CHECK(n >= 70);
}

static struct config *
load(const char *text)
{
	struct config *cfg = NULL;
	struct err_note note = { 0 };
	char error[1400];
	int rc = config_load_text(text, strlen(text), "t", "/t", NULL, 0, &cfg, &note);

	if (rc != 0)
		fprintf(stderr, "%s\n", err_note_str(&note, rc, error, sizeof(error)));
	REQUIRE(rc == 0);
	return cfg;
}

/* Checks the members of the struct, since printing and parsing could be wrong in the same way. */
static void
test_fields(void)
{
	size_t len;
	char *text = read_file(GOLDEN "/full.in", &len);
	struct config *c = load(text);
	double margin = 5;

	CHECK(c->run.seed == 42 && c->corpus.context == 128 && c->cache.keep_unselected);
	CHECK(c->cache.map_size == 1073741824 && c->teacher.serve == CONFIG_SERVE_LABEL && c->teacher.threads == 2);
	CHECK_STR(c->teacher.scorer, "/t/slm_early");
	CHECK_STR(config_compute_class(c), "bf16/torch-cuda");
	CHECK(c->labels.kind == LABELS_KIND_TOPK && c->labels.samples == 13 && c->labels.k == 32 && c->labels.tau == 0.25);
	CHECK(c->selector.mode == CONFIG_MODE_SALT_DS && c->selector.k == 5 && c->selector.block == 256);
	CHECK(c->selector.endpoints.n == 2 && strcmp(c->selector.endpoints.item[1], "ipc:///tmp/s") == 0);
	CHECK(c->selector.label_ahead_steps == CONFIG_ALL && c->selector.lease_s == 2.5 && c->selector.commit_ms == 0);
	CHECK(c->trainer.lr == 1e-3 && c->trainer.betas[0] == 0.8 && c->trainer.betas[1] == 0.999);
	CHECK(c->trainer.schedule == CONFIG_SCHEDULE_WSD && c->trainer.dtype == CONFIG_DTYPE_BF16);
	CHECK(c->trainer.deterministic == CONFIG_SWITCH_OFF && c->trainer.recompute && c->trainer.keep_steps.n == 2);
	CHECK(c->trainer.keep_steps.item[0] == 26 && c->trainer.keep_steps.item[1] == 208);
	CHECK(c->trainer.eval_choices.n == 2 && strcmp(c->trainer.eval_choices.item[1], "/t/glosses.jsonl") == 0);
	CHECK(c->phase_one.residual == CONFIG_RESIDUAL_GHOST && c->phase_one.handover == CONFIG_HANDOVER_RATIO);
	CHECK(c->phase_one.token_weight == CONFIG_TOKEN_WEIGHT_MARGIN);
	CHECK(c->phase_one.late == CONFIG_LATE_HARD && c->checkpoint.gather && c->compute.backend == CONFIG_BACKEND_OPENBLAS);
	CHECK(!config_until_margin(c, &margin) && margin == 5);
	CHECK(config_trainer_backend(c) == CONFIG_BACKEND_CUDA && config_trainer_dtype(c) == CONFIG_DTYPE_BF16);
	CHECK_STR(config_word("phase_one.residual", c->phase_one.residual), "ghost");
	CHECK_STR(config_word("phase_one.residual", 77), "?");
	config_destroy(&c);
	free(text);
	c = load("corpus: {heldout: h}\nphase_one: {until_margin: -0.5}");
	CHECK(config_until_margin(c, &margin) && margin == -0.5 && config_phase_one(c));
	CHECK(config_compute_class(c) == NULL);			/* auto */
	CHECK(config_trainer_backend(c) == CONFIG_BACKEND_AUTO && config_trainer_dtype(c) == CONFIG_DTYPE_AUTO);
	config_destroy(&c);
	c = load("compute: {backend: cuda, dtype: fp32}");
	CHECK(config_trainer_backend(c) == CONFIG_BACKEND_CUDA && config_trainer_dtype(c) == CONFIG_DTYPE_FP32);
	config_destroy(&c);
}

/* The dtype of the engine's labels under a declared class; ERR_MISMATCH: it contradicts the class. */
static void
test_teacher_dtype(void)
{
	static const struct { const char *class, *dtype; int rc; enum config_dtype expected; const char *says; } rows[] = {
		{"auto", "auto", 0, CONFIG_DTYPE_AUTO, ""},
		{"auto", "bf16", 0, CONFIG_DTYPE_BF16, ""},
		{"fp32/torch", "auto", 0, CONFIG_DTYPE_FP32, ""},
		{"bf16/torch-cuda", "auto", 0, CONFIG_DTYPE_BF16, ""},
		{"bf16/torch-cuda", "bf16", 0, CONFIG_DTYPE_BF16, ""},
		{"mixed/any", "fp32", 0, CONFIG_DTYPE_FP32, ""},
		{"fp32/torch", "bf16", ERR_MISMATCH, 0, "compute.dtype: expected fp32 or auto, because teacher.compute_class is fp32/torch, found bf16"},
		{"fp16/torch", "auto", ERR_MISMATCH, 0, "found fp16/torch"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		enum config_dtype dtype = CONFIG_DTYPE_AUTO;
		struct err_note note = {.name = ""};
		char text[200], error[1400] = "";
		struct config *c;
		int rc;

		snprintf(text, sizeof(text), "teacher: {compute_class: %s}\ncompute: {dtype: %s}", rows[i].class, rows[i].dtype);
		c = load(text);
		if ((rc = config_teacher_dtype(c, &dtype, &note)) != 0)
			err_note_str(&note, rc, error, sizeof(error));
		CHECK_ROW(text, rc == rows[i].rc && (rc != 0 || dtype == rows[i].expected) && strstr(error, rows[i].says) != NULL);
		config_destroy(&c);
	}
}

/* An option under its former name works, and a line reports both names; giving both is an error. */
static void
test_former_names(void)
{
	static const char text[] = "selector: {mode: salt_ds, window: 64,\n  keep: 0.25, lease_rows: 2}\ntrainer: {keep: 7}";
	static const char both[] = "selector: {window: 64,\n  block: 64}";
	const char *const set[] = { "trainer.eval_windows=9", "selector.keep_share=0.75" };
	struct config *c = NULL;
	struct err_note note = { 0 };
	char said[600] = "", value[32];
	FILE *out = fmemopen(said, sizeof(said), "w");

	REQUIRE(out != NULL && config_load_text(text, strlen(text), "t", "/t", set, 2, &c, &note) == 0);
	CHECK(c->selector.block == 64 && c->selector.keep_share == 0.75 && c->selector.lease_sequences == 2);
	CHECK(c->trainer.keep_checkpoints == 7 && c->trainer.eval_sequences == 9);
	CHECK(config_get_text(c, "selector.window", value, sizeof(value)) == 0);
	CHECK_STR(value, "64");
	config_print_renamed(c, out, "prog");
	fclose(out);
	CHECK_STR(said, "prog: options given under their former names, which still work: selector.window (line 1) is now selector.block, "
	    "selector.lease_rows (line 2) is now selector.lease_sequences, trainer.keep (line 3) is now trainer.keep_checkpoints, "
	    "trainer.eval_windows (--set) is now trainer.eval_sequences\n");
	config_destroy(&c);
	CHECK(config_load_text(both, strlen(both), "t", "/t", NULL, 0, &c, &note) == ERR_CONFIG);
	CHECK_STR(note.found, "the same key as in line 1");
	c = load("selector: {block: 64}");
	memset(said, 0, sizeof(said));
	REQUIRE((out = fmemopen(said, sizeof(said), "w")) != NULL);
	config_print_renamed(c, out, "prog");
	fclose(out);
	CHECK_STR(said, "");
	config_destroy(&c);
}

static void
test_modes(void)
{
	static const struct { const char *text, *mode; } rows[] = {
		{ "trainer: {steps: 10}", "baseline" },
		{ "trainer: {steps: 10}\nselector: {mode: salt_ds}", "baseline" },
		{ "trainer: {steps: 10}\nphase_one: {steps: 4}", "salt" },
		{ "trainer: {steps: 10}\nphase_one: {steps: 10}", "rkd" },
		{ "trainer: {steps: 10}\nphase_one: {steps: 4}\nselector: {mode: salt_ds}", "salt_ds" },
		{ "trainer: {steps: 10}\nphase_one: {steps: 10}\nselector: {mode: file, file: f}", "salt_file" },
		{ "corpus: {heldout: h}\nphase_one: {until_margin: 0}", "salt" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct config *c = load(rows[i].text);

		CHECK_ROW(rows[i].text, strcmp(config_mode_name(c), rows[i].mode) == 0);
		config_destroy(&c);
	}
}

static void
test_block(void)
{
	static const struct { const char *text; uint64_t block, kept; } rows[] = {
		{ "selector: {mode: none, block: 100, keep_share: 0.3}", 100, 100 },
		{ "selector: {mode: salt_ds, block: 100, keep_share: 0.3}", 100, 30 },
		{ "selector: {mode: file, file: f, block: 100, keep_share: 0.3}", 100, 30 },
		{ "selector: {mode: salt_ds, block: 100, keep_share: 0.29}", 100, 29 },	/* 28.999999999999996 in binary */
		{ "selector: {mode: salt_ds, block: 10, keep_share: 0.7}", 10, 7 },
		{ "selector: {mode: salt_ds, block: 10, keep_share: 0.55}", 10, 5 },
		{ "selector: {mode: salt_ds, block: 3, keep_share: 0.9999}", 3, 2 },
		{ "selector: {mode: salt_ds, block: 7, keep_share: 1}", 7, 7 },
		{ "selector: {mode: salt_ds, block: 7, pool: 1000, keep_share: 0.5}", 1000, 500 },
	};
	uint64_t block, kept;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct config *c = load(rows[i].text);

		config_block(c, &block, &kept);
		CHECK_ROW(rows[i].text, block == rows[i].block && kept == rows[i].kept);
		config_destroy(&c);
	}
	/* every two-digit decimal that gives a whole number */
	for (unsigned percent = 1; percent <= 100; percent++)
		for (unsigned window = 100; window <= 1000; window += 100) {
			struct config *c = load("selector: {mode: salt_ds}");
			char text[16];

			snprintf(text, sizeof(text), "%u.%02u", percent / 100, percent % 100);
			c->selector.keep_share = strtod(text, NULL);
			c->selector.block = window;
			config_block(c, &block, &kept);
			CHECK_ROW(text, kept == percent * window / 100);
			config_destroy(&c);
		}
}

static void
count_change(void *arg, const char *key, const char *was, const char *is)
{
	snprintf(arg, 200, "%s %s %s", key, was, is);
}

static void
test_diff(void)
{
	static const struct { const char *what, *set, *key; } rows[] = {
		{ "nothing", "run.seed=1", "" }, { "seed", "run.seed=2", "run.seed" }, { "host", "run.dir=elsewhere", "" },
		{ "tunable", "trainer.lr=0.01", "" }, { "lanes", "trainer.lanes=4", "trainer.lanes" },
		{ "samples while sampled", "labels.samples=51", "labels.samples" }, { "k while sampled", "labels.k=3", "" },
		{ "kind", "labels.kind=topk", "labels.kind" }, { "keep while none", "selector.keep_share=0.25", "" },
		{ "tau", "labels.tau=1.0000000001", "labels.tau" }, { "tau, written otherwise", "labels.tau=1.000e0", "" },
		{ "window", "selector.block=64", "selector.block" },
	};
	static const char text[] = "trainer: {steps: 10, batch: 64, lr: 0.02}", micro[] = "trainer: {steps: 10, batch: 64, lr: 0.02, micro_batch: 8}";
	struct config *old = load(text), *now;
	struct err_note note;
	char change[200] = "", value[64];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		memset(&note, 0, sizeof(note));
		CHECK_ROW(rows[i].what, config_load_text(micro, strlen(micro), "t", "/t", &rows[i].set, 1, &now, &note) == 0);
		memset(&note, 0, sizeof(note));
		CHECK_ROW(rows[i].what, config_identity_diff(old, now, &note) == (rows[i].key[0] != '\0' ? ERR_CONFIG : 0));
		CHECK_STR(note.name, rows[i].key);
		config_destroy(&now);
	}
	now = load("trainer: {steps: 10, batch: 64, lr: 0.03}\nlabels: {seed: 5}");
	CHECK(config_identity_diff(old, now, &note) == ERR_CONFIG);
	CHECK_STR(note.expected, "1");
	CHECK_STR(note.found, "5 (line 2)");
	CHECK(config_tunable_diff(old, now, count_change, change) == 1);
	CHECK_STR(change, "trainer.lr 0.02 0.03");
	CHECK_STR(config_origin(now, "trainer.batch", value, sizeof(value)), "line 1");
	config_destroy(&now);
	CHECK(config_load_text(text, strlen(text), "t", "/t", (const char *const[]){"trainer.batch=65"}, 1, &now, &note) == ERR_CONFIG);
	REQUIRE(config_load_text(text, strlen(text), "t", "/t", (const char *const[]){"trainer.batch=128"}, 1, &now, &note) == 0);
	CHECK(now->trainer.batch == 128 && now->trainer.micro_batch == 16);
	CHECK_STR(config_origin(now, "trainer.batch", value, sizeof(value)), "--set");
	CHECK_STR(config_origin(now, "trainer.micro_batch", value, sizeof(value)), "derived");
	CHECK_STR(config_origin(now, "trainer.clip", value, sizeof(value)), "default");
	CHECK(config_get_text(now, "trainer.none", value, sizeof(value)) == ERR_NOT_FOUND);
	config_destroy(&now);
	config_destroy(&old);
}

/* A file in a directory: its paths, the resolved file beside it, and reading that again. */
static void
test_files(void)
{
	char dir[] = "/tmp/salt_config_XXXXXX", path[200], stored[300], below[240], want[300], command[300], *text;
	const char *const set[] = { "trainer.lr=0.1234567890123456" };
	struct config *c = NULL, *again = NULL;
	struct err_note note = { 0 };
	size_t len;
	FILE *f;

	REQUIRE(mkdtemp(dir) != NULL);
	snprintf(path, sizeof(path), "%s/fleet.yaml", dir);
	CHECK(config_load(path, NULL, 0, &c, &note) == 2 && c == NULL);		/* ENOENT */
	CHECK_STR(note.name, path);
	REQUIRE((f = fopen(path, "w")) != NULL);
	fputs("run: {dir: \"r \\\\ \\\" # caf\xC3\xA9\"}\ntrainer: {keep_steps: [7]}\n", f);
	fclose(f);
	REQUIRE(config_load(path, set, 1, &c, &note) == 0);
	snprintf(want, sizeof(want), "%s/r \\ \" # caf\xC3\xA9", dir);
	CHECK_STR(c->run.dir, want);
	/* fleet.yaml in dir was written by the user, so it is kept. */
	CHECK(config_store(c, dir, &note) == 0);
	config_stored(dir, stored, sizeof(stored));
	CHECK_STR(strrchr(stored, '/'), "/fleet.resolved.yaml");
	CHECK(file_read(path, 0, &text, &len, &note) == 0 && strstr(text, "# caf") != NULL);
	free(text);
	REQUIRE(config_load(stored, NULL, 0, &again, &note) == 0);
	CHECK_STR(again->run.dir, want);
	CHECK(again->trainer.lr == c->trainer.lr && again->trainer.keep_steps.n == 1);
	CHECK(config_identity_diff(c, again, &note) == 0 && config_tunable_diff(c, again, NULL, NULL) == 0);
	config_destroy(&again);
	/* If there is no fleet.yaml it is written, and replaced, until somebody edits it. */
	snprintf(below, sizeof(below), "%s/below", dir);
	for (int i = 0; i < 3; i++) {
		CHECK(config_store(c, below, &note) == 0);
		config_stored(below, stored, sizeof(stored));
		CHECK_STR(strrchr(stored, '/'), i < 2 ? "/fleet.yaml" : "/fleet.resolved.yaml");
		if (i == 1) {
			REQUIRE((f = fopen(stored, "a")) != NULL);
			fputs("# mine\n", f);
			fclose(f);
		}
	}
	CHECK(config_store(c, path, &note) == ENOTDIR);
	CHECK_STR(note.name, path);
	snprintf(command, sizeof(command), "cd %s/below && rm fleet.yaml && mkdir fleet.yaml", dir);
	CHECK(system(command) == 0);
	/* a directory is not replaced either */
	CHECK(config_store(c, below, &note) == 0);
	config_destroy(&c);

	REQUIRE((f = fopen(path, "w")) != NULL);
	for (int i = 0; i < (1 << 20) / 8 + 1; i++)
		fputs("# 45678\n", f);
	fclose(f);
	CHECK(config_load(path, NULL, 0, &c, &note) == ERR_CONFIG && c == NULL);
	CHECK_STR(note.expected, "at most 1048576 bytes");
	CHECK(config_load(dir, NULL, 0, &c, NULL) == 21);		/* EISDIR; without a note */
	snprintf(command, sizeof(command), "cd %s && rmdir below/fleet.yaml && rm below/fleet.resolved.yaml fleet.resolved.yaml fleet.yaml && rmdir below", dir);
	CHECK(system(command) == 0);
	CHECK(rmdir(dir) == 0);						/* no temporary file is left */
}

/* A decimal comma in the user's locale changes nothing. */
static void
test_locale(void)
{
	static const char *const names[] = { "de_DE.UTF-8", "fr_FR.UTF-8", "de_DE.utf8" };
	struct config *c;
	char value[64];
	int found = 0;

	for (size_t i = 0; i < 3 && !found; i++)
		found = setlocale(LC_ALL, names[i]) != NULL;
	c = load("trainer: {lr: 0.25}");
	CHECK(c->trainer.lr == 0.25 && config_get_text(c, "trainer.lr", value, sizeof(value)) == 0);
	CHECK_STR(value, "0.25");
	config_destroy(&c);
	setlocale(LC_ALL, "C");
	if (!found)
		fprintf(stderr, "no locale with a decimal comma here: only the C locale was tried\n");
}

static void
test_docs(void)
{
	size_t len, made_len = 0;
	char *page = read_file("docs/config.md", &len), *made = NULL;
	FILE *f = open_memstream(&made, &made_len);

	REQUIRE(f != NULL);
	CHECK(config_docs(f) == 0);
	fclose(f);
	CHECK_ROW("docs/config.md is what the table prints; cmake --build --preset dev --target docs",
	    len == made_len && memcmp(page, made, len) == 0);
	free(page);
	free(made);
}

int
main(void)
{
	test_golden();
	test_fields();
	test_teacher_dtype();
	test_former_names();
	test_modes();
	test_block();
	test_diff();
	test_files();
	test_locale();
	test_docs();
	return check_done();
}
