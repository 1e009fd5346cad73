/* SPDX-License-Identifier: Apache-2.0 */
/* The post_processor: the ids before and after one text. */
#include "data/tokenizer/load_internal.h"

#include <errno.h>
#include <string.h>

#include "base/mem/mem.h"

#define MAX_TEMPLATE 64 /* ids on each side */
#define MAX_DEPTH 8

struct sides {
	int32_t before[MAX_TEMPLATE], after[MAX_TEMPLATE];
	size_t n_before, n_after;
};

static bool
push(int32_t *ids, size_t *n, int64_t id)
{
	if (*n == MAX_TEMPLATE || id < 0 || id >= (int64_t)TOKENIZER_MAX_VOCAB)
		return false;
	ids[(*n)++] = (int32_t)id;
	return true;
}

/*
 * {"single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}, ...], "special_tokens": {"<s>":
 * {"ids": [1]}}}
 */
static bool template(const struct json *j, struct sides *s)
{
	const struct json *single = json_get(j, "single"), *tokens = json_get(j, "special_tokens");
	bool after = false;
	size_t i, k;

	for (i = 0; i < json_count(single); i++) {
		const struct json *item = json_item(single, i), *sequence = json_get(item, "Sequence"), *ids;
		const char *name;
		int64_t id;

		if (sequence != NULL) {
			if (after || !json_text(json_get(sequence, "id"), &name) || strcmp(name, "A") != 0)
				return false;
			after = true;
			continue;
		}
		if (!json_text(json_get(json_get(item, "SpecialToken"), "id"), &name) ||
		    json_kind(ids = json_get(json_get(tokens, name), "ids")) != JSON_KIND_ARRAY)
			return false;
		for (k = 0; k < json_count(ids); k++) {
			if (!json_int(json_item(ids, k), &id) ||
			    !(after ? push(s->after, &s->n_after, id) : push(s->before, &s->n_before, id)))
				return false;
		}
	}
	return after;
}

/* {"sep": ["</s>", 2], "cls": ["<s>", 0]} */
static bool
cls_sep(const struct json *j, struct sides *s)
{
	int64_t cls, sep;

	return json_int(json_item(json_get(j, "cls"), 1), &cls) &&
	    json_int(json_item(json_get(j, "sep"), 1), &sep) && push(s->before, &s->n_before, cls) &&
	    push(s->after, &s->n_after, sep);
}

/* Adds the ids of a processor to s. In a Sequence the ids of later processors go outside the earlier ones. */
static bool
processor(const struct json *j, struct sides *s, const char **type, int depth)
{
	struct sides outer = {0};
	size_t i;
	bool known;

	if (!json_text(json_get(j, "type"), type))
		return false;
	if (strcmp(*type, "ByteLevel") == 0)
		return true;
	if (strcmp(*type, "Sequence") == 0) {
		const struct json *list = json_get(j, "processors");

		if (depth == MAX_DEPTH || json_kind(list) != JSON_KIND_ARRAY)
			return false;
		for (i = 0; i < json_count(list); i++) {
			if (!processor(json_item(list, i), s, type, depth + 1))
				return false;
		}
		return true;
	}
	known = strcmp(*type, "TemplateProcessing") == 0 ?
	    template(j, &outer) :
	    (strcmp(*type, "RobertaProcessing") == 0 || strcmp(*type, "BertProcessing") == 0) &&
		cls_sep(j, &outer);
	for (i = 0; known && i < s->n_before; i++)
		known = push(outer.before, &outer.n_before, s->before[i]);
	for (i = 0; known && i < outer.n_after; i++)
		known = push(s->after, &s->n_after, outer.after[i]);
	memcpy(s->before, outer.before, sizeof s->before);
	s->n_before = outer.n_before;
	return known;
}

static const int32_t *
kept(struct tokenizer *tok, const int32_t *ids, size_t n)
{
	int32_t *copy = mem_arena_alloc(tok->arena, (n + 1) * sizeof ids[0]);

	if (copy != NULL)
		memcpy(copy, ids, n * sizeof ids[0]);
	return copy;
}

int
tokenizer__load_template(struct tokenizer *tok, const struct json *post_processor)
{
	struct sides s = {0};
	const char *type = "one without a type";
	bool known = json_kind(post_processor) == JSON_KIND_NULL || processor(post_processor, &s, &type, 0);
	size_t i;

	for (i = 0; known && i < s.n_before + s.n_after; i++)
		known = (i < s.n_before ? s.before[i] : s.after[i - s.n_before]) < tok->n_tokens;
	if (!known) {
		tok->template_not = mem_arena_strndup(tok->arena, type, strnlen(type, 60));
		return tok->template_not != NULL ? 0 : ENOMEM;
	}
	tok->template = (struct tokenizer_template){
	    kept(tok, s.before, s.n_before), kept(tok, s.after, s.n_after), s.n_before, s.n_after};
	return tok->template.before != NULL && tok->template.after != NULL ? 0 : ENOMEM;
}
