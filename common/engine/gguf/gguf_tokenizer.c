/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf_tokenizer - converts a GGUF file's tokenizer.ggml.* to the text of a tokenizer.json (byte-level BPE,
 * or SentencePiece's BPE by scores) and of a tokenizer_config.json.
 */
#include "engine/gguf/gguf_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json/json.h"
#include "base/mem/mem.h"
#include "base/pieces/pieces.h"

#define MAX_TOKEN_BYTES 65536u			/* as in data/tokenizer */

/* Values of tokenizer.ggml.token_type. */
enum token_type { TOKEN_NORMAL = 1, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_USER_DEFINED, TOKEN_UNUSED, TOKEN_BYTE };

#define GIVE "; else give --tokenizer PATH"

struct conversion {
	const struct gguf *g;
	struct err_note *note;
	const struct gguf__pre *split;
	struct mem_arena *arena;
	const char **tokens;			/* [n], terminated by NUL */
	uint8_t *types;				/* [n] enum token_type */
	size_t n;
	bool prefix_space, add_bos, add_eos;
	bool spm; /* model llama: BPE over characters; merges follow from scores */
};

static int
no_memory(const struct conversion *c)
{
	return err_note_set(c->note, ENOMEM, "%s", c->g->path);
}

/* Copies an item of an array of strings into the arena; it must be UTF-8 without NUL. */
static int
copy_text(struct conversion *c, const char *key, size_t i, struct gguf__text text, const char **out)
{
	char item[64];

	snprintf(item, sizeof(item), "UTF-8 without NUL at item %zu", i);
	for (size_t at = 0, n; at < text.len; at += n) {
		n = gguf__utf8((const unsigned char *)text.s + at, text.len - at);
		if (n == 0 || text.s[at] == '\0')
			return gguf__bad(c->g, c->note, ERR_FORMAT, key, item, "byte 0x%02x", (unsigned char)text.s[at]);
	}
	if (text.len > MAX_TOKEN_BYTES) {
		snprintf(item, sizeof(item), "at most %u bytes at item %zu", MAX_TOKEN_BYTES, i);
		return gguf__bad(c->g, c->note, ERR_RANGE, key, item, "%zu", text.len);
	}
	return (*out = mem_arena_strndup(c->arena, text.s, text.len)) != NULL ? 0 : no_memory(c);
}

static int
texts_of(struct conversion *c, const char *key, const struct gguf__pair **out)
{
	const struct gguf__pair *pair = gguf__pair(c->g, key);

	if (pair == NULL || pair->kind != GGUF__ARRAY)
		return gguf__bad_kind(c->g, c->note, key, "an array of strings");
	if (pair->item_kind != GGUF__TEXT)
		return gguf__bad(c->g, c->note, ERR_FORMAT, key, "an array of strings", "an array of %s", gguf__kind_name(pair->item_kind));
	if (pair->count > GGUF_MAX_TOKENS)
		return gguf__bad(c->g, c->note, ERR_RANGE, key, "at most 4194304 items", "%" PRIu64, pair->count);
	*out = pair;
	return 0;
}

static int
read_types(struct conversion *c)
{
	const char *key = "tokenizer.ggml.token_type";
	const struct gguf__pair *pair = gguf__pair(c->g, key);
	const unsigned char *at;
	char expected[64];

	memset(c->types, TOKEN_NORMAL, c->n);
	if (pair == NULL)
		return 0;
	if (pair->kind != GGUF__ARRAY || (pair->item_kind != GGUF__I32 && pair->item_kind != GGUF__U32))
		return gguf__bad(c->g, c->note, ERR_FORMAT, key, "an array of i32", "%s of %s", gguf__kind_name(pair->kind),
		    gguf__kind_name(pair->item_kind));
	if (pair->count != c->n) {
		snprintf(expected, sizeof(expected), "one for each of the %zu tokens", c->n);
		return gguf__bad(c->g, c->note, ERR_FORMAT, key, expected, "%" PRIu64, pair->count);
	}
	at = pair->value;
	for (size_t i = 0; i < c->n; i++) {
		int64_t v = gguf__next_int(pair->item_kind, &at);

		snprintf(
		    expected, sizeof(expected), "1 to %d at item %zu", c->spm ? TOKEN_BYTE : TOKEN_UNUSED, i);
		if (v < TOKEN_NORMAL || v > (c->spm ? TOKEN_BYTE : TOKEN_UNUSED))
			return gguf__bad(c->g, c->note, ERR_UNSUPPORTED, key, expected, "%" PRId64 "%s", v, v == TOKEN_BYTE ? " (byte)" : "");
		c->types[i] = (uint8_t)v;
	}
	return 0;
}

static int
read_tokens(struct conversion *c)
{
	const char *key = "tokenizer.ggml.tokens";
	const struct gguf__pair *pair;
	const unsigned char *at;
	int rc;

	if ((rc = texts_of(c, key, &pair)) != 0)
		return rc;
	c->n = (size_t)pair->count;
	if (c->n == 0)
		return gguf__bad(c->g, c->note, ERR_FORMAT, key, "at least one token", "none");
	if ((c->tokens = mem_alloc(c->n, sizeof(c->tokens[0]))) == NULL || (c->types = mem_alloc(c->n, 1)) == NULL)
		return no_memory(c);
	at = pair->value;
	for (size_t i = 0; i < c->n; i++)
		if ((rc = copy_text(c, key, i, gguf__next_text(&at), &c->tokens[i])) != 0)
			return rc;
	return read_types(c);
}

static int
flag_key(struct conversion *c, const char *key, bool otherwise, bool *out)
{
	*out = otherwise;
	if (gguf__pair(c->g, key) != NULL && !gguf__flag(gguf__pair(c->g, key), out))
		return gguf__bad_kind(c->g, c->note, key, "a flag");
	return 0;
}

/* Reports a name that is not in the table; the message lists the first name of each row. */
static int
unknown_pre(const struct conversion *c, int rc, const struct gguf__text *found)
{
	char names[320] = "";
	size_t at = 0;

	for (size_t i = 0; gguf__pre_names(i) != NULL && at < sizeof(names); i++)
		at += (size_t)snprintf(names + at, sizeof(names) - at, "%.*s, ", (int)strcspn(gguf__pre_names(i), " "), gguf__pre_names(i));
	if (at < sizeof(names))
		snprintf(names + at, sizeof(names) - at, "or another one of docs/models.md" GIVE);
	return gguf__bad(c->g, c->note, rc, "tokenizer.ggml.pre", names, "%.*s", (int)(found->len < 100 ? found->len : 100), found->s);
}

static int
read_rules(struct conversion *c)
{
	const char *model_key = "tokenizer.ggml.model", *pre_key = "tokenizer.ggml.pre";
	struct gguf__text model, pre = {"nothing", 7};
	int rc;

	if (!gguf__text(gguf__pair(c->g, model_key), &model))
		return gguf__bad_kind(c->g, c->note, model_key, "a string");
	if ((c->spm = gguf__is(&model, "llama")))
		return (rc = flag_key(c, "tokenizer.ggml.add_space_prefix", true, &c->prefix_space)) != 0 ||
			(rc = flag_key(c, "tokenizer.ggml.add_bos_token", true, &c->add_bos)) != 0 ?
		    rc :
		    flag_key(c, "tokenizer.ggml.add_eos_token", false, &c->add_eos);
	if (!gguf__is(&model, "gpt2"))
		return gguf__bad(c->g, c->note, ERR_UNSUPPORTED, model_key,
		    "gpt2 (byte-level BPE) or llama (SentencePiece)" GIVE, "%.*s",
		    (int)(model.len < 100 ? model.len : 100), model.s);
	if (gguf__pair(c->g, pre_key) != NULL && !gguf__text(gguf__pair(c->g, pre_key), &pre))
		return gguf__bad_kind(c->g, c->note, pre_key, "a string");
	if ((c->split = gguf__pre(&pre)) == NULL)
		return unknown_pre(c, gguf__pair(c->g, pre_key) != NULL ? ERR_UNSUPPORTED : ERR_FORMAT, &pre);
	if ((rc = flag_key(c, "tokenizer.ggml.add_space_prefix", false, &c->prefix_space)) != 0 ||
	    (rc = flag_key(c, "tokenizer.ggml.add_bos_token", c->split->bos, &c->add_bos)) != 0 ||
	    (rc = flag_key(c, "tokenizer.ggml.add_eos_token", false, &c->add_eos)) != 0)
		return rc;
	return 0;
}

/* The token that a key names; NULL if the key is absent or the id has no token in the file. */
static const char *
token_key(const struct conversion *c, const char *key)
{
	int64_t id;

	return gguf__int(gguf__pair(c->g, key), &id) && id >= 0 && (uint64_t)id < c->n ? c->tokens[id] : NULL;
}

/* ---- the parts of tokenizer.json; NULL if memory is exhausted ---- */

static struct json *
byte_level(bool prefix_space, bool regex)
{
	return json_build("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", prefix_space, "trim_offsets", true,
	    "use_regex", regex);
}

static struct json *
pre_tokenizer(const struct conversion *c)
{
	const struct gguf__pre *pre = c->split;
	struct json *list;
	int rc = 0;

	if (pre->splits[0] == NULL && !pre->digits)
		return byte_level(c->prefix_space, true);
	list = json_new_array();
	if (pre->digits)
		rc |= json_push(list, json_build("{s:s, s:b}", "type", "Digits", "individual_digits", true));
	if (pre->falcon) {
		rc |= json_push(list, json_build("{s:s, s:s}", "type", "Punctuation", "behavior", "Contiguous"));
		rc |= json_push(list, byte_level(c->prefix_space, true));
		rc |= json_push(list, json_build("{s:s, s:b}", "type", "Digits", "individual_digits", false));
	}
	for (size_t i = 0; i < sizeof(pre->splits) / sizeof(pre->splits[0]) && pre->splits[i] != NULL; i++)
		rc |= json_push(list, json_build("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex", pre->splits[i],
		    "behavior", "Isolated", "invert", false));
	if (!pre->falcon)
		rc |= json_push(list, byte_level(c->prefix_space, pre->splits[0] == NULL));
	if (rc != 0)
		json_close(&list);
	return json_build("{s:s, s:o}", "type", "Sequence", "pretokenizers", list);
}

static int
push_piece(struct json *list, const char *kind, const char *id, int type)
{
	return id == NULL ? 0 : json_push(list, json_build("{s:{s:s, s:i}}", kind, "id", id, "type_id", type));
}

static int
put_special(const struct conversion *c, struct json *specials, const char *key)
{
	const char *token = token_key(c, key);
	int64_t id = 0;

	gguf__int(gguf__pair(c->g, key), &id);
	return json_put(specials, token, json_build("{s:s, s:[I], s:[s]}", "id", token, "ids", id, "tokens", token));
}

/* Adds BOS and EOS around each text if the file requires it. data/tokenizer does not apply it; others do. */
static struct json *
post_processor(const struct conversion *c)
{
	const char *bos = c->add_bos ? token_key(c, "tokenizer.ggml.bos_token_id") : NULL;
	const char *eos = c->add_eos ? token_key(c, "tokenizer.ggml.eos_token_id") : NULL;
	struct json *lists[2], *specials, *o;		/* single, pair */
	int rc = 0;

	if (bos == NULL && eos == NULL)
		return json_new_null();
	specials = json_new_object();
	for (int k = 0; k < 2; k++) {
		lists[k] = json_new_array();
		for (int i = 0; i <= k; i++)
			rc |= push_piece(lists[k], "SpecialToken", bos, i) | push_piece(lists[k], "Sequence", i == 0 ? "A" : "B", i) |
			    push_piece(lists[k], "SpecialToken", eos, i);
	}
	if (bos != NULL)
		rc |= put_special(c, specials, "tokenizer.ggml.bos_token_id");
	if (eos != NULL && (bos == NULL || strcmp(bos, eos) != 0))
		rc |= put_special(c, specials, "tokenizer.ggml.eos_token_id");
	o = json_build("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single", lists[0], "pair", lists[1],
	    "special_tokens", specials);
	if (rc != 0)
		json_close(&o);
	return o;
}

static bool
is_added(const struct conversion *c, size_t i)
{
	return c->types[i] == TOKEN_UNKNOWN || c->types[i] == TOKEN_CONTROL || c->types[i] == TOKEN_USER_DEFINED;
}

static struct json *
added_tokens(const struct conversion *c)
{
	struct json *list = json_new_array();
	int rc = 0;

	for (size_t i = 0; i < c->n && rc == 0; i++)
		if (is_added(c, i))
			rc = json_push(list, json_build("{s:I, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (int64_t)i, "content", c->tokens[i],
			    "single_word", false, "lstrip", false, "rstrip", false, "normalized", false,
			    "special", c->types[i] != TOKEN_USER_DEFINED));
	if (rc != 0)
		json_close(&list);
	return list;
}

/*
 * Sets model.vocab. Added tokens at its end are omitted, as in the files of Llama 3 and Qwen2. Earlier ones
 * (GPT-2, SmolLM2) must be included, or the ids after them would shift.
 */
static int
put_vocab(const struct conversion *c, struct json *model)
{
	const char *key = "tokenizer.ggml.tokens";
	struct json *vocab = json_new_object();
	size_t n = c->n;
	int rc = vocab != NULL ? 0 : no_memory(c);

	while (n > 0 && is_added(c, n - 1))
		n--;
	for (size_t i = 0; i < n && rc == 0; i++) {
		if (json_get(vocab, c->tokens[i]) != NULL)
			rc = gguf__bad(c->g, c->note, ERR_FORMAT, key, "each token once", "'%.100s' twice, the second with id %zu", c->tokens[i], i);
		else if (json_put(vocab, c->tokens[i], json_new_int((int64_t)i)) != 0)
			rc = no_memory(c);
	}
	if (rc != 0) {
		json_close(&vocab);
		return rc;
	}
	return json_put(model, "vocab", vocab) == 0 ? 0 : no_memory(c);
}

static int
put_merges(struct conversion *c, struct json *model)
{
	const char *key = "tokenizer.ggml.merges", *text;
	const struct gguf__pair *pair;
	struct json *list = NULL;
	const unsigned char *at;
	int rc;

	if ((rc = texts_of(c, key, &pair)) != 0)
		return rc;
	if ((list = json_new_array()) == NULL)
		return no_memory(c);
	at = pair->value;
	for (uint64_t i = 0; i < pair->count && rc == 0; i++)
		if ((rc = copy_text(c, key, (size_t)i, gguf__next_text(&at), &text)) == 0 && json_push(list, json_new_text(text)) != 0)
			rc = no_memory(c);
	if (rc != 0) {
		json_close(&list);
		return rc;
	}
	return json_put(model, "merges", list) == 0 ? 0 : no_memory(c);
}

static int
read_scores(struct conversion *c, float **out)
{
	const char *key = "tokenizer.ggml.scores";
	const struct gguf__pair *pair = gguf__pair(c->g, key);
	const unsigned char *at;
	char expected[64];
	uint32_t bits;

	if (pair == NULL || pair->kind != GGUF__ARRAY || pair->item_kind != GGUF__F32)
		return gguf__bad_kind(
		    c->g, c->note, key, "an array of f32, for a tokenizer of model llama" GIVE);
	if (pair->count != c->n) {
		snprintf(expected, sizeof(expected), "one for each of the %zu tokens", c->n);
		return gguf__bad(c->g, c->note, ERR_FORMAT, key, expected, "%" PRIu64, pair->count);
	}
	if ((*out = mem_alloc(c->n, sizeof(**out))) == NULL)
		return no_memory(c);
	at = pair->value;
	for (size_t i = 0; i < c->n; i++, at += 4) {
		bits = (uint32_t)gguf__little(at, 4);
		memcpy(&(*out)[i], &bits, 4);
	}
	return 0;
}

static int
make_spm_json(struct conversion *c, char **out)
{
	struct pieces p = {.n = c->n, .text = c->tokens, .type = c->types, .prefix = c->prefix_space};
	struct json *root = NULL;
	float *scores = NULL;
	int64_t unk = 0;
	int rc;

	if (gguf__int(gguf__pair(c->g, "tokenizer.ggml.unknown_token_id"), &unk) &&
	    (unk < 0 || (uint64_t)unk >= c->n))
		return gguf__bad(c->g, c->note, ERR_FORMAT, "tokenizer.ggml.unknown_token_id",
		    "the id of a token", "%" PRId64, unk);
	p.unk_id = (int32_t)unk;
	for (size_t i = 0; i < c->n; i++)
		p.byte_fallback = p.byte_fallback || c->types[i] == TOKEN_BYTE;
	if ((rc = read_scores(c, &scores)) == 0) {
		p.score = scores;
		rc = pieces_json(&p, c->g->path, &root, c->note);
	}
	if (rc == 0 &&
	    (json_put(root, "post_processor", post_processor(c)) != 0 ||
		(*out = json_print(root, true)) == NULL))
		rc = no_memory(c);
	json_close(&root);
	free(scores);
	return rc;
}

static int
make_json(struct conversion *c, char **out)
{
	struct json *root = json_build("{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation", "padding",
	    "added_tokens", added_tokens(c), "normalizer", c->split->nfc ? json_build("{s:s}", "type", "NFC") : json_new_null(),
	    "pre_tokenizer", pre_tokenizer(c), "post_processor", post_processor(c), "decoder", byte_level(true, true));
	struct json *model = json_build("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b}", "type", "BPE", "dropout", "unk_token",
	    "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", false, "byte_fallback", false,
	    "ignore_merges", c->split->ignore_merges);
	int rc;

	if (root == NULL || model == NULL)
		rc = no_memory(c);
	else if ((rc = put_vocab(c, model)) == 0 && (rc = put_merges(c, model)) == 0) {
		rc = json_put(root, "model", model);
		model = NULL;
		if (rc != 0 || (*out = json_print(root, true)) == NULL)
			rc = no_memory(c);
	}
	json_close(&model);
	json_close(&root);
	return rc;
}

/* Makes tokenizer_config.json for transformers: class, special tokens, chat template. */
static int
make_config(struct conversion *c, char **out)
{
	static const struct {
		const char *name, *key;
	} specials[] = {
		{"bos_token", "tokenizer.ggml.bos_token_id"}, {"eos_token", "tokenizer.ggml.eos_token_id"},
		{"unk_token", "tokenizer.ggml.unknown_token_id"}, {"pad_token", "tokenizer.ggml.padding_token_id"},
	};
	struct json *o = json_build("{s:s, s:b}", "tokenizer_class", "PreTrainedTokenizerFast", "clean_up_tokenization_spaces", false);
	char key[GGUF__KEY_BYTES];
	struct gguf__text chat;
	const char *token, *text;
	int64_t context;
	int rc = o != NULL ? 0 : ENOMEM;

	if (gguf__int(gguf__pair(c->g, gguf__key(c->g, "context_length", key)), &context))
		rc |= json_put(o, "model_max_length", json_new_int(context));
	for (size_t i = 0; i < sizeof(specials) / sizeof(specials[0]); i++)
		if ((token = token_key(c, specials[i].key)) != NULL)
			rc |= json_put(o, specials[i].name, json_new_text(token));
	if (gguf__text(gguf__pair(c->g, "tokenizer.chat_template"), &chat)) {
		text = mem_arena_strndup(c->arena, chat.s, chat.len);
		rc |= text != NULL ? json_put(o, "chat_template", json_new_text(text)) : ENOMEM;
	}
	if (rc != 0 || (*out = json_print(o, true)) == NULL)
		rc = no_memory(c);
	json_close(&o);
	return rc;
}

int
gguf_tokenizer(const struct gguf *g, char **json, char **config, struct err_note *note)
{
	struct conversion c = {.g = g, .note = note};
	int rc;

	*json = *config = NULL;
	if ((c.arena = mem_arena_new(0)) == NULL)
		return no_memory(&c);
	if ((rc = read_rules(&c)) != 0 || (rc = read_tokens(&c)) != 0 ||
	    (rc = c.spm ? make_spm_json(&c, json) : make_json(&c, json)) != 0 ||
	    (rc = make_config(&c, config)) != 0) {
		free(*json);
		*json = NULL;
	}
	mem_arena_destroy(&c.arena);
	free(c.tokens);
	free(c.types);
	return rc;
}
