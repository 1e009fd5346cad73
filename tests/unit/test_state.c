/* SPDX-License-Identifier: Apache-2.0 */
#include "trainerd/state.h"

#include "check.h"
#include "base/json/json.h"
#include "data/phase/phase.h"

static struct state
example(void)
{
	struct state s = {.identity = {.seed = 4294967295u, .batch = 64, .micro_batch = 8, .lanes = 8, .context = 128, .corpus = {1, 2},
	    .heldout = {3, 4}, .tokenizer = {5, 6}, .compute_class = "fp32/openblas", .optimizer = "muon", .mode = "salt_ds"}, .step = 60, .updates = 59,
	    .tokens = 1u << 20, .switch_step = 60, .switch_by = "margin", .evaluated_step = 50, .skipped = 1, .late_rows = 2, .train_s = 0.1, .wait_s = 1e-9,
	    .teacher_nats = 3.25, .has_sets = true, .sets = {{7, 8}, {9, 10}, {11, 12}, {13, 14}},
	    .released = true};

	return s;
}

static void
round_trip(void)
{
	static const struct { const char *key; int64_t value; } numbers[] = {
		{"step", 60}, {"updates", 59}, {"tokens", 1 << 20}, {"switch_step", 60}, {"evaluated_step", 50}, {"skipped", 1}, {"late_rows", 2},
	};
	struct state a = example(), b;
	struct err_note note;
	struct json *j = state_to_json(&a);

	REQUIRE(j != NULL);
	/* each number is under its own name, in case two names are swapped in both directions */
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		int64_t v = -1;

		CHECK_ROW(numbers[i].key, json_int(json_get(j, numbers[i].key), &v) && v == numbers[i].value);
	}
	CHECK(state_from_json(j, &b, &note) == 0);
	CHECK(b.skipped == 1 && b.late_rows == 2);
	CHECK(b.step == 60 && b.updates == 59 && b.tokens == a.tokens && b.switch_step == 60 && b.evaluated_step == 50);
	CHECK_STR(b.switch_by, "margin");
	CHECK_STR(b.identity.optimizer, "muon");
	CHECK(b.train_s == 0.1 && b.wait_s == 1e-9 && b.teacher_nats == 3.25 && b.released && b.has_sets);
	CHECK(memcmp(&a.sets, &b.sets, sizeof(a.sets)) == 0);
	CHECK(state_identity_check(&a.identity, &b.identity, &note) == 0);
	/* without a GPU the file is as in versions without GPUs */
	CHECK(json_get(json_get(j, "identity"), "device") == NULL && b.identity.device[0] == '\0');
	json_close(&j);
	a.switch_step = PHASE_UNKNOWN;
	a.evaluated_step = UINT64_MAX;
	a.teacher_nats = NAN;
	a.has_sets = false;
	j = state_to_json(&a);
	CHECK(state_from_json(j, &b, &note) == 0);
	CHECK(b.switch_step == PHASE_UNKNOWN && b.evaluated_step == UINT64_MAX && isnan(b.teacher_nats) && !b.has_sets);
	json_close(&j);
}

/* The device of a GPU is written to the file and read back. */
static void
gpu_round_trip(const struct state *a)
{
	struct json *j = state_to_json(a);
	struct state b;
	struct err_note note;

	CHECK(state_from_json(j, &b, &note) == 0);
	CHECK_STR(b.identity.device, "sm_90 CUDA 13.0 cuBLASLt 130100");
	json_close(&j);
}

static void
refusals(void)
{
	static const char *const texts[] = {"{}", "{\"version\": 99}", "{\"version\": 1, \"identity\": {\"seed\": -1}}",
	    "{\"version\": 1, \"identity\": {\"seed\": \"x\"}}", "[]"};
	struct state a = example(), b;
	struct err_note note;

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct json *j;

		REQUIRE(json_parse(texts[i], strlen(texts[i]), "t", &j, NULL) == 0);
		CHECK_ROW(texts[i], state_from_json(j, &b, &note) == (i == 1 ? ERR_VERSION : ERR_FORMAT));
		json_close(&j);
	}
	b = a;
	b.identity.lanes = 4;
	CHECK(state_identity_check(&a.identity, &b.identity, &note) == ERR_MISMATCH);
	CHECK_STR(note.name, "trainer.lanes");
	CHECK(strstr(note.expected, "8") != NULL && strcmp(note.found, "4") == 0);
	b = a;
	snprintf(a.identity.device, sizeof(a.identity.device), "sm_90 CUDA 13.0 cuBLASLt 130100");
	snprintf(b.identity.device, sizeof(b.identity.device), "sm_80 CUDA 13.0 cuBLASLt 130100");
	CHECK(state_identity_check(&a.identity, &b.identity, &note) == ERR_MISMATCH);
	CHECK(strstr(note.name, "GPU") != NULL && strncmp(note.expected, "sm_90", 5) == 0 && strncmp(note.found, "sm_80", 5) == 0);
	gpu_round_trip(&a);
	a.identity.device[0] = '\0';
	b = a;
	b.identity.corpus.lo++;
	CHECK(state_identity_check(&a.identity, &b.identity, &note) == ERR_MISMATCH);
	CHECK(strstr(note.name, "corpus.train") != NULL);
	CHECK(state_optimizer_check(&a.identity, "muon", "dir", &note) == 0);
	CHECK(state_optimizer_check(&a.identity, "adamw", "dir/step_7", &note) == ERR_MISMATCH);
	CHECK_STR(note.name, "trainer.optimizer");
	CHECK(strstr(note.expected, "muon") != NULL && strstr(note.expected, "trainer.init: dir/step_7") != NULL);
	CHECK_STR(note.found, "adamw");
}

/* Changes of the mode that a resume accepts, and the option that it names otherwise. */
static void
modes(void)
{
	static const struct { const char *was, *is, *names; } rows[] = {
		{"rkd", "salt", NULL}, {"salt", "rkd", NULL}, {"rkd", "rkd", NULL}, {"salt_ds", "salt_ds", NULL}, {"salt", "baseline", NULL},
		{"salt_ds", "baseline", NULL}, {"baseline", "baseline", NULL}, {"salt", "salt_ds", "selector.mode"}, {"salt_ds", "rkd", "selector.mode"},
		{"salt_file", "salt_file", NULL}, {"salt_file", "baseline", NULL}, {"salt_file", "salt_ds", "selector.mode"}, {"salt", "salt_file", "selector.mode"},
		{"baseline", "salt", "phase_one"}, {"baseline", "salt_ds", "phase_one"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct state a = example(), b = a;
		struct err_note note = {.name = ""};

		snprintf(a.identity.mode, sizeof(a.identity.mode), "%s", rows[i].was);
		snprintf(b.identity.mode, sizeof(b.identity.mode), "%s", rows[i].is);
		CHECK_ROW(rows[i].was, state_identity_check(&a.identity, &b.identity, &note) == (rows[i].names != NULL ? ERR_MISMATCH : 0));
		CHECK_STR(note.name, rows[i].names != NULL ? rows[i].names : "");
	}
}

/* A checkpoint from before switch_by and optimizer were stored. */
static void
older(void)
{
	struct state a = example(), b;
	struct err_note note;
	struct json *j = state_to_json(&a);
	char *text = json_print(j, false), *at;

	REQUIRE(text != NULL && (at = strstr(text, "\"switch_by\"")) != NULL);
	memcpy(at, "\"switch_xx\"", 11);
	REQUIRE((at = strstr(text, "\"optimizer\"")) != NULL);
	memcpy(at, "\"optimizex\"", 11);
	json_close(&j);
	REQUIRE(json_parse(text, strlen(text), "t", &j, NULL) == 0);
	CHECK(state_from_json(j, &b, &note) == 0 && b.switch_by[0] == '\0' && b.switch_step == 60);
	CHECK_STR(b.identity.optimizer, "adamw");
	json_close(&j);
	free(text);
}

int
main(void)
{
	round_trip();
	refusals();
	modes();
	older();
	return check_done();
}
