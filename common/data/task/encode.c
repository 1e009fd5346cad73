/* SPDX-License-Identifier: Apache-2.0 */
#include "data/task/task_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random/shuffle.h"
#include "data/tokenizer/tokenizer.h"

struct encoding {
	struct task *t;
	const struct task_options *o;
	struct tokenizer_encoder *encoder;
	struct tokenizer_ids context, whole, all;	/* all: tokens of all requests, concatenated */
	char *text;
	size_t cap_text;
	struct err_note *note;
};

/* The length in bytes of the white space at the end of p[0..n), as Python's str.rstrip defines it. */
static size_t
trailing_space(const char *p, size_t n)
{
	static const char *const wide[] = {"\xc2\x85", "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002",
	    "\u2003", "\u2004", "\u2005", "\u2006", "\u2007", "\u2008", "\u2009", "\u200a", "\u2028",
	    "\u2029", "\u202f", "\u205f", "\u3000"};
	size_t left = n, i;

	while (left > 0) {
		if (strchr(" \t\n\v\f\r\x1c\x1d\x1e\x1f", p[left - 1]) != NULL) {
			left--;
			continue;
		}
		for (i = 0; i < sizeof(wide) / sizeof(wide[0]); i++)
			if (left >= strlen(wide[i]) &&
			    memcmp(p + left - strlen(wide[i]), wide[i], strlen(wide[i])) == 0)
				break;
		if (i == sizeof(wide) / sizeof(wide[0]))
			break;
		left -= strlen(wide[i]);
	}
	return n - left;
}

static int
encode(struct encoding *e, const char *text, size_t n, struct tokenizer_ids *out)
{
	out->n = 0;
	return tokenizer_encode(e->encoder, text, n, 0, out, e->note);
}

/* Encodes a context and a continuation: their tokens go to e->context and to e->whole. */
static int
join(struct encoding *e, const char *context, const char *continuation)
{
	size_t n = strlen(context), n_context = n - trailing_space(context, n),
	       all = n + strlen(continuation);
	int rc;

	if (n == 0) {
		e->context.n = 0;
		if (mem_grow((void **)&e->context.ids, &e->context.cap, 1, sizeof(*e->context.ids)) != 0)
			return ENOMEM;
		e->context.ids[e->context.n++] = e->o->begin;
		return encode(e, continuation, strlen(continuation), &e->whole);
	}
	if (mem_grow((void **)&e->text, &e->cap_text, all + 1, 1) != 0)
		return ENOMEM;
	memcpy(e->text, context, n);
	memcpy(e->text + n, continuation, all - n + 1);
	if ((rc = encode(e, e->text, n_context, &e->context)) != 0 ||
	    (rc = encode(e, e->text, all, &e->whole)) != 0)
		return rc;
	n = e->whole.n > e->context.n ? e->context.n : e->whole.n;
	memmove(e->whole.ids, e->whole.ids + n, (e->whole.n - n) * sizeof(*e->whole.ids));
	e->whole.n -= n;
	return 0;
}

static int
misfit(struct encoding *e, const struct task__item *item, size_t choice, int rc, const char *expected,
    size_t found)
{
	return err_expect_at(e->note, rc, "%s", "line %" PRIu64 ", text %zu", "%s", "%zu tokens",
	    e->t->files[item->file], item->line, choice + 1, expected, found);
}

static int
add_request(struct encoding *e, const struct task__item *item, const char *context, size_t choice, bool *cut)
{
	struct task *t = e->t;
	struct task_request *r = &t->requests[t->n_requests];
	size_t n_context, n, room = (size_t)e->o->max_tokens + 1;
	char expected[120];
	int rc;

	if ((rc = join(e, context, item->choices[choice])) != 0) {
		char where[4200];

		snprintf(where, sizeof(where), "%s: line %" PRIu64, t->files[item->file], item->line);
		return err_note_within(e->note, rc, where);
	}
	if (e->context.n == 0) {	/* it was white space, now in the continuation: as an empty context */
		if (mem_grow((void **)&e->context.ids, &e->context.cap, 1, sizeof(*e->context.ids)) != 0)
			return ENOMEM;
		e->context.ids[e->context.n++] = e->o->begin;
	}
	if (e->whole.n == 0)
		return misfit(e, item, choice, ERR_FORMAT,
		    "a continuation that is not part of the context's last token: "
		    "begin it with a space",
		    0);
	snprintf(expected, sizeof(expected), "a continuation that fits into the context, %u tokens",
	    e->o->max_tokens);
	if (e->whole.n > e->o->max_tokens)
		return misfit(e, item, choice, ERR_RANGE, expected, e->whole.n);
	n_context = e->context.n < room - e->whole.n ? e->context.n : room - e->whole.n;
	*cut |= n_context < e->context.n;
	n = n_context + e->whole.n;
	if (mem_grow((void **)&e->all.ids, &e->all.cap, e->all.n + n, sizeof(*e->all.ids)) != 0)
		return ENOMEM;
	memcpy(e->all.ids + e->all.n, e->context.ids + e->context.n - n_context,
	    n_context * sizeof(*e->all.ids));
	memcpy(e->all.ids + e->all.n + n_context, e->whole.ids, e->whole.n * sizeof(*e->all.ids));
	e->all.n += n;
	*r = (struct task_request){.n = (uint32_t)n, .first = (uint32_t)n_context};
	t->n_requests++;
	return 0;
}

/* The context of item i, by o->contexts: its own, that of the next item in a shuffled order, or none. */
static const char *
context_of(const struct task *t, const struct task_options *o, size_t i)
{
	uint64_t at;

	if (o->contexts == TASK_CONTEXTS_OWN)
		return t->items[i].context;
	if (o->contexts == TASK_CONTEXTS_NONE)
		return "";
	at = shuffle_position(o->seed, t->n_items, 0, i);
	return t->items[shuffle_order(o->seed, t->n_items, (at + 1) % t->n_items)].context;
}

static int
encode_all(struct task *t, const struct task_options *o, struct err_note *note)
{
	struct encoding e = {.t = t, .o = o, .note = note};
	size_t n = 0, at = 0;
	int rc;

	for (size_t i = 0; i < t->n_items; i++)
		n += t->items[i].n_choices;
	if ((t->requests = mem_alloc(n, sizeof(*t->requests))) == NULL)
		return ENOMEM;
	rc = tokenizer_encoder_new(&e.encoder, o->tokenizer);
	for (size_t i = 0; i < t->n_items && rc == 0; i++) {
		bool cut = false;

		t->items[i].first_request = t->n_requests;
		for (size_t c = 0; c < t->items[i].n_choices && rc == 0; c++)
			rc = add_request(&e, &t->items[i], context_of(t, o, i), c, &cut);
		t->n_cut += cut;
	}
	t->tokens = e.all.ids;
	for (size_t i = 0; i < t->n_requests; at += t->requests[i++].n)
		t->requests[i].tokens = t->tokens + at;
	tokenizer_encoder_destroy(&e.encoder);
	free(e.context.ids);
	free(e.whole.ids);
	free(e.text);
	return rc;
}

int
task_open(struct task **out, const char *path, const struct task_options *o, struct err_note *note)
{
	struct task *t = calloc(1, sizeof(*t));
	int rc = ENOMEM;

	*out = NULL;
	if (t == NULL)
		return rc;
	t->kind = o->kind;
	if ((t->arena = mem_arena_new(0)) != NULL && (rc = task__read(t, path, note)) == 0)
		rc = encode_all(t, o, note);
	if (rc != 0)
		task_close(&t);
	*out = t;
	return rc;
}

void
task_close(struct task **task)
{
	struct task *t = *task;

	if (t == NULL)
		return;
	free(t->files);
	free(t->sets);
	free(t->items);
	free(t->requests);
	free(t->tokens);
	mem_arena_destroy(&t->arena);
	free(t);
	*task = NULL;
}
