/* SPDX-License-Identifier: Apache-2.0 */
#include "data/tokenizer/load_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/mem/mem.h"

#define MAX_STRING_BYTES 256u
#define MAX_DEPTH 8			/* of Sequence in Sequence */

/* The pattern of ByteLevel with use_regex (GPT-2's). */
#define GPT2_PATTERN "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

static void
describe(struct tokenizer *tok, const char *what)
{
	size_t n = strlen(tok->describe);

	snprintf(tok->describe + n, sizeof tok->describe - n, "%s%s", n > 0 ? " > " : "", what);
}

static int
add_split(struct loading *l, const char *pattern, const char *place)
{
	struct tokenizer *tok = l->tok;
	char *copy;
	int rc;

	if (tok->n_stages == MAX_STAGES)
		return tokenizer__bad(l, ERR_UNSUPPORTED, place, "at most 16 steps of splitting", "more");
	if ((copy = mem_arena_strndup(tok->arena, pattern, strlen(pattern))) == NULL)
		return tokenizer__no_memory(l);
	rc = tokenizer__stage_split(&tok->stage[tok->n_stages], copy, place, l->name, l->note);
	if (rc == 0)
		tok->n_stages++;
	return rc == ENOMEM ? tokenizer__no_memory(l) : rc;
}

/* A pattern of plain text: as a regular expression, with a backslash before each character that is special there. */
static int
load_string(struct loading *l, const struct json *pattern, const char *place)
{
	char regex[2 * MAX_STRING_BYTES + 1];
	const char *s;
	size_t n = 0;
	int rc;

	if ((rc = tokenizer__text(l, pattern, place, "String", &s)) != 0)
		return rc;
	if (strlen(s) > MAX_STRING_BYTES)
		return tokenizer__bad(l, ERR_UNSUPPORTED, place, "a String of at most 256 bytes", "%zu", strlen(s));
	for (; *s != '\0'; s++) {
		if (strchr("\\^$.|?*+()[]{}", *s) != NULL)
			regex[n++] = '\\';
		regex[n++] = *s;
	}
	regex[n] = '\0';
	describe(l->tok, "Split");
	return add_split(l, regex, place);
}

static int
load_split(struct loading *l, const struct json *j, const char *place)
{
	const struct json *pattern = json_get(j, "pattern");
	const char *regex, *behavior;
	char where[PLACE_BYTES];
	int rc;

	if ((rc = tokenizer__text(l, j, place, "behavior", &behavior)) != 0 || (rc = tokenizer__flag_not(l, j, place, "invert", true)) != 0)
		return rc;
	if (strcmp(behavior, "Isolated") != 0) {
		snprintf(where, sizeof where, "%.200s.behavior", place);
		return tokenizer__bad(l, ERR_UNSUPPORTED, where, "Isolated", "%.100s", behavior);
	}
	snprintf(where, sizeof where, "%.200s.pattern", place);
	if (json_kind(pattern) != JSON_KIND_OBJECT)
		return tokenizer__bad(l, ERR_FORMAT, where, "an object", "%s", tokenizer__kind_of(pattern));
	if (json_get(pattern, "Regex") == NULL && json_get(pattern, "String") != NULL)
		return load_string(l, pattern, where);
	if ((rc = tokenizer__text(l, pattern, where, "Regex", &regex)) != 0)
		return rc;
	snprintf(where, sizeof where, "%.200s.pattern.Regex", place);
	describe(l->tok, "Split");
	return add_split(l, regex, where);
}

static int
load_byte_level(struct loading *l, const struct json *j, const char *place)
{
	struct tokenizer *tok = l->tok;
	bool prefix, regex;
	int rc;

	if ((rc = tokenizer__flag(l, j, place, "add_prefix_space", true, &prefix)) != 0 || (rc = tokenizer__flag(l, j, place, "use_regex", true, &regex)) != 0)
		return rc;
	if (prefix) {
		if (tok->n_stages == MAX_STAGES)
			return tokenizer__bad(l, ERR_UNSUPPORTED, place, "at most 16 steps of splitting", "more");
		tok->stage[tok->n_stages++] = (struct stage){.kind = STAGE_PREFIX_SPACE, .pattern = ""};
		l->prefix_space = true;
	}
	l->byte_level = true;
	describe(tok, prefix ? "ByteLevel with prefix space" : "ByteLevel");
	if (!regex)
		return 0;
	return add_split(l, GPT2_PATTERN, place);
}

static int
load_split_steps(struct loading *l, const struct json *j, const char *place, int depth)
{
	const char *type;
	char where[PLACE_BYTES];
	bool individual;
	int rc;

	if (json_kind(j) == JSON_KIND_NULL)
		return tokenizer__bad(l, ERR_UNSUPPORTED, place, "ByteLevel, or a Sequence that ends with it", "null");
	if (json_kind(j) != JSON_KIND_OBJECT)
		return tokenizer__bad(l, ERR_FORMAT, place, "an object", "%s", tokenizer__kind_of(j));
	if ((rc = tokenizer__text(l, j, place, "type", &type)) != 0)
		return rc;
	if (l->byte_level)
		return tokenizer__bad(l, ERR_UNSUPPORTED, place, "nothing after ByteLevel", "%.100s", type);
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
	if (strcmp(type, "ByteLevel") == 0)
		return load_byte_level(l, j, place);
	if (strcmp(type, "Split") == 0)
		return load_split(l, j, place);
	if (strcmp(type, "Digits") == 0) {
		if ((rc = tokenizer__flag(l, j, place, "individual_digits", false, &individual)) != 0)
			return rc;
		describe(l->tok, individual ? "Digits, each alone" : "Digits");
		return add_split(l, individual ? "\\p{N}" : "\\p{N}+", place);
	}
	snprintf(where, sizeof where, "%.200s.type", place);
	return tokenizer__bad(l, ERR_UNSUPPORTED, where, "Sequence, Split, Digits or ByteLevel", "%.100s", type);
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
	if (strcmp(type, "NFC") == 0) {
		if (!l->tok->nfc)
			describe(l->tok, "NFC");
		l->tok->nfc = true;
		return 0;
	}
	snprintf(where, sizeof where, "%.200s.type", place);
	return tokenizer__bad(l, ERR_UNSUPPORTED, where, "NFC, or no normalizer", "%.100s", type);
}

int
tokenizer__load_steps(struct loading *l, const struct json *normalizer, const struct json *pre_tokenizer)
{
	int rc;

	if ((rc = load_normalizer(l, normalizer, "normalizer", 0)) != 0 ||
	    (rc = load_split_steps(l, pre_tokenizer, "pre_tokenizer", 0)) != 0)
		return rc;
	if (!l->byte_level)
		return tokenizer__bad(l, ERR_UNSUPPORTED, "pre_tokenizer", "ByteLevel, or a Sequence that ends with it", "no ByteLevel");
	return 0;
}
