/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Model directories that transformers wrote (weights/make.py): equal logits, ranges of the flat order, saving
 * and reading back, model shards, fingerprints, names with and without prefix, and directories that must be
 * rejected.
 */
#include "engine/weights/weights.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/json/json.h"
#include "engine/model/model.h"
#include "files.h"

#define GOLDEN "tests/golden/weights/"

static const char *const names[] = {"gpt2", "gpt2_bare", "llama", "llama_sharded", "llama_bf16", "llama_mixed"};

/* Runs a shell command that changes copies of fixtures. All names in commands are from this file. */
static void
shell(const char *fmt, const char *a, const char *b)
{
	char command[1200];

	snprintf(command, sizeof(command), fmt, files_dir, a, b);
	REQUIRE(system(command) == 0);
}

/* Path of the copy of a fixture; a copy, because side files are written beside it. */
static const char *
fixture(const char *name)
{
	return in_dir(name);
}

/* Replaces a text in a file by one of the same length or, in JSON, of any length. */
static void
replace(const char *path, const char *from, const char *to)
{
	static char text[65536], out[65536];
	FILE *f = fopen(path, "rb");
	size_t n, m = strlen(from), at;

	REQUIRE(f != NULL);
	n = fread(text, 1, sizeof(text), f);
	fclose(f);
	for (at = 0; at + m <= n && memcmp(text + at, from, m) != 0; at++)
		;
	REQUIRE(at + m <= n);
	memcpy(out, text, at);
	memcpy(out + at, to, strlen(to));
	memcpy(out + at + strlen(to), text + at + m, n - at - m);
	REQUIRE((f = fopen(path, "wb")) != NULL);
	REQUIRE(fwrite(out, 1, n - m + strlen(to), f) == n - m + strlen(to) && fclose(f) == 0);
}

static float *
load(const char *dir, struct model **model)
{
	struct weights_model *w;
	struct model_config cfg;
	struct err_note note = {0};
	char buf[1200];
	float *p;
	int rc;

	*model = NULL;
	if ((rc = weights_config_load(dir, &cfg, &note)) != 0 || (rc = model_new(model, &cfg, &note)) != 0 ||
	    (rc = weights_model_open(&w, dir, *model, &note)) != 0) {
		fprintf(stderr, "%s\n", err_note_str(&note, rc, buf, sizeof(buf)));
		REQUIRE(rc == 0);
	}
	REQUIRE((p = calloc((size_t)(*model)->n_params, sizeof(*p))) != NULL);
	REQUIRE(weights_model_read(w, 0, (uint64_t)(*model)->n_params, p, &note) == 0);
	weights_model_close(&w);
	return p;
}

static void
logits(const char *name, const struct json *golden)
{
	struct kernels_options options = {.backend = KERNELS_BACKEND_AUTO, .dtype = KERNELS_DTYPE_FP32, .threads = 1};
	const struct json *ids = json_get(golden, "ids"), *rows = json_get(golden, "logits");
	struct model_session_options so = {.max_batch = 1, .max_tokens = 8};
	struct model_session *s;
	struct err_note note;
	struct kernels *k;
	struct model *m;
	float *p = load(fixture(name), &m), *params, *out;
	int32_t tokens[8];
	double worst = 0;

	REQUIRE(json_count(ids) == 8 && json_count(rows) == 8);
	for (size_t i = 0; i < 8; i++) {
		int64_t v;

		REQUIRE(json_int(json_item(ids, i), &v));
		tokens[i] = (int32_t)v;
	}
	REQUIRE(kernels_new(&k, &options, &note) == 0);
	REQUIRE((params = kernels_alloc(k, (size_t)m->n_params * sizeof(*params))) != NULL);
	memcpy(params, p, (size_t)m->n_params * sizeof(*params));
	model_bind(m, params, DTYPE_F32);
	REQUIRE(model_session_new(&s, m, k, &so, &note) == 0);
	REQUIRE(model_forward(s, tokens, 1, 8) == 0);
	REQUIRE((out = calloc((size_t)(8 * m->config.vocab_size), sizeof(*out))) != NULL);
	model_logits(s, 0, 8, out);
	for (int i = 0; i < 8; i++) {
		for (int64_t v = 0; v < m->config.vocab_size; v++) {
			double want = NAN, diff;

			json_num(json_item(json_item(rows, (size_t)i), (size_t)v), &want);
			diff = fabs(want - out[i * m->config.vocab_size + v]);
			if (!(diff <= worst))
				worst = diff;
		}
	}
	fprintf(stderr, "%s: largest difference of logits %.3g\n", name, worst);
	CHECK_ROW(name, worst <= 1e-4);
	model_session_destroy(&s);
	kernels_free(k, params);
	kernels_destroy(&k);
	model_destroy(&m);
	free(out);
	free(p);
}

/* Compares sum, first and last element of each tensor with numpy's, and reads by range with a whole read. */
static void
values(const char *name, const struct json *expect)
{
	struct weights_model *w;
	struct err_note note;
	struct model *m;
	float *p = load(fixture(name), &m), part[257];

	for (int i = 0; i < m->n_tensors; i++) {
		const struct model_tensor *t = &m->tensors[i];
		const struct json *e = json_get(expect, t->name);
		double sum = 0, want[3] = {NAN, NAN, NAN};

		if (e == NULL)
			e = json_get(expect, t->name + strlen("transformer."));
		for (size_t k = 0; k < 3; k++)
			json_num(json_item(e, k), &want[k]);
		for (int64_t k = 0; k < t->n_elements; k++)
			sum += p[t->offset + k];
		CHECK_NEAR(sum, want[0], 1e-9);
		CHECK(p[t->offset] == (float)want[1] && p[t->offset + t->n_elements - 1] == (float)want[2]);
	}
	REQUIRE(weights_model_open(&w, fixture(name), m, &note) == 0);
	for (uint64_t at = 0; at < (uint64_t)m->n_params; at += 257) {
		uint64_t n = (uint64_t)m->n_params - at < 257 ? (uint64_t)m->n_params - at : 257;

		CHECK(weights_model_read(w, at, n, part, &note) == 0 && memcmp(part, p + at, n * sizeof(*part)) == 0);
	}
	CHECK(weights_model_read(w, (uint64_t)m->n_params, 0, part, &note) == 0);
	CHECK(weights_model_read(w, (uint64_t)m->n_params, 1, part, &note) == ERR_RANGE);
	weights_model_close(&w);
	model_destroy(&m);
	free(p);
}

static void
save_and_load(const char *name, uint64_t max_shard_bytes)
{
	struct hash128 a, b = {0};
	struct weights_file *files;
	struct err_note note;
	struct model *m, *again;
	float *p = load(fixture(name), &m), *q;
	size_t n_files;

	shell("rm -rf %s/saved && mkdir %1$s/saved", "", "");
	REQUIRE(weights_config_save(in_dir("saved"), &m->config, WEIGHTS_F32, NULL, &note) == 0);
	REQUIRE(weights_model_save(in_dir("saved"), m, weights_source_array, p, WEIGHTS_F32, max_shard_bytes, &files, &n_files, &note) == 0);
	CHECK_ROW(name, max_shard_bytes == 0 ? n_files == 1 : n_files > 2);
	free(files);
	q = load(in_dir("saved"), &again);
	CHECK_ROW(name, memcmp(&m->config, &again->config, sizeof(m->config)) == 0);
	CHECK_ROW(name, m->n_params == again->n_params && memcmp(p, q, (size_t)m->n_params * sizeof(*p)) == 0);
	CHECK(weights_fingerprint(fixture(name), &a, &note) == 0 && weights_fingerprint(in_dir("saved"), &b, &note) == 0);
	CHECK_ROW(name, hash_equal(a, b) == (strcmp(name, "llama_bf16") != 0 && strcmp(name, "llama_mixed") != 0));	/* stored dtype counts */
	model_destroy(&m);
	model_destroy(&again);
	free(p);
	free(q);
}

static struct hash128
print_of(const char *dir)
{
	struct hash128 h = {0};
	struct err_note note;

	CHECK(weights_fingerprint(dir, &h, &note) == 0);
	return h;
}

static void
fingerprints(void)
{
	static const struct {
		const char *what, *from, *to;
		bool changes;
	} edits[] = {
		{"rope theta", "\"rope_theta\": 5000.0", "\"rope_theta\": 5001.0", true},
		{"eps", "\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": 1e-06", true},
		{"rope factor", "\"factor\": 4.0", "\"factor\": 8.0", true},
		{"rope low", "\"low_freq_factor\": 1.0", "\"low_freq_factor\": 2.0", true},
		{"rope high", "\"high_freq_factor\": 4.0", "\"high_freq_factor\": 5.0", true},
		{"rope original", "\"original_max_position_embeddings\": 16", "\"original_max_position_embeddings\": 32", true},
		{"rope type", "\"rope_type\": \"llama3\"", "\"rope_type\": \"default\"", true},
		{"formatting", "{\n  \"arch", "{\"arch", false},
		{"version", "\"transformers_version\": \"5.23.0\"", "\"transformers_version\": \"4.0\"", false},
		{"eos", "\"eos_token_id\": 2", "\"eos_token_id\": 3", false},
	};
	static const struct {
		const char *from, *to;
		int rc;
	} unfit[] = {
		{"\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false", ERR_NOT_FOUND},
		{"\"num_key_value_heads\": 2", "\"num_key_value_heads\": 1", ERR_MISMATCH},
		{"\"attention_bias\": false", "\"attention_bias\": true", ERR_NOT_FOUND},
	};
	struct hash128 one = print_of(fixture("llama")), h;
	struct err_note note;

	CHECK(hash_equal(one, print_of(fixture("llama_sharded"))));
	CHECK(hash_equal(print_of(fixture("gpt2")), print_of(fixture("gpt2_bare"))));
	CHECK(!hash_equal(one, print_of(fixture("gpt2"))));
	for (size_t i = 0; i < sizeof(edits) / sizeof(edits[0]); i++) {
		shell("rm -rf %s/fp && cp -r " GOLDEN "llama %1$s/fp && rm -f %1$s/fp/.salt_fingerprint", "", "");
		replace(in_dir("fp/config.json"), edits[i].from, edits[i].to);
		CHECK_ROW(edits[i].what, hash_equal(one, print_of(in_dir("fp"))) == !edits[i].changes);
	}
	/* Weights that do not fit the configuration have no fingerprint. */
	for (size_t i = 0; i < sizeof(unfit) / sizeof(unfit[0]); i++) {
		shell("rm -rf %s/fp && cp -r " GOLDEN "llama %1$s/fp && rm -f %1$s/fp/.salt_fingerprint", "", "");
		replace(in_dir("fp/config.json"), unfit[i].from, unfit[i].to);
		CHECK_ROW(unfit[i].from, weights_fingerprint(in_dir("fp"), &h, &note) == unfit[i].rc);
	}
	/* One changed byte. The old side file exists and must not be used. */
	shell("rm -rf %s/fp && cp -r " GOLDEN "llama %1$s/fp && rm -f %1$s/fp/.salt_fingerprint", "", "");
	CHECK(access(in_dir("fp/.salt_fingerprint"), F_OK) != 0);
	CHECK(hash_equal(one, print_of(in_dir("fp"))) && access(in_dir("fp/.salt_fingerprint"), F_OK) == 0);
	shell("printf x | dd of=%s/fp/model.safetensors bs=1 seek=20000 conv=notrunc status=none", "", "");
	h = print_of(in_dir("fp"));
	CHECK(!hash_equal(one, h));
	/* A second byte is changed, and size and time are restored: both forms of the side file detect it. */
	shell("cd %s/fp && cp -p model.safetensors times && printf y | dd of=model.safetensors bs=1 seek=15000 conv=notrunc status=none && "
	    "touch -r times model.safetensors && rm times", "", "");
	CHECK(weights_fingerprint(in_dir("fp"), &h, &note) == ERR_CORRUPT);
	CHECK_STR(note.name, in_dir("fp/model.safetensors"));
	shell("cd %s/fp && sed -i -E 's/^salt_fingerprint2/salt_fingerprint1/; s/ [0-9a-f]{32}$//' .salt_fingerprint", "", "");
	CHECK(weights_fingerprint(in_dir("fp"), &h, &note) == ERR_CORRUPT && strstr(note.found, "bytes of a file changed") != NULL);
	shell("cd %s/fp && touch model.safetensors", "", "");		/* a new time: a deliberate change */
	h = print_of(in_dir("fp"));
	CHECK(!hash_equal(one, h));
	/* A truncated side file, and one that names only files that do not exist any more. */
	shell("head -c 60 %s/fp/.salt_fingerprint >%1$s/cut && cp %1$s/cut %1$s/fp/.salt_fingerprint", "", "");
	CHECK(hash_equal(h, print_of(in_dir("fp"))));
	shell("rm -rf %s/fs && cp -r " GOLDEN "llama_sharded %1$s/fs && rm -f %1$s/fs/.salt_fingerprint", "", "");
	one = print_of(in_dir("fs"));
	/* this file is the model from now on */
	shell("cp %s/fp/model.safetensors %1$s/fs/", "", "");
	CHECK(!hash_equal(one, print_of(in_dir("fs"))) && hash_equal(h, print_of(in_dir("fs"))));
}

/* A file that is truncated while it is read is an error that names it, not SIGBUS; also for a fingerprint. */
static void
cut_short(void)
{
	static float x[5000];
	struct weights_model *w;
	struct model_config cfg;
	struct model *m = NULL;
	struct err_note note;
	struct hash128 h;

	shell("rm -rf %s/cut && cp -r " GOLDEN "llama %1$s/cut", "", "");
	REQUIRE(weights_config_load(in_dir("cut"), &cfg, &note) == 0 && model_new(&m, &cfg, &note) == 0);
	REQUIRE(weights_model_open(&w, in_dir("cut"), m, &note) == 0);
	CHECK(weights_model_read(w, 0, (uint64_t)m->n_params, x, &note) == 0);
	REQUIRE(m->n_params <= 5000 && truncate(in_dir("cut/model.safetensors"), 6000) == 0);
	CHECK(weights_model_read(w, 0, (uint64_t)m->n_params, x, &note) == ERR_CORRUPT && strstr(note.found, "cut short") != NULL);
	CHECK_STR(note.name, in_dir("cut/model.safetensors"));
	CHECK(weights_model_fingerprint(w, in_dir("cut"), &h, &note) == ERR_CORRUPT && strstr(note.found, "cut short") != NULL);
	weights_model_close(&w);
	model_destroy(&m);
}

static void
refusals(void)
{
	struct weights_model *w;
	struct model_config cfg;
	struct err_note note;
	struct model *m;
	float *p;

	p = load(fixture("llama"), &m);
	free(p);
	CHECK(weights_model_open(&w, fixture("gpt2"), m, &note) == ERR_NOT_FOUND && w == NULL);
	CHECK(strstr(note.place, "model.embed_tokens.weight") != NULL);
	shell("rm -rf %s/bad && cp -r " GOLDEN "llama %1$s/bad", "", "");
	replace(in_dir("bad/model.safetensors"), "model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.up_prox.weight");
	CHECK(weights_model_open(&w, in_dir("bad"), m, &note) == ERR_NOT_FOUND && strstr(note.place, "model.layers.1.mlp.up_proj.weight") != NULL);
	shell("rm -rf %s/bad && cp -r " GOLDEN "llama %1$s/bad", "", "");
	replace(in_dir("bad/model.safetensors"), "\"shape\":[37,16]", "\"shape\":[16,37]");
	CHECK(weights_model_open(&w, in_dir("bad"), m, &note) == ERR_MISMATCH && strstr(note.place, "model.embed_tokens.weight") != NULL);
	CHECK_STR(note.expected, "shape [37, 16]");
	CHECK_STR(note.found, "[16, 37]");
	model_destroy(&m);

	/* Additional tensors: as untied the old GPT-2 file has its lm_head; as one layer too many tensors. */
	REQUIRE(weights_config_load(fixture("gpt2_bare"), &cfg, &note) == 0);
	cfg.n_layers = 1;
	REQUIRE(model_new(&m, &cfg, &note) == 0);
	CHECK(weights_model_open(&w, fixture("gpt2_bare"), m, &note) == ERR_MISMATCH && strstr(note.place, "tensor h.1.") != NULL);
	model_destroy(&m);
	cfg.n_layers = 2;
	cfg.tied = false;
	REQUIRE(model_new(&m, &cfg, &note) == 0);
	CHECK(weights_model_open(&w, fixture("gpt2_bare"), m, &note) == 0);
	weights_model_close(&w);
	CHECK(weights_model_open(&w, fixture("gpt2"), m, &note) == ERR_NOT_FOUND && strstr(note.place, "lm_head.weight") != NULL);
	model_destroy(&m);
}

/* lm_head.weight beside a tied embedding, with one value changed; and a NaN. Made from the fixture. */
static void
tied_head_and_nan(void)
{
	struct weights_spec specs[64];
	struct weights_model *wm;
	struct weights_writer *w;
	struct err_note note;
	struct weights *set;
	struct hash128 h;
	struct model *m;
	float *p = load(fixture("gpt2"), &m), *all;

	for (int round = 0; round < 3; round++) {	/* 0: good copy; 1: head differs in one value; 2: NaN in a bias */
		size_t n = 0;

		REQUIRE(weights_open(&set, fixture("gpt2_bare"), &note) == 0);
		shell("rm -rf %s/tied && mkdir %1$s/tied && cp " GOLDEN "gpt2/config.json %1$s/tied", "", "");
		for (size_t i = 0; i < weights_count(set); i++) {
			const struct weights_tensor *t = weights_at(set, i);

			REQUIRE(n < 64);
			specs[n] = (struct weights_spec){.name = t->name, .dtype = t->dtype, .n_dims = t->n_dims};
			memcpy(specs[n++].shape, t->shape, sizeof(t->shape));
		}
		REQUIRE(weights_writer_new(&w, in_dir("tied"), "model", specs, n, NULL, 0, 0, &note) == 0);
		for (size_t i = 0; i < n; i++) {
			const struct weights_tensor *t = weights_at(set, i);

			REQUIRE((all = malloc(t->len_bytes + 4)) != NULL);
			memcpy(all, t->data, t->len_bytes);
			if (round == 1 && strcmp(t->name, "lm_head.weight") == 0)
				all[100] += 1e-3f;
			if (round == 2 && strcmp(t->name, "h.1.mlp.c_fc.bias") == 0)
				all[5] = NAN;
			REQUIRE(weights_writer_bytes(w, all, t->len_bytes, &note) == 0);
			free(all);
		}
		REQUIRE(weights_writer_finish(w, &note) == 0);
		weights_writer_destroy(&w);
		weights_close(&set);
		if (round == 1) {
			CHECK(weights_model_open(&wm, in_dir("tied"), m, &note) == ERR_MISMATCH);
			CHECK(strstr(note.place, "lm_head.weight, element 100") != NULL && strstr(note.expected, "wte.weight") != NULL);
			continue;
		}
		REQUIRE(weights_model_open(&wm, in_dir("tied"), m, &note) == 0);
		CHECK(weights_model_read(wm, 0, (uint64_t)m->n_params, p, &note) == (round == 2 ? ERR_NONFINITE : 0));
		CHECK(weights_fingerprint(in_dir("tied"), &h, &note) == (round == 2 ? ERR_NONFINITE : 0));
		if (round == 2)
			CHECK(strstr(note.place, "tensor h.1.mlp.c_fc.bias, element 5 ") != NULL);
		weights_model_close(&wm);
	}
	model_destroy(&m);
	free(p);
}

/* An untied model without the prefix: lm_head.weight is at another position, the identity is equal. */
static void
bare_names(void)
{
	struct weights_spec specs[32];
	struct weights_writer *w;
	struct err_note note;
	struct weights *set;
	struct model *m;
	float *p, *q;

	shell("rm -rf %s/bare && mkdir %1$s/bare && cp " GOLDEN "llama_bf16/config.json %1$s/bare", "", "");
	REQUIRE(weights_open(&set, fixture("llama_bf16"), &note) == 0 && weights_count(set) <= 32);
	for (size_t i = 0; i < weights_count(set); i++) {
		const struct weights_tensor *t = weights_at(set, i);

		specs[i] = (struct weights_spec){.dtype = t->dtype, .n_dims = t->n_dims};
		specs[i].name = strncmp(t->name, "model.", 6) == 0 ? t->name + 6 : t->name;
		memcpy(specs[i].shape, t->shape, sizeof(t->shape));
	}
	REQUIRE(weights_writer_new(&w, in_dir("bare"), "model", specs, weights_count(set), NULL, 0, 0, &note) == 0);
	for (size_t i = 0; i < weights_count(set); i++)
		REQUIRE(weights_writer_bytes(w, weights_at(set, i)->data, weights_at(set, i)->len_bytes, &note) == 0);
	REQUIRE(weights_writer_finish(w, &note) == 0);
	weights_writer_destroy(&w);
	weights_close(&set);
	CHECK(hash_equal(print_of(in_dir("bare")), print_of(fixture("llama_bf16"))));
	p = load(fixture("llama_bf16"), &m);
	model_destroy(&m);
	q = load(in_dir("bare"), &m);
	CHECK(memcmp(p, q, (size_t)m->n_params * sizeof(*p)) == 0);
	model_destroy(&m);
	free(p);
	free(q);
}

/*
 * Writes the fixture's tensors to another folder, each with the name that rename makes in buf; rename returns
 * false for a tensor that is left out. again: also writes them with their original names.
 */
static void
write_renamed(const char *from, const char *to, bool (*rename)(const char *name, char *buf), bool again)
{
	static char texts[64][256];
	struct weights_spec specs[64];
	const struct weights_tensor *data[64];
	struct weights_writer *w;
	struct err_note note;
	struct weights *set;
	size_t n = 0;

	shell("rm -rf %s/%s && mkdir %1$s/%2$s && cp " GOLDEN "%3$s/config.json %1$s/%2$s", to, from);
	REQUIRE(weights_open(&set, fixture(from), &note) == 0);
	for (size_t i = 0; i < weights_count(set) * (again ? 2 : 1); i++) {
		const struct weights_tensor *t = weights_at(set, i % weights_count(set));

		REQUIRE(n < 64);
		snprintf(texts[n], sizeof(texts[n]), "%s", t->name);
		if (i < weights_count(set) && !rename(t->name, texts[n]))
			continue;
		specs[n] = (struct weights_spec){.name = texts[n], .dtype = t->dtype, .n_dims = t->n_dims};
		memcpy(specs[n].shape, t->shape, sizeof(t->shape));
		data[n++] = t;
	}
	REQUIRE(weights_writer_new(&w, in_dir(to), "model", specs, n, NULL, 0, 0, &note) == 0);
	for (size_t i = 0; i < n; i++)
		REQUIRE(weights_writer_bytes(w, data[i]->data, data[i]->len_bytes, &note) == 0);
	REQUIRE(weights_writer_finish(w, &note) == 0);
	weights_writer_destroy(&w);
	weights_close(&set);
}

static const char *prefix;

static bool
with_prefix(const char *name, char *buf)
{
	snprintf(buf, 256, "%s%s", prefix, name);
	return true;
}

/* Renames as FSDP and torch.compile of single layers do. */
static bool
inside(const char *name, char *buf)
{
	const char *at = strstr(name, ".mlp.");

	if (at != NULL)
		snprintf(buf, 256, "%.*s._fsdp_wrapped_module.mlp._orig_mod.%s", (int)(at - name), name, at + 5);
	return true;
}

static bool
without_embedding(const char *name, char *buf)
{
	(void)buf;
	return strstr(name, "wte.weight") == NULL;
}

/* Opens the folder as a model: returns 0 and the remarks, or the error and its text. */
static int
opened(const char *dir, char *text, size_t size)
{
	struct weights_model *w = NULL;
	struct err_note note = {.name = ""};
	struct model_config cfg;
	struct model *m = NULL;
	int rc;

	if ((rc = weights_config_load(dir, &cfg, &note)) == 0 && (rc = model_new(&m, &cfg, &note)) == 0)
		rc = weights_model_open(&w, dir, m, &note);
	if (rc == 0)
		snprintf(text, size, "%s", weights_model_remarks(w));
	else
		err_note_str(&note, rc, text, size);
	weights_model_close(&w);
	model_destroy(&m);
	return rc;
}

/* Names changed by wrappers: the same model if they are unambiguous, else an error that shows the prefix. */
static void
wrapped_names(void)
{
	static const char *const prefixes[] = {"_orig_mod.", "module.", "module._orig_mod.", "model.", "_forward_module.model."};
	struct hash128 llama = print_of(fixture("llama")), gpt2 = print_of(fixture("gpt2"));
	char text[1400];

	CHECK(opened(fixture("llama"), text, sizeof(text)) == 0 && text[0] == '\0');
	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
		prefix = prefixes[i];
		write_renamed("llama", "var", with_prefix, false);
		CHECK_ROW(prefix, opened(in_dir("var"), text, sizeof(text)) == 0 && strstr(text, "left out of the names") != NULL);
		CHECK_ROW(prefix, hash_equal(llama, print_of(in_dir("var"))));
		write_renamed("gpt2", "var", with_prefix, false);
		CHECK_ROW(prefix, hash_equal(gpt2, print_of(in_dir("var"))));
	}
	write_renamed("llama", "var", inside, false);
	CHECK(hash_equal(llama, print_of(in_dir("var"))));
	prefix = "language_model.";
	write_renamed("llama", "var", with_prefix, false);
	CHECK(opened(in_dir("var"), text, sizeof(text)) == ERR_NOT_FOUND && strstr(text, "begin with \"language_model.model.\"") != NULL);
	prefix = "_orig_mod.";
	write_renamed("llama", "var", with_prefix, true);
	CHECK(opened(in_dir("var"), text, sizeof(text)) == ERR_MISMATCH && strstr(text, "differ in prefixes only") != NULL);
	write_renamed("gpt2_bare", "var", without_embedding, false);
	CHECK(opened(in_dir("var"), text, sizeof(text)) == 0);
	CHECK(strstr(text, "lm_head.weight is used for transformer.wte.weight") != NULL);
	CHECK(hash_equal(gpt2, print_of(in_dir("var"))));
}

/* Folders whose files are incomplete, of another kind, or more than one kind. Each command runs in a copy of the fixture. */
static void
folders(void)
{
	static const struct {
		const char *fixture, *command;
		int rc;
		const char *text;		/* part of the error or of the remarks */
	} rows[] = {
		{"llama_sharded", "rm *.index.json", 0, "no index"},
		{"llama_sharded", "rm *.index.json model-00002*", ERR_NOT_FOUND, "expected model-00002-of-"},
		{"llama_sharded", "rm model-00002*", ENOENT, "this file, named in"},
		{"llama_sharded", "rm model-00002*; ln -s gone/blob model-00002-of-00006.safetensors", ENOENT, "none at gone/blob"},
		{"llama_sharded", "sed -i 's/\"weight_map\": {/&\"lm_head.weight\": \"model-00001-of-00006.safetensors\",/' *.index.json", 0, ""},
		{"llama_sharded", "sed -i 's/\"weight_map\": {/&\"model.x\": \"model-00001-of-00006.safetensors\",/' *.index.json",
		    ERR_FORMAT, "model.x, which no file contains"},
		{"llama_sharded", "cp ../llama/model.safetensors .", 0,
		    "also found and not read: model-*-of-00006.safetensors"},
		{"llama_sharded", "cp model-00001-of-00006.safetensors model-00001-of-00009.safetensors", 0, "1 more of model-*-of-*.safetensors"},
		{"llama_sharded", "rm *.index.json; cp model-00001-of-00006.safetensors model-00001-of-00009.safetensors", ERR_FORMAT, "one set"},
		{"llama_sharded", "rm *.index.json; cp model-00001-of-00006.safetensors model-00002-of-00006.safetensors", ERR_FORMAT,
		    "expected this tensor in one file, found copies in"},
		{"llama", "sed -i 's/\"tie_word_embeddings\": true/\"tie_word_embeddings\": false/' config.json", ERR_NOT_FOUND,
		    "set tie_word_embeddings to true"},
		{"llama", "touch adapter_model.safetensors", 0,
		    "also found and not read: adapter_model.safetensors"},
		{"llama", "touch pytorch_model.bin", 0, ""},
		{"llama", "rm model.safetensors", ERR_NOT_FOUND, "neither"},
		{"llama", "rm model.safetensors; ln -s gone model.safetensors", ENOENT, "none at gone"},
		{"llama", "mv model.safetensors pytorch_model.bin", ERR_NOT_FOUND, "PyTorch's format; type: python3 -c 'from transformers"},
		{"llama", "mv model.safetensors pytorch_model-00001-of-00002.bin", ERR_NOT_FOUND, "/var\").save_pretrained(\"NEW\")'"},
		{"llama", "mv model.safetensors adapter_model.safetensors", ERR_NOT_FOUND, "merge_and_unload"},
		{"llama", "mv model.safetensors consolidated.safetensors", ERR_NOT_FOUND, "own layout"},
		{"llama", "mv model.safetensors x.Q8_0.gguf", ERR_NOT_FOUND, "saltctl model import"},
		{"llama", "mv model.safetensors weights.safetensors", ERR_NOT_FOUND, "name it model.safetensors"},
		{"llama", ": > model.safetensors", ERR_FORMAT, "at least 8 bytes, found 0"},
		{"llama", "truncate -s -1 model.safetensors", ERR_FORMAT, "cut short"},
		{"llama", "truncate -s 100 model.safetensors", ERR_FORMAT, "cut short"},
		{"llama", "printf 'version https://git-lfs.github.com/spec/v1\n' > model.safetensors", ERR_FORMAT, "git lfs pull"},
		{"llama", "printf 'version https://git-lfs.github.com/spec/v1\n' > config.json", ERR_FORMAT, "git lfs pull"},
		{"llama", "printf '<!DOCTYPE html>' > model.safetensors", ERR_FORMAT, "HTML"},
		{"llama", "sed -i '1s/^/\xef\xbb\xbf/' config.json", 0, ""},
		{"llama", "sed -i 's/\"rope_theta\": 5000.0/\"rope_theta\": NaN/' config.json", ERR_FORMAT, "NaN"},
		{"llama", "sed -i 's/\"vocab_size\": 37/\"vocab_size\": 36/' config.json", ERR_MISMATCH,
		    "36 rows, vocab_size of config.json, found 37 (a padded vocabulary?): set vocab_size to 37"},
		{"llama", "sed -i 's/\"vocab_size\": 37/\"vocab_size\": 38/' config.json", ERR_MISMATCH, "set vocab_size to 37"},
	};
	struct hash128 h, llama = print_of(fixture("llama"));
	struct err_note note;
	char text[1400];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int rc;

		shell("rm -rf %s/var && cp -r " GOLDEN "%s %1$s/var", rows[i].fixture, "");
		shell("cd %s/var && { %s; }", rows[i].command, "");
		rc = opened(in_dir("var"), text, sizeof(text));
		CHECK_ROW(rows[i].command, rc == rows[i].rc && strstr(text, rows[i].text) != NULL);
		if (rc != rows[i].rc || strstr(text, rows[i].text) == NULL)
			fprintf(stderr, "%d: %s\n", rc, text);
		CHECK_ROW(rows[i].command, weights_present(in_dir("var")) == (strstr(text, "neither") == NULL));
		/* Only a model that can be opened has a fingerprint. */
		CHECK_ROW(rows[i].command, rc == 0 ? hash_equal(print_of(in_dir("var")), llama) : weights_fingerprint(in_dir("var"), &h, &note) == rc);
	}
}

static int
failing_source(void *arg, uint64_t begin, uint64_t count, float *out, struct err_note *note)
{
	(void)arg;
	memset(out, 0, count * sizeof(*out));
	return begin > 1000 ? err_note_set(note, EIO, "source") : 0;
}

static void
failed_save(void)
{
	struct err_note note;
	struct model *m;
	float *p = load(fixture("llama"), &m);

	shell("rm -rf %s/half && mkdir %1$s/half", "", "");
	CHECK(weights_model_save(in_dir("half"), m, failing_source, NULL, WEIGHTS_F32, 4096, NULL, NULL, &note) == EIO);
	CHECK_STR(note.name, "source");
	CHECK(rmdir(in_dir("half")) == 0);		/* no file is left in it */
	model_destroy(&m);
	free(p);
}

int
main(void)
{
	struct json *want, *expect;

	files_begin();
	REQUIRE(json_parse_file(GOLDEN "logits.json", 0, &want, NULL) == 0);
	REQUIRE(json_parse_file(GOLDEN "expect.json", 0, &expect, NULL) == 0);
	shell("cp -r " GOLDEN "* %s/", "", "");
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		logits(names[i], json_get(want, names[i]));
		values(names[i], json_get(expect, names[i]));
		save_and_load(names[i], 0);
		save_and_load(names[i], 3000);
	}
	fingerprints();
	cut_short();
	refusals();
	tied_head_and_nan();
	bare_names();
	wrapped_names();
	folders();
	failed_save();
	json_close(&want);
	json_close(&expect);
	files_end();
	return check_done();
}
