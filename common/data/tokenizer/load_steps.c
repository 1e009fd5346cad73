/* SPDX-License-Identifier: Apache-2.0 */
#include "data/tokenizer/load_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/mem/mem.h"

#define MAX_STRING_BYTES 256u

#define MAX_DEPTH 8			/* of nested Sequences */

/* The pattern that ByteLevel uses with use_regex (GPT-2's). */
#define GPT2_PATTERN "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

static void
describe(struct tokenizer *tok, const char *what)
{
	size_t n = strlen(tok->describe);

	snprintf(tok->describe + n, sizeof tok->describe - n, "%s%s", n > 0 ? " > " : "", what);
}

/* Appends a stage, which the caller fills in; NULL with a note if there are too many. */
static struct stage *
next_stage(struct loading *l, const char *place)
{
	struct tokenizer *tok = l->tok;

	if (tok->n_stages < MAX_STAGES)
		return &tok->stage[tok->n_stages++];
	tokenizer__bad(l, ERR_UNSUPPORTED, place, "at most 16 steps of splitting", "more");
	return NULL;
}

static int
add_chars(struct loading *l, const char *place, unsigned chars, enum behavior behavior, const char *identity)
{
	struct stage *s = next_stage(l, place);

	if (s == NULL)
		return ERR_UNSUPPORTED;
	*s = (struct stage){.kind = STAGE_SPLIT, .behavior = behavior, .pattern = identity, .chars = chars};
	l->loses |= behavior == BEHAVIOR_REMOVED;
	return 0;
}

static int
add_kind(struct loading *l, const char *place, enum stage_kind kind)
{
	struct stage *s = next_stage(l, place);

	if (s == NULL)
		return ERR_UNSUPPORTED;
	*s = (struct stage){.kind = kind, .pattern = ""};
	return 0;
}

static int
add_split(struct loading *l, const char *pattern, enum behavior behavior, bool invert, const char *place)
{
	struct stage *s = next_stage(l, place);
	char *copy;
	int rc;

	if (s == NULL)
		return ERR_UNSUPPORTED;
	if ((copy = mem_arena_strndup(l->tok->arena, pattern, strlen(pattern))) == NULL)
		return tokenizer__no_memory(l);
	*s = (struct stage){.kind = STAGE_SPLIT, .behavior = behavior, .invert = invert, .pattern = copy};
	rc = tokenizer__regex_compile(&s->regex, &s->may_be_empty, copy, place, l->name, l->note);
	if (rc == 0 && behavior == BEHAVIOR_REMOVED && !l->loses)
		l->loses = !invert || !tokenizer__regex_covers(copy);
	return rc == ENOMEM ? tokenizer__no_memory(l) : rc;
}

/*
 * Reads a pattern, {"Regex": ...} or {"String": ...}, as a regular expression in the arena; special
 * characters of a String get a backslash. *literal: the text of a String, else NULL. place: the pattern's
 * place in the JSON; ".Regex" is appended for a Regex.
 */
static int
load_pattern(struct loading *l, const struct json *pattern, char place[PLACE_BYTES], const char **regex, const char **literal)
{
	char escaped[2 * MAX_STRING_BYTES + 1];
	const char *s;
	size_t n = 0;
	int rc;

	*literal = NULL;
	if (json_kind(pattern) != JSON_KIND_OBJECT)
		return tokenizer__bad(l, ERR_FORMAT, place, "an object", "%s", tokenizer__kind_of(pattern));
	if (json_get(pattern, "Regex") != NULL || json_get(pattern, "String") == NULL) {
		if ((rc = tokenizer__text(l, pattern, place, "Regex", regex)) != 0)
			return rc;
		strncat(place, ".Regex", PLACE_BYTES - 1 - strlen(place));
	} else {
		if ((rc = tokenizer__text(l, pattern, place, "String", &s)) != 0)
			return rc;
		if (s[0] == '\0' || strlen(s) > MAX_STRING_BYTES)
			return tokenizer__bad(l, ERR_UNSUPPORTED, place, "a String of 1 to 256 bytes", "%zu", strlen(s));
		*literal = s;
		for (; *s != '\0'; s++) {
			if (strchr("\\^$.|?*+()[]{}", *s) != NULL)
				escaped[n++] = '\\';
			escaped[n++] = *s;
		}
		escaped[n] = '\0';
		*regex = escaped;
	}
	if ((*regex = mem_arena_strndup(l->tok->arena, *regex, strlen(*regex))) == NULL ||
	    (*literal != NULL && (*literal = mem_arena_strndup(l->tok->arena, *literal, strlen(*literal))) == NULL))
		return tokenizer__no_memory(l);
	return 0;
}

static int
load_behavior(struct loading *l, const struct json *j, const char *place, bool required, enum behavior *behavior)
{
	static const char *const names[] = {
		[BEHAVIOR_ISOLATED] = "Isolated", [BEHAVIOR_REMOVED] = "Removed", [BEHAVIOR_MERGED_PREVIOUS] = "MergedWithPrevious",
		[BEHAVIOR_MERGED_NEXT] = "MergedWithNext", [BEHAVIOR_CONTIGUOUS] = "Contiguous"};
	const char *name;
	char where[PLACE_BYTES];
	int rc;
	size_t i;

	*behavior = BEHAVIOR_ISOLATED;
	if (!required && json_get(j, "behavior") == NULL)
		return 0;
	if ((rc = tokenizer__text(l, j, place, "behavior", &name)) != 0)
		return rc;
	for (i = 0; i < sizeof names / sizeof names[0]; i++) {
		*behavior = (enum behavior)i;
		if (strcmp(name, names[i]) == 0)
			return 0;
	}
	snprintf(where, sizeof where, "%.200s.behavior", place);
	return tokenizer__bad(l, ERR_UNSUPPORTED, where, "Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous", "%.100s", name);
}

static int
load_split(struct loading *l, const struct json *j, const char *place)
{
	const char *regex, *literal;
	enum behavior behavior;
	bool invert;
	char where[PLACE_BYTES];
	int rc;

	snprintf(where, sizeof where, "%.200s.pattern", place);
	if ((rc = load_behavior(l, j, place, true, &behavior)) != 0 || (rc = tokenizer__flag(l, j, place, "invert", false, &invert)) != 0 ||
	    (rc = load_pattern(l, json_get(j, "pattern"), where, &regex, &literal)) != 0)
		return rc;
	describe(l->tok, behavior == BEHAVIOR_ISOLATED ? "Split" : behavior == BEHAVIOR_REMOVED ? invert ? "Split, matches kept" : "Split, matches removed" :
	    behavior == BEHAVIOR_CONTIGUOUS ? "Split, runs" : "Split, merged");
	return add_split(l, regex, behavior, invert, where);
}

static int
load_byte_level(struct loading *l, const struct json *j, const char *place)
{
	bool prefix, regex;
	int rc;

	if (l->byte_level)
		return tokenizer__bad(l, ERR_UNSUPPORTED, place, "ByteLevel once", "a second one");
	if ((rc = tokenizer__flag(l, j, place, "add_prefix_space", true, &prefix)) != 0 || (rc = tokenizer__flag(l, j, place, "use_regex", true, &regex)) != 0)
		return rc;
	if (prefix && (rc = add_kind(l, place, STAGE_PREFIX_SPACE)) != 0)
		return rc;
	l->loses |= prefix;
	l->byte_level = true;
	describe(l->tok, prefix ? "ByteLevel with prefix space" : "ByteLevel");
	return regex ? add_split(l, GPT2_PATTERN, BEHAVIOR_ISOLATED, false, place) : 0;
}

/* Splits at a delimiter of one character, which is removed. */
static int
load_delimiter(struct loading *l, const struct json *j, const char *place)
{
	const char *s;
	char regex[8];
	int rc;

	if ((rc = tokenizer__text(l, j, place, "delimiter", &s)) != 0)
		return rc;
	if (s[0] == '\0' || strlen(s) > 4)
		return tokenizer__bad(l, ERR_FORMAT, place, "a delimiter of one character", "'%.60s'", s);
	snprintf(regex, sizeof regex, "%s%s", strchr("\\^$.|?*+()[]{}", s[0]) != NULL ? "\\" : "", s);
	describe(l->tok, "CharDelimiterSplit");
	return add_split(l, regex, BEHAVIOR_REMOVED, false, place);
}

/* Reads the pre-tokenizers without a pattern. ERR_NOT_FOUND: type is none of them. */
static int
load_simple(struct loading *l, const struct json *j, const char *place, const char *type)
{
	enum behavior behavior;
	bool individual;
	int rc;

	if (strcmp(type, "Digits") == 0) {
		if ((rc = tokenizer__flag(l, j, place, "individual_digits", false, &individual)) != 0)
			return rc;
		describe(l->tok, individual ? "Digits, each alone" : "Digits");
		/* A run of digits is one piece, as with this pattern, which must stay in the fingerprint. */
		if (individual)
			return add_chars(l, place, CHAR_NUMERIC, BEHAVIOR_ISOLATED, "\\p{N}");
		return add_chars(l, place, CHAR_NUMERIC, BEHAVIOR_CONTIGUOUS, "\\p{N}+");
	}
	if (strcmp(type, "Punctuation") == 0) {
		if ((rc = load_behavior(l, j, place, false, &behavior)) != 0)
			return rc;
		describe(l->tok, "Punctuation");
		return add_chars(l, place, CHAR_PUNCT, behavior, "Punctuation");
	}
	if (strcmp(type, "WhitespaceSplit") == 0) {
		describe(l->tok, type);
		return add_chars(l, place, CHAR_SPACE, BEHAVIOR_REMOVED, "WhitespaceSplit");
	}
	if (strcmp(type, "BertPreTokenizer") == 0) {
		describe(l->tok, type);
		return (rc = add_chars(l, place, CHAR_SPACE, BEHAVIOR_REMOVED, "WhitespaceSplit")) != 0 ? rc :
		    add_chars(l, place, CHAR_PUNCT, BEHAVIOR_ISOLATED, "Punctuation");
	}
	if (strcmp(type, "Whitespace") == 0) {
		describe(l->tok, type);
		l->loses = true;
		return add_kind(l, place, STAGE_WORDS);
	}
	return ERR_NOT_FOUND;
}

static int
load_metaspace(struct loading *l, const struct json *j, const char *place)
{
	struct stage *s = next_stage(l, place);
	int rc;

	if (s == NULL)
		return ERR_UNSUPPORTED;
	*s = (struct stage){.kind = STAGE_METASPACE, .pattern = ""};
	if ((rc = tokenizer__metaspace(l, j, place, &s->pattern, &s->prepend)) != 0 || (rc = tokenizer__flag(l, j, place, "split", true, &s->split)) != 0)
		return rc;
	describe(l->tok, s->split ? "Metaspace" : "Metaspace, no split");
	return 0;
}

static int
load_split_steps(struct loading *l, const struct json *j, const char *place, int depth)
{
	const char *type;
	char where[PLACE_BYTES];
	int rc;

	if (json_kind(j) == JSON_KIND_NULL && depth == 0)
		return 0;
	if (json_kind(j) != JSON_KIND_OBJECT)
		return tokenizer__bad(l, ERR_FORMAT, place, "an object", "%s", tokenizer__kind_of(j));
	if ((rc = tokenizer__text(l, j, place, "type", &type)) != 0)
		return rc;
	if (strcmp(type, "Sequence") == 0) {
		const struct json *steps = json_get(j, "pretokenizers");
		size_t i;

		snprintf(where, sizeof where, "%.200s.pretokenizers", place);
		if (json_kind(steps) != JSON_KIND_ARRAY)
			return tokenizer__bad(l, ERR_FORMAT, where, "an array", "%s", tokenizer__kind_of(steps));
		if (depth == MAX_DEPTH)
			return tokenizer__bad(l, ERR_UNSUPPORTED, where, "at most 8 sequences within each other", "more");
		for (i = 0; i < json_count(steps); i++) {
			snprintf(where, sizeof where, "%.200s.pretokenizers[%zu]", place, i);
			if ((rc = load_split_steps(l, json_item(steps, i), where, depth + 1)) != 0)
				return rc;
		}
		return 0;
	}
	/* Steps after ByteLevel split the text in its alphabet. */
	if (l->byte_level && !l->tok->mapped) {
		l->tok->mapped = true;
		if ((rc = add_kind(l, place, STAGE_BYTE_MAP)) != 0)
			return rc;
	}
	if (strcmp(type, "ByteLevel") == 0)
		return load_byte_level(l, j, place);
	if (strcmp(type, "Split") == 0)
		return load_split(l, j, place);
	if (strcmp(type, "Metaspace") == 0)
		return load_metaspace(l, j, place);
	if (strcmp(type, "CharDelimiterSplit") == 0)
		return load_delimiter(l, j, place);
	if ((rc = load_simple(l, j, place, type)) != ERR_NOT_FOUND)
		return rc;
	snprintf(where, sizeof where, "%.200s.type", place);
	return tokenizer__bad(l, ERR_UNSUPPORTED, where, "Sequence, Split, ByteLevel, Metaspace, Digits, Punctuation, Whitespace, WhitespaceSplit, "
	    "CharDelimiterSplit or BertPreTokenizer", "%.100s", type);
}

static int
load_replace(struct loading *l, const struct json *j, const char *place, struct normal_step *s)
{
	const char *content;
	bool may_be_empty = false;
	char where[PLACE_BYTES];
	int rc;

	snprintf(where, sizeof where, "%.200s.pattern", place);
	if ((rc = tokenizer__text(l, j, place, "content", &content)) != 0 ||
	    (rc = load_pattern(l, json_get(j, "pattern"), where, &s->pattern, &s->literal)) != 0)
		return rc;
	if (strlen(content) > MAX_STRING_BYTES)
		return tokenizer__bad(l, ERR_UNSUPPORTED, place, "content of at most 256 bytes", "%zu", strlen(content));
	s->content_len = strlen(content);
	if ((s->content = mem_arena_strndup(l->tok->arena, content, s->content_len)) == NULL)
		return tokenizer__no_memory(l);
	if (s->literal != NULL) {
		s->literal_len = strlen(s->literal);
		return 0;
	}
	rc = tokenizer__regex_compile(&s->regex, &may_be_empty, s->pattern, where, l->name, l->note);
	if (rc == 0 && may_be_empty)
		return tokenizer__bad(l, ERR_UNSUPPORTED, where, "a pattern that matches at least one character", "one that can match nothing");
	return rc == ENOMEM ? tokenizer__no_memory(l) : rc;
}

static int
load_precompiled(struct loading *l, const struct json *j, const char *place, struct normal_step *s)
{
	const char *text, *expected = NULL;
	char where[PLACE_BYTES];
	int rc;

	if ((rc = tokenizer__text(l, j, place, "precompiled_charsmap", &text)) != 0)
		return rc;
	if ((rc = tokenizer__precompiled_load(l->tok, s, text, &expected)) == ENOMEM)
		return tokenizer__no_memory(l);
	snprintf(where, sizeof where, "%.200s.precompiled_charsmap", place);
	return rc == 0 ?
	    0 :
	    tokenizer__bad(l, rc, where, expected, "something else in %zu characters", strlen(text));
}

static int
load_prepend(struct loading *l, const struct json *j, const char *place, struct normal_step *s)
{
	const char *content;
	int rc;

	if ((rc = tokenizer__text(l, j, place, "prepend", &content)) != 0)
		return rc;
	if ((s->content_len = strlen(content)) > MAX_STRING_BYTES)
		return tokenizer__bad(l, ERR_UNSUPPORTED, place, "prepend of at most 256 bytes", "%zu", s->content_len);
	return (s->content = mem_arena_strndup(l->tok->arena, content, s->content_len)) != NULL ? 0 : tokenizer__no_memory(l);
}

static int
load_normal_step(struct loading *l, const struct json *j, const char *place, const char *type)
{
	static const char *const names[] = {[NORMAL_NFC] = "NFC",
	    [NORMAL_NFD] = "NFD",
	    [NORMAL_NFKC] = "NFKC",
	    [NORMAL_NFKD] = "NFKD",
	    [NORMAL_LOWERCASE] = "Lowercase",
	    [NORMAL_STRIP] = "Strip",
	    [NORMAL_STRIP_ACCENTS] = "StripAccents",
	    [NORMAL_REPLACE] = "Replace",
	    [NORMAL_PREPEND] = "Prepend",
	    [NORMAL_PRECOMPILED] = "Precompiled",
	    [NORMAL_SENTENCEPIECE] = "SentencePiece"};
	struct tokenizer *tok = l->tok;
	struct normal_step *s = &tok->normal[tok->n_normals];
	char where[PLACE_BYTES];
	size_t kind;
	int rc;

	for (kind = 0; kind < sizeof names / sizeof names[0] && strcmp(type, names[kind]) != 0; kind++)
		;
	if (kind == sizeof names / sizeof names[0]) {
		snprintf(where, sizeof where, "%.200s.type", place);
		return tokenizer__bad(l, ERR_UNSUPPORTED, where,
		    "NFC, NFD, NFKC, NFKD, Lowercase, Strip, StripAccents, Replace, Prepend, Precompiled, SentencePiece, Sequence or no normalizer",
		    "%.100s", type);
	}
	if (kind == NORMAL_NFC && tok->n_normals > 0 && s[-1].kind == NORMAL_NFC)
		return 0;			/* a second NFC changes nothing */
	if (tok->n_normals == MAX_NORMALS)
		return tokenizer__bad(l, ERR_UNSUPPORTED, place, "at most 16 steps of normalising", "more");
	*s = (struct normal_step){.kind = (enum normal_kind)kind};
	tok->n_normals++;
	describe(tok, type);
	if (kind == NORMAL_STRIP)
		return (rc = tokenizer__flag(l, j, place, "strip_left", false, &s->left)) != 0 ? rc :
		    tokenizer__flag(l, j, place, "strip_right", false, &s->right);
	if (kind == NORMAL_SENTENCEPIECE &&
	    ((rc = tokenizer__flag(l, j, place, "add_dummy_prefix", true, &s->left)) != 0 ||
		(rc = tokenizer__flag(l, j, place, "remove_extra_whitespaces", true, &s->right)) != 0))
		return rc;
	if (kind == NORMAL_PRECOMPILED || kind == NORMAL_SENTENCEPIECE)
		return load_precompiled(l, j, place, s);
	if (kind == NORMAL_PREPEND)
		return load_prepend(l, j, place, s);
	return kind == NORMAL_REPLACE ? load_replace(l, j, place, s) : 0;
}

static int
load_normalizer(struct loading *l, const struct json *j, const char *place, int depth)
{
	const char *type;
	char where[PLACE_BYTES];
	int rc;

	if (json_kind(j) == JSON_KIND_NULL)
		return 0;
	if (json_kind(j) != JSON_KIND_OBJECT)
		return tokenizer__bad(l, ERR_FORMAT, place, "an object or null", "%s", tokenizer__kind_of(j));
	if ((rc = tokenizer__text(l, j, place, "type", &type)) != 0)
		return rc;
	if (strcmp(type, "Sequence") == 0 && depth < MAX_DEPTH) {
		const struct json *steps = json_get(j, "normalizers");
		size_t i;

		snprintf(where, sizeof where, "%.200s.normalizers", place);
		if (json_kind(steps) != JSON_KIND_ARRAY)
			return tokenizer__bad(l, ERR_FORMAT, where, "an array", "%s", tokenizer__kind_of(steps));
		for (i = 0; i < json_count(steps); i++) {
			snprintf(where, sizeof where, "%.200s.normalizers[%zu]", place, i);
			if ((rc = load_normalizer(l, json_item(steps, i), where, depth + 1)) != 0)
				return rc;
		}
		return 0;
	}
	return load_normal_step(l, j, place, type);
}

int
tokenizer__load_steps(struct loading *l, const struct json *normalizer, const struct json *pre_tokenizer)
{
	int rc;

	if ((rc = load_normalizer(l, normalizer, "normalizer", 0)) != 0 ||
	    (rc = load_split_steps(l, pre_tokenizer, "pre_tokenizer", 0)) != 0)
		return rc;
	if (l->tok->model == MODEL_CHARS && l->byte_level)
		l->tok->model = MODEL_BYTES;
	else if (l->byte_level)
		return tokenizer__bad(l, ERR_UNSUPPORTED, "pre_tokenizer", "no ByteLevel where model.type is Unigram", "ByteLevel");
	return 0;
}
