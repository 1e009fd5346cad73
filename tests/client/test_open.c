/* SPDX-License-Identifier: Apache-2.0 */
/* Errors of salt_open with their names, salt_corpus, salt_status, names of codes; without a peer. */
#include <inttypes.h>

#include "check.h"
#include "client/client_internal.h"

static char dir[] = "/tmp/salt_client_XXXXXX", yaml[64], prefix[64];

/* Calls salt_open with one option of fleet.yaml changed, which must fail with this code and text. */
static void
refused(struct salt_options o, const char *override, int code, int exit_code, const char *says)
{
	struct salt_error e = {.code = -1};
	struct salt *s = (struct salt *)1;

	o.overrides = &override;
	o.n_overrides = override != NULL;
	CHECK_ROW(says, salt_open(&s, &o, &e) == code && s == NULL && e.code == code && e.exit_code == exit_code);
	CHECK_ROW(e.text, strstr(e.text, says) != NULL);
	CHECK_ROW(says, salt_open(&s, &o, NULL) == code);
}

static void
errors(void)
{
	const struct salt_options o = {.size = sizeof(o), .role = SALT_TRAINER, .config = yaml};
	struct salt_options x = o;

	x.size = 4;
	refused(x, NULL, SALT_CONFIG, 78, "options.size");
	x = o;
	x.role = 9;
	refused(x, NULL, SALT_CONFIG, 78, "options.role");
	x.role = SALT_TRAINER;
	x.config = NULL;
	refused(x, NULL, SALT_CONFIG, 78, "options.config");
	x.config = check_missing();
	refused(x, NULL, SALT_NOT_FOUND, 66, check_missing());
	refused(o, "trainer.bath=4", SALT_CONFIG, 78, "trainer.bath");
	refused(o, "trainer.batch=0", SALT_CONFIG, 78, "trainer.batch");
	refused(o, "trainer.steps=0", SALT_CONFIG, 78, "trainer.steps");
	refused(o, "corpus.train=/nowhere/at/all", SALT_NOT_FOUND, 66, "/nowhere/at/all");
	refused(o, "corpus.context=4000", SALT_DATA, 65, "at least corpus.context + 1 = 4001 tokens, found 201");
	x = o;
	x.vocab = 20;
	refused(x, NULL, SALT_MISMATCH, 78, "20");		/* a student with fewer ids than the corpus */
}

/* A checkpoint reported to selectord fixes the options on which rows depend; rank 1 writes no run.dir. */
static void
other_run(void)
{
	char run[96], stored[128], text[256];
	const char *run_dir = run;
	struct salt_options o = {.size = sizeof(o), .role = SALT_TRAINER, .config = yaml, .overrides = &run_dir, .n_overrides = 1};
	struct salt_error e;
	struct salt *s;

	snprintf(run, sizeof(run), "run.dir=%s/runs/a", dir);
	snprintf(stored, sizeof(stored), "%s/runs/a/fleet.yaml", dir);
	for (int rank = 1; rank >= 0; rank--) {
		o.rank = (uint32_t)rank;
		REQUIRE(salt_open(&s, &o, &e) == 0);
		CHECK(salt_checkpointed(s, 0, &e) == 0 && access(stored, F_OK) != 0);
		CHECK(salt_checkpointed(s, 1, &e) == 0 && (access(stored, F_OK) == 0) == (rank == 0));
		salt_close(&s);
	}
	for (int i = 0; i < 3; i++) {
		/* the last is not an identity option */
		static const char *const changed[] = {"run.seed=99", "trainer.batch=8", "trainer.lr=0.01"};
		const char *overrides[] = {run, changed[i]};
		int rc;

		o.overrides = overrides;
		o.n_overrides = 2;
		rc = salt_open(&s, &o, &e);
		CHECK_ROW(changed[i], rc == (i < 2 ? SALT_CONFIG : SALT_OK));
		snprintf(text, sizeof(text), "%.*s: %s/runs/a/", (int)strcspn(changed[i], "="), changed[i], dir);
		CHECK_ROW(e.text, rc == 0 || (strstr(e.text, text) != NULL && strstr(e.text, strchr(changed[i], '=') + 1) != NULL));
		salt_close(&s);
	}
}

/* A file of raw ids does not state its vocabulary. */
static void
raw_ids(void)
{
	char override[2][96];
	const char *overrides[] = {override[0], override[1]};
	struct salt_options o = {.size = sizeof(o), .role = SALT_TRAINER, .config = yaml, .overrides = overrides, .n_overrides = 2};
	const uint16_t ids[40] = {1, 2, 3};
	struct salt_plan p = {.size = sizeof(p)};
	struct salt_error e;
	struct salt *s;
	FILE *file;

	snprintf(override[0], sizeof(override[0]), "corpus.train=%s/raw", dir);
	snprintf(override[1], sizeof(override[1]), "corpus.dtype=uint16");
	REQUIRE((file = fopen(override[0] + strlen("corpus.train="), "w")) != NULL && fwrite(ids, sizeof(ids), 1, file) == 1);
	fclose(file);
	CHECK(salt_open(&s, &o, &e) == SALT_CONFIG && strstr(e.text, "options.vocab") != NULL);
	o.vocab = 50;
	CHECK(salt_open(&s, &o, &e) == 0 && salt_plan(s, &p, &e) == 0 && p.vocab == 50 && p.n_windows == 9 && p.tokenizer[0] == '\0');
	salt_close(&s);
}

static void
plan(void)
{
	const struct salt_options o = {.size = sizeof(o), .role = SALT_TRAINER, .config = yaml};
	struct salt_plan p = {.size = sizeof(p)}, old = {.size = offsetof(struct salt_plan, context), .context = 77};
	struct salt_error e;
	struct salt *s;

	REQUIRE(salt_open(&s, &o, &e) == 0 && salt_plan(s, &p, &e) == 0);
	CHECK(p.steps == 8 && p.switch_step == 3 && p.batch == 4 && p.context == 4 && p.vocab == 32 && p.n_windows == 50 && p.seed == 9);
	CHECK(p.label_kind == SALT_TOPK && p.n == 2 && p.tau == 1 && p.kd_weight == 0.6 && p.residual == SALT_GHOST && isnan(p.margin_nats));
	CHECK(p.token_weight == SALT_WEIGHT_MARGIN);
	CHECK(p.checkpoint_every == 5 && strcmp(p.mode, "salt") == 0 && strcmp(p.corpus_train, prefix) == 0 && p.corpus_heldout[0] == '\0');
	CHECK_STR(p.tokenizer, "00000000000000010000000000000002");
	/* the struct of an older caller */
	CHECK(salt_plan(s, &old, &e) == 0 && old.batch == 4 && old.context == 77);
	salt_close(&s);
}

static void
corpora(void)
{
	struct salt_corpus_info i = {.size = sizeof(i)};
	struct hash128 fingerprint;
	struct corpus *direct;
	int32_t tokens[5], want[5];
	struct salt_corpus *c;
	struct salt_error e;
	char hex[HASH_HEX_BYTES];

	CHECK(salt_corpus_open(&c, "/nowhere/at/all", NULL, &e) == SALT_NOT_FOUND && c == NULL);
	CHECK(salt_corpus_open(&c, prefix, "float", &e) == SALT_RANGE && strstr(e.text, "float") != NULL);
	REQUIRE(salt_corpus_open(&c, prefix, NULL, &e) == 0 && corpus_open(&direct, prefix, NULL) == 0);
	REQUIRE(corpus_fingerprint(direct, &fingerprint, NULL) == 0);
	CHECK(salt_corpus_info(c, &i, &e) == 0 && i.n_tokens == 201 && i.n_documents == 1 && i.n_bytes == 400 && i.vocab == 32 && i.eod == 31);
	CHECK(strcmp(i.kind, "megatron") == 0 && strcmp(i.dtype, "uint16") == 0 && strcmp(i.fingerprint, hash_hex(fingerprint, hex)) == 0);
	CHECK(salt_corpus_window(c, 49, 4, tokens, &e) == 0 && corpus_window(direct, 49, 4, want, NULL) == 0);
	CHECK(memcmp(tokens, want, sizeof(want)) == 0);
	CHECK(salt_corpus_window(c, 50, 4, tokens, &e) == SALT_RANGE);
	salt_corpus_close(&c);
	salt_corpus_close(&c);
	corpus_destroy(&direct);
}

int
main(void)
{
	struct corpus_writer *w = NULL;
	struct salt_error e;
	int32_t ids[200];
	char command[64], *json;
	FILE *file;

	REQUIRE(mkdtemp(dir) != NULL);
	snprintf(prefix, sizeof(prefix), "%s/train", dir);
	for (int i = 0; i < 200; i++)
		ids[i] = i * i % 31;
	REQUIRE(corpus_writer_new(&w, prefix, &(struct corpus_writer_options){.vocab = 32, .eod = 31, .tokenizer = {1, 2}}, NULL) == 0);
	REQUIRE(corpus_writer_document(w, ids, 200, 400, NULL) == 0 && corpus_writer_finish(w, NULL, NULL) == 0);
	corpus_writer_destroy(&w);
	snprintf(yaml, sizeof(yaml), "%s/fleet.yaml", dir);
	REQUIRE((file = fopen(yaml, "w")) != NULL);
	fprintf(file, "corpus: {train: train, context: 4}\nrun: {seed: 9}\nselector: {mode: none}\nlabels: {kind: topk, k: 2}\n"
	    "trainer: {steps: 8, batch: 4, lanes: 1, checkpoint_every: 5}\nphase_one: {steps: 3, weight: 0.6, residual: ghost, token_weight: margin}\n");
	fclose(file);
	errors();
	other_run();
	raw_ids();
	plan();
	corpora();
	CHECK(salt_status("nonsense", 100, &json, &e) == SALT_CONFIG && json == NULL);
	CHECK(salt_status("tcp://127.0.0.1:1", 50, &json, &e) == SALT_TIMEOUT && json == NULL);
	CHECK_STR(salt_code_name(SALT_MISMATCH), "SALT_MISMATCH");
	CHECK_STR(salt_code_name(99), "?");
	CHECK_STR(salt_code_name(-1), "?");
	CHECK(strchr(salt_version(), '.') != NULL);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	CHECK(system(command) == 0);
	return check_done();
}
