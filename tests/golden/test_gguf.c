/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GGUF files that the gguf package wrote (gguf/make.py): blocks of every type bit for bit, a model's logits
 * compared with those of transformers from the same file, and tokenizers that give the same ids as their
 * originals.
 */
#include "engine/gguf/gguf_internal.h"

#include <sys/stat.h>
#include <unistd.h>
#include "check.h"
#include "engine/kernels/kernels.h"
#include "engine/model/model.h"
#include "data/tokenizer/tokenizer.h"
#include "engine/weights/weights.h"

#define GOLDEN "tests/golden/gguf/"

static void *
slurp(const char *path, size_t *n)
{
	FILE *f = fopen(path, "rb");
	struct stat st;
	char *p;

	REQUIRE(f != NULL && fstat(fileno(f), &st) == 0 && (p = malloc((size_t)st.st_size + 1)) != NULL);
	*n = fread(p, 1, (size_t)st.st_size, f);
	REQUIRE(*n == (size_t)st.st_size);
	fclose(f);
	return p;
}

static void
told(int rc, const struct err_note *note)
{
	char buf[1200];

	if (rc != 0)
		fprintf(stderr, "%s\n", err_note_str(note, rc, buf, sizeof(buf)));
	REQUIRE(rc == 0);
}

static void
test_types(void)
{
	static const char *const names[] = {"F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K",
	    "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4", "TQ1_0", "TQ2_0"};
	static const size_t ranges[][2] = {{0, 1}, {31, 2}, {1, 95}, {95, 130}, {383, 1}, {384, 0}};
	struct err_note note = {0};
	float x[1024], part[256];
	struct gguf *g;
	size_t n, at = 0;
	float *want = slurp(GOLDEN "types.f32", &n);

	told(gguf_open(&g, GOLDEN "types.gguf", &note), &note);
	CHECK(g->n_tensors == sizeof(names) / sizeof(names[0]));
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const struct gguf_tensor *t = gguf_find(g, names[i]);

		REQUIRE(t != NULL && t->n_elements <= 1024 && strstr(GGUF_TYPES, names[i]) != NULL && at + t->n_elements <= n / 4);
		CHECK_STR(gguf_type_name(t->type), names[i]);
		told(gguf_read_f32(t, 0, t->n_elements, x, &note), &note);
		CHECK_ROW(names[i], memcmp(x, want + at, t->n_elements * 4) == 0);
		for (size_t k = 0; k < sizeof(ranges) / sizeof(ranges[0]); k++) {
			told(gguf_read_f32(t, ranges[k][0], ranges[k][1], part, &note), &note);
			CHECK_ROW(names[i], memcmp(part, want + at + ranges[k][0], ranges[k][1] * 4) == 0);
		}
		CHECK_ROW(names[i], gguf_read_f32(t, t->n_elements, 1, part, &note) == ERR_RANGE);
		at += t->n_elements;
	}
	CHECK(at == n / 4);
	gguf_close(&g);
	free(want);
}

/* The models of make.py. */
static const struct {
	const char *name;
	struct model_config config;
} tiny[] = {
	{"tiny", {.family = MODEL_FAMILY_LLAMA, .vocab_size = 1500, .context = 64, .d_model = 32, .n_layers = 2, .n_heads = 4, .n_kv_heads = 2,
	    .head_dim = 8, .d_ff = 64, .norm_eps = 1e-5f, .tied = true, .rope_theta = 50000, .initializer_range = 0.02f, .bos_id = 1, .eos_id = 2}},
	{"qwen2_tiny", {.family = MODEL_FAMILY_QWEN2, .vocab_size = 41, .context = 16, .d_model = 32, .n_layers = 2, .n_heads = 4,
	    .n_kv_heads = 2, .head_dim = 8, .d_ff = 64, .norm_eps = 1e-6f, .attention_bias = true, .rope_theta = 50000,
	    .initializer_range = 0.02f, .bos_id = -1, .eos_id = -1}},
	{"qwen3_tiny", {.family = MODEL_FAMILY_QWEN3, .vocab_size = 41, .context = 16, .d_model = 32, .n_layers = 2, .n_heads = 4,
	    .n_kv_heads = 2, .head_dim = 12, .d_ff = 64, .norm_eps = 1e-6f, .tied = true, .rope_theta = 50000, .initializer_range = 0.02f,
	    .bos_id = -1, .eos_id = -1}},
	/* For these only the logits are tested, so only the vocabulary is needed. */
	{"gemma2_tiny", {.vocab_size = 41}}, {"gemma3_text_tiny", {.vocab_size = 41}}, {"phi3_tiny", {.vocab_size = 41}},
	{"olmo2_tiny", {.vocab_size = 41}}, {"smollm3_tiny", {.vocab_size = 41}}, {"granite_tiny", {.vocab_size = 41}},
};

/* Checks the logits of rows 0 and 7; parameters are equal via a model directory, and read in odd pieces. */
static void
test_model(const char *name, const struct model_config *like)
{
	const struct kernels_options kernels_options = {.backend = KERNELS_BACKEND_OPENBLAS, .dtype = KERNELS_DTYPE_FP32, .threads = 1};
	const struct model_session_options options = {.max_batch = 1, .max_tokens = 8};
	char dir[64] = "/tmp/gguf.XXXXXX", path[128];
	const int64_t vocab = like->vocab_size;
	struct model_session *session = NULL;
	struct gguf_model *m = NULL;
	struct weights_model *back = NULL;
	struct kernels *kernels = NULL;
	struct model *model = NULL;
	struct model_config cfg;
	struct err_note note = {0};
	struct gguf *g = NULL;
	float *p, *pieces, *params, *got;
	size_t n, n_tokens, bytes;
	float *want;
	int32_t *tokens;
	double worst = 0;

	snprintf(path, sizeof(path), GOLDEN "%s.logits", name);
	want = slurp(path, &n);
	snprintf(path, sizeof(path), GOLDEN "%s.tokens", name);
	tokens = slurp(path, &n_tokens);
	REQUIRE(n == 2 * (size_t)vocab * sizeof(float) && n_tokens == 8 * sizeof(int32_t) && mkdtemp(dir) != NULL);
	snprintf(path, sizeof(path), GOLDEN "%s.gguf", name);
	told(gguf_open(&g, path, &note), &note);
	told(gguf_config(g, &cfg, &note), &note);
	CHECK_ROW(name, like->n_layers == 0 || memcmp(&cfg, like, sizeof(cfg)) == 0);
	told(model_new(&model, &cfg, &note), &note);
	told(gguf_model_open(&m, g, model, &note), &note);
	bytes = (size_t)model->n_params * sizeof(float);
	REQUIRE((p = malloc(bytes)) != NULL && (pieces = malloc(bytes)) != NULL);
	told(gguf_model_source(m, 0, (uint64_t)model->n_params, p, &note), &note);
	for (int64_t at = 0, k; at < model->n_params; at += k) {
		k = model->n_params - at < 1013 ? model->n_params - at : 1013;
		told(gguf_model_source(m, (uint64_t)at, (uint64_t)k, pieces + at, &note), &note);
	}
	CHECK(memcmp(p, pieces, bytes) == 0);
	CHECK(gguf_model_source(m, (uint64_t)model->n_params, 1, pieces, &note) == ERR_RANGE);

	told(weights_config_save(dir, &cfg, WEIGHTS_F32, NULL, &note), &note);
	told(weights_model_save(dir, model, gguf_model_source, m, WEIGHTS_F32, 0, NULL, NULL, &note), &note);
	told(weights_model_open(&back, dir, model, &note), &note);
	told(weights_model_read(back, 0, (uint64_t)model->n_params, pieces, &note), &note);
	CHECK(memcmp(p, pieces, bytes) == 0);
	weights_model_close(&back);
	snprintf(path, sizeof(path), "%s/model.safetensors", dir);
	CHECK(unlink(path) == 0);
	snprintf(path, sizeof(path), "%s/config.json", dir);
	CHECK(unlink(path) == 0 && rmdir(dir) == 0);

	told(kernels_new(&kernels, &kernels_options, &note), &note);
	REQUIRE((params = kernels_alloc(kernels, bytes)) != NULL && (got = malloc(8 * (size_t)vocab * sizeof(float))) != NULL);
	kernels_upload(kernels, params, p, bytes);
	model_bind(model, params, DTYPE_F32);
	told(model_session_new(&session, model, kernels, &options, &note), &note);
	REQUIRE(model_forward(session, tokens, 1, 8) == 0);
	model_logits(session, 0, 8, got);
	for (int64_t i = 0; i < vocab; i++) {
		worst = fmax(worst, fabs((double)got[i] - (double)want[i]));
		worst = fmax(worst, fabs((double)got[7 * vocab + i] - (double)want[vocab + i]));
	}
	fprintf(stderr, "%s: largest difference of logits %g\n", name, worst);
	CHECK_ROW(name, worst <= 1e-4);
	model_session_destroy(&session);
	kernels_free(kernels, params);
	kernels_destroy(&kernels);
	gguf_model_close(&m);
	model_destroy(&model);
	gguf_close(&g);
	free(p);
	free(pieces);
	free(got);
	free(want);
	free(tokens);
}

static void
check_ids(const struct tokenizer *tok, const char *name, const char *text)
{
	static const struct {
		const char *end;
		unsigned flags;
	} ways[] = {{".u16", 0}, {".specials.u16", TOKENIZER_SPECIALS}};
	struct tokenizer_encoder *enc;
	struct err_note note = {0};
	char path[200];
	size_t n, n_want;
	char *bytes;

	snprintf(path, sizeof(path), "tests/golden/tokenizer/texts/%s.txt", text);
	bytes = slurp(path, &n);
	REQUIRE(tokenizer_encoder_new(&enc, tok) == 0);
	for (size_t k = 0; k < 2; k++) {
		struct tokenizer_ids ids = {0};
		bool same;
		uint16_t *want;

		snprintf(path, sizeof(path), "tests/golden/tokenizer/ids/%s/%s%s", name, text, ways[k].end);
		want = slurp(path, &n_want);
		told(tokenizer_encode(enc, bytes, n, ways[k].flags | TOKENIZER_DROP_UNKNOWN, &ids, &note), &note);
		same = ids.n == n_want / 2;
		for (size_t i = 0; i < ids.n && same; i++)
			same = ids.ids[i] == want[i];
		CHECK_ROW(path, same);
		free(want);
		free(ids.ids);
	}
	tokenizer_encoder_destroy(&enc);
	free(bytes);
}

static void
test_tokenizers(void)
{
	/* GGUF does not store which added tokens are matched after normalization (qwen2 has one). */
	static const struct {
		const char *file, *name;
		bool same_fingerprint;
	} rows[] = {{"tiny", "smollm2", true}, {"gpt2", "gpt2", true}, {"llama3", "llama3", true}, {"qwen2", "qwen2", false}};
	static const char *const texts[] = {"added", "all", "code", "hand", "lone", "marks", "points", "spaces"};
	struct tokenizer *tok, *want;
	struct err_note note = {0};
	char path[128], *json, *config;
	struct gguf *g;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		snprintf(path, sizeof(path), GOLDEN "%s.gguf", rows[i].file);
		told(gguf_open(&g, path, &note), &note);
		told(gguf_tokenizer(g, &json, &config, &note), &note);
		told(tokenizer_parse(&tok, json, strlen(json), path, &note), &note);
		snprintf(path, sizeof(path), "tests/golden/tokenizer/%s.json", rows[i].name);
		told(tokenizer_load(&want, path, &note), &note);
		CHECK_ROW(rows[i].name, tokenizer_vocab_size(tok) == tokenizer_vocab_size(want));
		if (rows[i].same_fingerprint) {
			struct hash128 a = tokenizer_fingerprint(tok), b = tokenizer_fingerprint(want);

			CHECK_ROW(rows[i].name, memcmp(&a, &b, sizeof(a)) == 0);
		}
		for (size_t k = 0; k < sizeof(texts) / sizeof(texts[0]); k++)
			check_ids(tok, rows[i].name, texts[k]);
		CHECK_ROW(rows[i].name, strstr(config, "PreTrainedTokenizerFast") != NULL);
		CHECK_ROW(rows[i].name, (strstr(json, "TemplateProcessing") != NULL) == (strcmp(rows[i].name, "llama3") == 0));
		tokenizer_destroy(&want);
		tokenizer_destroy(&tok);
		free(json);
		free(config);
		gguf_close(&g);
	}
}

/* Every name of a pre-tokenizer is in docs/models.md, and in one row only. */
static void
test_splits(void)
{
	size_t n, n_names = 0;
	char *text = slurp("docs/models.md", &n), name[64], quoted[70];

	text[n] = '\0';
	for (size_t i = 0; gguf__pre_names(i) != NULL; i++) {
		for (const char *s = gguf__pre_names(i); *s != '\0'; s += strcspn(s, " "), s += *s == ' ') {
			struct gguf__text key = {s, strcspn(s, " ")};

			snprintf(name, sizeof(name), "%.*s", (int)key.len, s);
			snprintf(quoted, sizeof(quoted), "`%s`", name);
			CHECK_ROW(name, strstr(text, quoted) != NULL);
			CHECK_ROW(name, gguf__pre(&key) != NULL && strcmp(gguf__pre(&key)->names, gguf__pre_names(i)) == 0);
			n_names++;
		}
	}
	CHECK(n_names > 50 && gguf__pre(&(struct gguf__text){"llama", 5}) == NULL && gguf__pre(&(struct gguf__text){"", 0}) == NULL);
	free(text);
}

int
main(void)
{
	test_splits();
	test_types();
	for (size_t i = 0; i < sizeof(tiny) / sizeof(tiny[0]); i++)
		test_model(tiny[i].name, &tiny[i].config);
	test_tokenizers();
	return check_done();
}
