/* SPDX-License-Identifier: Apache-2.0 */
/* Task items: the border between context and continuation, results by their formulas, and invalid lines. */
#include <errno.h>
#include <sys/stat.h>
#include <math.h>
#include "data/task/task.h"
#include "data/tokenizer/tokenizer.h"
#include "files.h"

enum { BEGIN = 7 };

static struct tokenizer *tok;
static struct err_note note;

static const char *
put(const char *name, const char *text)
{
	const char *path = in_dir(name);

	spill_text(path, text);
	return path;
}

static struct task *
open_with(const char *path, struct task_options o)
{
	struct task *t;
	char text[1400];
	int rc;

	o.tokenizer = tok;
	o.begin = BEGIN;
	if (o.max_tokens == 0)
		o.max_tokens = 64;
	if ((rc = task_open(&t, path, &o, &note)) != 0)
		fprintf(stderr, "%s\n", err_note_str(&note, rc, text, sizeof(text)));
	REQUIRE(rc == 0);
	return t;
}

static struct tokenizer_ids
ids_of(const char *text)
{
	struct tokenizer_encoder *e;
	struct tokenizer_ids ids = {NULL};

	REQUIRE(tokenizer_encoder_new(&e, tok) == 0 &&
	    tokenizer_encode(e, text, strlen(text), 0, &ids, NULL) == 0);
	tokenizer_encoder_destroy(&e);
	return ids;
}

/* Checks that the request has the ids of context, followed by those of `whole` after them. */
static void
check_request(const char *what, const struct task_request *r, const char *context, const char *whole)
{
	struct tokenizer_ids c = ids_of(context), w = ids_of(whole);
	size_t n = context[0] == '\0' ? 0 : c.n;

	CHECK_ROW(what, r->first == (n > 0 ? n : 1) && r->n == r->first + w.n - n);
	CHECK_ROW(what, n > 0 ? memcmp(r->tokens, c.ids, n * sizeof(int32_t)) == 0 : r->tokens[0] == BEGIN);
	CHECK_ROW(what, memcmp(r->tokens + r->first, w.ids + n, (w.n - n) * sizeof(int32_t)) == 0);
	free(c.ids);
	free(w.ids);
}

static void
borders(void)
{
	struct task *t = open_with(
	    put("a.jsonl",
		"{\"context\": \"The quick brown\", \"choices\": [\" fox\", \" elephants\", \"ish\"], \"gold\": 1}\n"
		"\n{\"context\": \"Two spaces \\u00a0\", \"choices\": [\"end\", \"go\"], \"gold\": 0, \"more\": {}}\n"
		"{\"context\": \"\", \"choices\": [\"First words\", \" x\"], \"gold\": 0}"),
	    (struct task_options){.kind = TASK_ANY});
	const struct task_request *r = task_requests(t);
	const char *file, *set;
	size_t first, gold;
	uint64_t line;

	CHECK(task_kind(t) == TASK_CHOICES && task_n_items(t) == 3 && task_n_requests(t) == 7 &&
	    task_n_sets(t) == 1 && task_n_cut(t) == 0);
	check_request("a space before", &r[0], "The quick brown", "The quick brown fox");
	check_request("several tokens", &r[1], "The quick brown", "The quick brown elephants");
	check_request("no space", &r[2], "The quick brown", "The quick brownish");
	check_request("white space moves", &r[3], "Two spaces", "Two spaces \u00a0end");
	check_request("no context", &r[5], "", "First words");
	CHECK(task_item_requests(t, 1, &first, &gold) == 2 && first == 3 && gold == 0);
	task_item_place(t, 1, &file, &line, &set);
	CHECK(line == 3);
	CHECK_STR(set, "a");
	task_close(&t);

	t = open_with(put("b.jsonl", "{\"text\": \"He put it in the box.\"}\n"),
	    (struct task_options){.kind = TASK_ANY});
	CHECK(task_kind(t) == TASK_LAST_WORD && task_n_requests(t) == 1);
	check_request("last word", task_requests(t), "He put it in the", "He put it in the box.");
	task_close(&t);
}

static void
cut(void)
{
	const char *path = put("c.jsonl",
	    "{\"context\": \"one two three four five six seven\", \"choices\": [\" eight nine\", \" ten\"], \"gold\": 0}\n");
	struct task *whole = open_with(path, (struct task_options){.max_tokens = 64}), *t;
	const struct task_request *w = task_requests(whole), *r;
	uint32_t longest = w[0].n - 1;
	struct task_options o = {.tokenizer = tok, .begin = BEGIN, .max_tokens = w[0].n - w[0].first - 1};
	struct task *none;

	t = open_with(path, (struct task_options){.max_tokens = longest});
	CHECK(task_n_cut(t) == 0);
	task_close(&t);
	t = open_with(path, (struct task_options){.max_tokens = longest - 2});
	r = task_requests(t);
	CHECK(task_n_cut(t) == 1 && r[0].n == w[0].n - 2 && r[0].first == w[0].first - 2);
	CHECK(memcmp(r[0].tokens, w[0].tokens + 2, r[0].n * sizeof(int32_t)) == 0);
	task_close(&t);
	CHECK(task_open(&none, path, &o, &note) == ERR_RANGE && none == NULL &&
	    strstr(note.place, "line 1") != NULL);
	task_close(&whole);
}

static void
controls(void)
{
	char text[2000] = "";
	struct task *own, *none, *shuffled, *again;
	size_t moved = 0, seen = 0, n;

	for (int i = 0; i < 20; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text),
		    "{\"context\": \"Number %d is\", \"choices\": [\" odd\", \" even\"], \"gold\": %d}\n", i,
		    i % 2);
	put("d.jsonl", text);
	own = open_with(put("d.jsonl", text), (struct task_options){.kind = TASK_CHOICES});
	shuffled = open_with(
	    put("d.jsonl", text), (struct task_options){.contexts = TASK_CONTEXTS_SHUFFLED, .seed = 3});
	again = open_with(
	    put("d.jsonl", text), (struct task_options){.contexts = TASK_CONTEXTS_SHUFFLED, .seed = 3});
	none = open_with(put("d.jsonl", text), (struct task_options){.contexts = TASK_CONTEXTS_NONE});
	n = task_n_requests(own);
	for (size_t i = 0; i < n; i += 2) {
		const struct task_request *a = &task_requests(own)[i];

		for (size_t k = 0; k < n; k += 2) {
			const struct task_request *b = &task_requests(shuffled)[k];
			bool same = a->n == b->n && memcmp(a->tokens, b->tokens, a->n * sizeof(int32_t)) == 0;

			seen += same;
			moved += same && i != k;
		}
		CHECK(memcmp(task_requests(shuffled)[i].tokens, task_requests(again)[i].tokens,
			  task_requests(again)[i].n * sizeof(int32_t)) == 0);
		check_request("no context", &task_requests(none)[i], "", " odd");
	}
	CHECK(seen == 20 && moved == 20); /* each context occurs once, none with its own item */
	task_close(&own);
	task_close(&shuffled);
	task_close(&again);
	task_close(&none);
}

/* Two sets in a folder; the results are computed by hand from the answers. */
static void
results(void)
{
	struct task_answer a[8] = {{-1, 0}, {-2, 0}, {-3, 0}, {-3, 0}, {-5, 0}, {-4, 0}, {-1, 0}, {-9, 0}};
	struct task_answer c[4] = {{-4, 0}, {-3, 0}, {-2, 0}, {-2, 0}}, w[2] = {{-0.5, 1}, {-2.5, 0}};
	struct task_results r;
	struct task *t;
	char path[128];

	snprintf(path, sizeof(path), "%s", in_dir("sets"));
	REQUIRE(mkdir(path, 0777) == 0);
	put("sets/one.jsonl",
	    "{\"sentence_good\": \"A b\", \"sentence_bad\": \"B a\", \"UID\": \"other\"}\n{\"good\": \"C\", \"bad\": \"D\"}\n"
	    "{\"good\": \"E\", \"bad\": \"F\"}\n");
	put("sets/two.jsonl", "{\"good\": \"G\", \"bad\": \"H\"}\n");
	put("sets/.hidden.jsonl", "no");
	put("sets/notes.txt", "no");
	t = open_with(path, (struct task_options){.kind = TASK_PAIRS});
	REQUIRE(task_n_requests(t) == 8 && task_n_sets(t) == 2 && task_judge(t, a, &r) == 0);
	CHECK(r.finite && r.all.n == 4 && r.sets[0].n == 3 && r.sets[1].n == 1);
	CHECK_STR(r.sets[0].set, "one");
	CHECK_NEAR(r.all.right.mean, 0.5, 0); /* a tie counts as wrong */
	CHECK_NEAR(r.all.right.se, sqrt(0.25 / 3), 1e-15);
	CHECK_NEAR(r.sets[0].right.mean, 1 / 3.0, 1e-15);
	CHECK_NEAR(r.sets[0].right.se, sqrt(2 / 9.0 / 2), 1e-15);
	CHECK(isnan(r.sets[1].right.se) && isnan(r.all.by_byte.mean));
	CHECK_NEAR(r.sets_mean, 2 / 3.0, 1e-15);
	CHECK_NEAR(r.sets_se_sets, 1 / 3.0, 1e-15); /* |1/3 - 1| / sqrt(2) / sqrt(2) */
	CHECK_NEAR(r.all.log_p.mean, -2.5, 0);
	CHECK_NEAR(r.all.log_p.se, sqrt((2.25 + 0.25 + 6.25 + 2.25) / 3 / 4), 1e-15);
	CHECK_NEAR(r.all.chance, 0.5, 0);
	a[5].log_p = NAN;
	free(r.sets);
	REQUIRE(task_judge(t, a, &r) == 0);
	CHECK(!r.finite);
	free(r.sets);
	task_close(&t);

	/* By sum the second choice wins, per token or byte the longer first one; of equal ones the first. */
	t = open_with(
	    put("e.jsonl",
		"{\"context\": \"x\", \"choices\": [\" a much longer choice of words\", \" b\"], \"gold\": 0}\n"
		"{\"context\": \"x\", \"choices\": [\" cc\", \" dd\"], \"gold\": 0}\n"),
	    (struct task_options){.kind = TASK_CHOICES});
	REQUIRE(task_judge(t, c, &r) == 0);
	CHECK_NEAR(r.all.right.mean, 0.5, 0);
	CHECK_NEAR(r.all.by_token.mean, 1, 0);
	CHECK_NEAR(r.all.by_byte.mean, 1, 0);
	CHECK(!task_right(t, 0, c) && task_right(t, 1, c));
	free(r.sets);
	task_close(&t);

	t = open_with(put("f.jsonl", "{\"text\": \"a b\"}\n{\"text\": \"c d\"}\n"),
	    (struct task_options){.kind = TASK_LAST_WORD});
	REQUIRE(task_judge(t, w, &r) == 0);
	CHECK_NEAR(r.all.right.mean, 0.5, 0);
	CHECK_NEAR(r.all.log_p.mean, -1.5, 0);
	free(r.sets);
	task_close(&t);
}

static void
bad_lines(void)
{
	static const struct {
		const char *text, *says;
		enum task_kind kind;
	} rows[] = {
	    {"{\"context\": \"a\", \"choices\": [\" b\"], \"gold\": 0}", "\"choices\"", TASK_ANY},
	    {"{\"context\": \"a\", \"choices\": [\" b\", 3], \"gold\": 0}", "choices that are texts",
		TASK_ANY},
	    {"{\"context\": \"a\", \"choices\": [\" b\", \"\"], \"gold\": 0}", "choices that are texts",
		TASK_ANY},
	    {"{\"context\": \"a\", \"choices\": [\" b\", \" c\"], \"gold\": 2}", "from 0 to 1", TASK_ANY},
	    {"{\"context\": \"a\", \"choices\": [\" b\", \" c\"]}", "\"gold\"", TASK_ANY},
	    {"{\"choices\": [\" b\", \" c\"], \"gold\": 0}", "\"context\"", TASK_ANY},
	    {"{\"good\": \"a\"}", "\"sentence_bad\"", TASK_ANY},
	    {"{\"good\": \"\", \"bad\": \"b\"}", "\"sentence_good\"", TASK_ANY},
	    {"{\"text\": \"word\"}", "last space", TASK_ANY},
	    {"{\"text\": \"word \"}", "last space", TASK_ANY},
	    {"{\"other\": 1}", "sentence_good", TASK_ANY},
	    {"{\"text\": \"a b\"}", "\"sentence_good\"", TASK_PAIRS},
	    {"{\"good\": ", "", TASK_ANY},
	};
	struct task_options o = {.tokenizer = tok, .begin = BEGIN, .max_tokens = 64};
	struct task *t;
	char text[400], said[1400];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int rc;

		snprintf(text, sizeof(text), "\n%s\n", rows[i].text);
		o.kind = rows[i].kind;
		note = (struct err_note){.name = ""};
		rc = task_open(&t, put("bad.jsonl", text), &o, &note);
		CHECK_ROW(rows[i].text, rc == ERR_FORMAT && t == NULL);
		err_note_str(&note, rc, said, sizeof(said));
		CHECK_ROW(said,
		    strstr(said, "bad.jsonl") != NULL && strstr(said, "line 2") != NULL &&
			strstr(said, rows[i].says) != NULL);
	}
	o.kind = TASK_ANY;
	CHECK(task_open(&t, put("bad.jsonl", "\n \n"), &o, &note) == ERR_FORMAT);
	CHECK(task_open(&t, check_missing(), &o, &note) == ENOENT);
}

int
main(void)
{
	files_begin();
	REQUIRE(tokenizer_load(&tok, "share/tokenizer-4k/tokenizer.json", &note) == 0);
	borders();
	cut();
	controls();
	results();
	bad_lines();
	tokenizer_destroy(&tok);
	files_end();
	return check_done();
}
