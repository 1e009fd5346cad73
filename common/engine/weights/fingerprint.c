/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fingerprint - the identity of a model directory, and .salt_fingerprint, the record of its files that later
 * reads are compared with:
 *   salt_fingerprint2 <32 hex digits> <number of files>
 *   <size> <mtime seconds>.<nanoseconds> <inode> <name> <hash, 32 hex>   one line per file that was read
 * Older records are salt_fingerprint1, without the hash in the lines.
 */
#include "engine/weights/weights_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file/file.h"
#include "engine/model/model.h"

#define SIDECAR ".salt_fingerprint"

struct named {
	const char *bare;
	const struct weights_tensor *t;
};

static void
field_num(struct hash_state *h, const char *name, double v)
{
	uint64_t u;

	memcpy(&u, &v, sizeof(u));
	hash_field_u64(h, name, u);
}

/*
 * Fields that were added later are hashed only where they have an effect, so that older fingerprints stay
 * valid.
 */
static void
hash_features(struct hash_state *h, const struct model_config *c)
{
	const struct {
		const char *name;
		float value;
	} factors[] = {
		{"embed_scale", c->embed_scale}, {"attention_scale", c->attention_scale}, {"residual_scale", c->residual_scale},
		{"output_scale", c->output_scale}, {"attention_cap", c->attention_cap}, {"logit_cap", c->logit_cap},
	};
	bool nope = false;

	for (size_t i = 0; i < sizeof(factors) / sizeof(factors[0]); i++)
		if (factors[i].value != 0)
			field_num(h, factors[i].name, (double)factors[i].value);
	if (c->window > 0) {
		hash_field_u64(h, "window", (uint64_t)c->window);
		for (int i = 0; i < c->n_layers && i < MODEL_MAX_LISTED; i++)
			hash_field_u64(h, "local", model_layer_local(c, i));
	}
	for (int i = 0; i < c->n_layers; i++)
		nope = nope || model_layer_nope(c, i);
	for (int i = 0; nope && i < c->n_layers; i++)
		hash_field_u64(h, "nope", model_layer_nope(c, i));
}

static void
hash_scaling(struct hash_state *h, const struct model_config *c)
{
	const struct {
		const char *name;
		double value;
	} numbers[] = {
		{"rope_factor", c->rope_scaling.factor}, {"rope_original_context", (double)c->rope_scaling.original_context},
		{"rope_beta_fast", c->rope_scaling.beta_fast}, {"rope_beta_slow", c->rope_scaling.beta_slow},
		{"rope_attention_factor", c->rope_scaling.attention_factor}, {"rope_mscale", c->rope_scaling.mscale},
		{"rope_mscale_all_dim", c->rope_scaling.mscale_all_dim}, {"rope_no_truncate", c->rope_scaling.no_truncate},
		/* without a factor the scaling is context / original_context */
		{"context", c->rope_scaling.factor == 0 ? (double)c->context : 0},
	};

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		field_num(h, numbers[i].name, numbers[i].value);
	hash_field(h, "rope_short_factor", c->rope_scaling.short_factor, sizeof(c->rope_scaling.short_factor));
	hash_field(h, "rope_long_factor", c->rope_scaling.long_factor, sizeof(c->rope_scaling.long_factor));
}

/*
 * Hashes values that change outputs; not the position limit, ids of special tokens or the initial deviation.
 */
static void
hash_config(struct hash_state *h, const struct model_config *c)
{
	const struct model_traits *t = model_traits(c->family);

	hash_field_str(h, "family", model_family_name(c->family));
	hash_field_u64(h, "vocab_size", (uint64_t)c->vocab_size);
	hash_field_u64(h, "d_model", (uint64_t)c->d_model);
	hash_field_u64(h, "n_layers", (uint64_t)c->n_layers);
	hash_field_u64(h, "n_heads", (uint64_t)c->n_heads);
	hash_field_u64(h, "n_kv_heads", (uint64_t)c->n_kv_heads);
	hash_field_u64(h, "head_dim", (uint64_t)c->head_dim);
	hash_field_u64(h, "d_ff", (uint64_t)c->d_ff);
	field_num(h, "norm_eps", c->norm_eps);
	hash_field_u64(h, "tied", c->tied);
	hash_field_str(h, "activation", model_activation_name(model_activation(c)));
	hash_features(h, c);
	if (!t->rope)
		return;
	hash_field_u64(h, "attention_bias", c->attention_bias);
	hash_field_u64(h, "mlp_bias", c->mlp_bias);
	if (c->no_proj_bias)
		hash_field_u64(h, "no_proj_bias", true);
	if (t->partial_rotary) {
		hash_field_u64(h, "parallel_residual", c->parallel_residual);
		hash_field_u64(h, "rotary_dim", (uint64_t)(c->rotary_dim > 0 ? c->rotary_dim : c->head_dim));
	}
	field_num(h, "rope_theta", c->rope_theta);
	if (c->local_theta > 0)
		field_num(h, "local_theta", c->local_theta);
	hash_field_str(h, "rope_type", model_rope_scaling_name(c->rope_scaling.type));
	if (c->rope_scaling.type != MODEL_ROPE_DEFAULT && c->rope_scaling.type != MODEL_ROPE_LLAMA3)
		hash_scaling(h, c);
	if (c->rope_scaling.type == MODEL_ROPE_LLAMA3) {
		field_num(h, "rope_factor", c->rope_scaling.factor);
		field_num(h, "rope_low_freq_factor", c->rope_scaling.low_freq_factor);
		field_num(h, "rope_high_freq_factor", c->rope_scaling.high_freq_factor);
		hash_field_u64(h, "rope_original_context", (uint64_t)c->rope_scaling.original_context);
	}
}

static int
by_bare(const void *a, const void *b)
{
	return strcmp(((const struct named *)a)->bare, ((const struct named *)b)->bare);
}

/* Hashes the bytes of a tensor; rejects NaN and infinity. */
static int
hash_data(struct hash_state *h, const struct weights_tensor *t, struct err_note *note)
{
	unsigned char buf[1 << 15];
	float values[sizeof(buf) / 2];
	int rc = 0;

	hash_field_begin(h, "bytes", t->len_bytes);
	for (uint64_t at = 0, n; at < t->len_bytes && rc == 0; at += n) {
		n = t->len_bytes - at < sizeof(buf) ? t->len_bytes - at : sizeof(buf);
		if ((rc = weights__read(t, at, n, buf, note)) != 0)
			break;
		hash_update(h, buf, n);
		if (!weights__finite(t->dtype, buf, n)) {
			size_t width = weights_dtype_bytes(t->dtype);

			rc = weights_read_f32(
			    t, at / width, n / width, values, WEIGHTS_FINITE, note); /* sets the note */
		}
	}
	return rc;
}

static int
hash_tensors(struct hash_state *h, const struct weights_model *w, const struct model *model, const char *dir, struct err_note *note)
{
	struct named *list = mem_alloc((size_t)model->n_tensors, sizeof(*list));
	int rc = 0;

	if (list == NULL)
		return err_note_set(note, ENOMEM, "%s", dir);
	for (int i = 0; i < model->n_tensors; i++) {
		list[i].t = weights__model_tensor(w, i);
		weights__role(&model->config, model->tensors[i].name, &list[i].bare);
	}
	qsort(list, (size_t)model->n_tensors, sizeof(*list), by_bare);
	for (int i = 0; i < model->n_tensors && rc == 0; i++) {
		const struct weights_tensor *t = list[i].t;

		hash_field_str(h, "tensor", list[i].bare);
		hash_field_str(h, "dtype", weights_dtype_name(t->dtype));
		hash_field(h, "shape", t->shape, t->n_dims * sizeof(t->shape[0]));
		rc = hash_data(h, t, note);
	}
	free(list);
	return rc;
}

static bool
stat_line(const char *dir, const char *name, char *buf, size_t size)
{
	char path[4096 + WEIGHTS_NAME_BYTES];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	if (stat(path, &st) != 0)
		return false;
	snprintf(buf, size, "%" PRIu64 " %" PRId64 ".%09ld %" PRIu64 " %s", (uint64_t)st.st_size,
	    (int64_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (uint64_t)st.st_ino, name);
	return true;
}

/*
 * One line per file with its state, and its hash unless hashes is NULL. Returns NULL if memory is exhausted
 * or a file is missing. The caller frees the text.
 */
static char *
state_lines(const char *dir, const char *const *names, size_t n, const struct hash128 *hashes)
{
	char *text = NULL, line[WEIGHTS_NAME_BYTES + 128], hex[HASH_HEX_BYTES];
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	bool good = f != NULL;

	for (size_t i = 0; i < n && good; i++)
		good = stat_line(dir, names[i], line, sizeof(line)) &&
		    fprintf(f, hashes == NULL ? "%s\n" : "%s %s\n", line,
			hashes == NULL ? "" : hash_hex(hashes[i], hex)) > 0;
	if (f != NULL && fclose(f) != 0)
		good = false;
	if (!good) {
		free(text);
		return NULL;
	}
	return text;
}

/*
 * Compares the record with the files: if size, time and inode equal those of a line, the hash must equal it
 * too. states: lines of the present states without hashes, for the older kind of record.
 */
static int
record_check(const char *dir, const char *record, const char *const *names, size_t n,
    const struct hash128 *hashes, const char *states, struct hash128 fingerprint, struct err_note *note)
{
	char line[WEIGHTS_NAME_BYTES + 128], was[HASH_HEX_BYTES] = "", now[HASH_HEX_BYTES];
	const char *rest = strchr(record, '\n'), *at;
	struct hash128 h;

	if (rest == NULL)
		return 0;
	if (sscanf(record, "salt_fingerprint1 %32s", was) == 1 && strcmp(rest + 1, states) == 0 &&
	    hash_from_hex(&h, was) == 0 && !hash_equal(h, fingerprint))
		return err_expect(note, ERR_CORRUPT, "%s",
		    "fingerprint %s, as recorded in .salt_fingerprint for files of these sizes and times",
		    "%s: bytes of a file changed; restore it from a copy "
		    "(if the change is intended, remove .salt_fingerprint)",
		    dir, was, hash_hex(fingerprint, now));
	for (size_t i = 0; i < n && strncmp(record, "salt_fingerprint2 ", 18) == 0; i++) {
		if (!stat_line(dir, names[i], line + 1, sizeof(line) - 2))
			continue;
		line[0] = '\n';
		strcat(line, " ");
		if ((at = strstr(record, line)) == NULL)
			continue;
		snprintf(was, sizeof(was), "%s", at + strlen(line));
		if (strcmp(was, hash_hex(hashes[i], now)) != 0)
			return err_expect(note, ERR_CORRUPT, "%s/%s",
			    "hash %s, as recorded in .salt_fingerprint for this size and time",
			    "%s: its bytes changed; restore it from a copy "
			    "(if the change is intended, remove .salt_fingerprint)",
			    dir, names[i], was, now);
	}
	return 0;
}

/*
 * Compares the files with the record and renews the record. states: the files' states before the weights were
 * read; if a file has changed since, nothing is recorded.
 */
static int
record(const char *dir, const char *const *names, size_t n, const char *states, struct hash128 fingerprint,
    struct err_note *note)
{
	struct hash128 *hashes = mem_alloc(n, sizeof(*hashes));
	char path[4096 + WEIGHTS_NAME_BYTES], hex[HASH_HEX_BYTES], *old = NULL, *now = NULL, *lines = NULL,
								   *text = NULL;
	size_t len;
	int rc = hashes == NULL ? err_note_set(note, ENOMEM, "%s", dir) : 0;

	for (size_t i = 0; i < n && rc == 0; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		rc = hash_file(path, &hashes[i], note);
	}
	if (rc != 0 || (now = state_lines(dir, names, n, NULL)) == NULL || strcmp(now, states) != 0 ||
	    (lines = state_lines(dir, names, n, hashes)) == NULL)
		goto out;
	snprintf(path, sizeof(path), "%s/" SIDECAR, dir);
	if (file_read(path, 0, &old, &len, NULL) == 0 &&
	    (rc = record_check(dir, old, names, n, hashes, states, fingerprint, note)) != 0)
		goto out;
	/* Best effort: in a read-only directory nothing is recorded. */
	if (asprintf(&text, "salt_fingerprint2 %s %zu\n%s", hash_hex(fingerprint, hex), n, lines) < 0)
		text = NULL;
	else if (old == NULL || strcmp(old, text) != 0)
		file_replace_all(path, text, strlen(text), false, NULL);
out:
	free(hashes);
	free(old);
	free(now);
	free(lines);
	free(text);
	return rc;
}

/* Lists the files of the set and the configuration. names: [weights_count + 2]. */
static size_t
file_names(const struct weights *set, const char **names)
{
	size_t n = 0;

	names[n++] = "config.json";
	for (size_t i = 0; i < weights_count(set); i++) {
		const char *name = strrchr(weights_at(set, i)->file, '/') + 1;
		bool known = false;

		for (size_t k = n; k-- > 0 && !known; )		/* newest first: the tensors of a shard are
								 * mostly adjacent */
			known = strcmp(names[k], name) == 0;
		if (!known)
			names[n++] = name;
	}
	if (weights__indexed(set))
		names[n++] = "model.safetensors.index.json";
	return n;
}

int
weights_model_fingerprint(
    const struct weights_model *m, const char *dir, struct hash128 *out, struct err_note *note)
{
	const struct model *model = weights__model_of(m);
	const struct weights *set = weights__model_set(m);
	const char **names = mem_alloc(weights_count(set) + 2, sizeof(*names));
	struct hash_state *h = hash_new();
	char *states = NULL;
	size_t n_names;
	int rc;

	if (names == NULL || h == NULL) {
		rc = err_note_set(note, ENOMEM, "%s", dir);
		goto out;
	}
	n_names = file_names(set, names);
	states = state_lines(dir, names, n_names, NULL);
	hash_field_str(h, "salt_model", "1");
	hash_config(h, &model->config);
	if ((rc = hash_tensors(h, m, model, dir, note)) != 0)
		goto out;
	*out = hash_digest(h);
	if (states != NULL)
		rc = record(dir, names, n_names, states, *out, note);
out:
	free(states);
	free(names);
	hash_destroy(&h);
	return rc;
}

int
weights_fingerprint(const char *dir, struct hash128 *out, struct err_note *note)
{
	struct weights_model *w = NULL;
	struct model *model = NULL;
	struct model_config cfg;
	int rc;

	if (strlen(dir) >= 4096 - WEIGHTS_NAME_BYTES)
		return err_note_set(note, ENAMETOOLONG, "%s", dir);
	if ((rc = weights_config_load(dir, &cfg, note)) == 0 && (rc = model_new(&model, &cfg, note)) == 0 &&
	    (rc = weights_model_open(&w, dir, model, note)) == 0)
		rc = weights_model_fingerprint(w, dir, out, note);
	weights_model_close(&w);
	model_destroy(&model);
	return rc;
}
