/* SPDX-License-Identifier: Apache-2.0 */
#include "data/task/task_internal.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file/file.h"
#include "base/json/json.h"

#define ENDING ".jsonl"
#define CHOICES_MAX 1024

/* The line being read; errors state its file and number. */
struct line {
	struct task *t;
	struct json *object;
	uint64_t number;
	uint32_t file;
	bool folder;			/* the file is in a folder, so its name is the set's */
	struct err_note *note;
};

static int
wrong(const struct line *l, const char *expected, const char *found)
{
	return err_expect_at(l->note, ERR_FORMAT, "%s", "line %" PRIu64, "%s", "%s", l->t->files[l->file],
	    l->number, expected, found);
}

static const char *
copy(struct line *l, const char *text)
{
	return mem_arena_strndup(l->t->arena, text, strlen(text));
}

/* Reads the member `key`, or `other` (may be NULL): a text, which may be empty only if may_be_empty. */
static int
text_member(struct line *l, const char *key, const char *other, bool may_be_empty, const char **out)
{
	struct json *member = json_get(l->object, key);
	char expected[80];
	const char *text;

	if (member == NULL && other != NULL)
		member = json_get(l->object, other);
	snprintf(expected, sizeof(expected), "a member \"%s\", a text%s", key,
	    may_be_empty ? "" : " that is not empty");
	if (!json_text(member, &text))
		return wrong(l, expected, member == NULL ? "none" : json_kind_name(json_kind(member)));
	if (text[0] == '\0' && !may_be_empty)
		return wrong(l, expected, "an empty one");
	return (*out = copy(l, text)) != NULL ? 0 : ENOMEM;
}

/*
 * Gets the number of the set with this name, and adds it if it is new. Searches from the last set on, because
 * neighbouring items mostly have the same one.
 */
static int
set_number(struct task *t, const char *name, uint32_t *out)
{
	size_t i = t->n_sets;

	while (i > 0 && strcmp(t->sets[i - 1], name) != 0)
		i--;
	if (i == 0) {
		if (mem_grow((void **)&t->sets, &t->cap_sets, t->n_sets + 1, sizeof(*t->sets)) != 0 ||
		    (t->sets[t->n_sets] = mem_arena_strndup(t->arena, name, strlen(name))) == NULL)
			return ENOMEM;
		i = ++t->n_sets;
	}
	*out = (uint32_t)(i - 1);
	return 0;
}

static int
read_choices(struct line *l, struct task__item *item)
{
	struct json *choices = json_get(l->object, "choices");
	size_t n = json_count(choices);
	char expected[80], found[40];
	const char *text;
	int64_t gold;
	int rc;

	if ((rc = text_member(l, "context", NULL, true, &item->context)) != 0)
		return rc;
	if (json_kind(choices) != JSON_KIND_ARRAY || n < 2 || n > CHOICES_MAX) {
		snprintf(found, sizeof(found), json_kind(choices) == JSON_KIND_ARRAY ? "%zu" : "no list", n);
		return wrong(l, "a member \"choices\", a list of 2 to 1024 texts", found);
	}
	if ((item->choices = mem_arena_alloc(l->t->arena, n * sizeof(*item->choices))) == NULL)
		return ENOMEM;
	for (; item->n_choices < n; item->n_choices++) {
		struct json *choice = json_item(choices, item->n_choices);

		if (!json_text(choice, &text) || text[0] == '\0')
			return wrong(
			    l, "choices that are texts and not empty", json_kind_name(json_kind(choice)));
		if ((item->choices[item->n_choices] = copy(l, text)) == NULL)
			return ENOMEM;
	}
	snprintf(expected, sizeof(expected),
	    "a member \"gold\", the index of the right choice, from 0 to %zu", n - 1);
	if (!json_int(json_get(l->object, "gold"), &gold))
		return wrong(l, expected, "no whole number");
	snprintf(found, sizeof(found), "%" PRId64, gold);
	if (gold < 0 || gold >= (int64_t)n)
		return wrong(l, expected, found);
	item->gold = (size_t)gold;
	return 0;
}

static int
read_pair(struct line *l, struct task__item *item)
{
	int rc;

	if ((item->choices = mem_arena_alloc(l->t->arena, 2 * sizeof(*item->choices))) == NULL)
		return ENOMEM;
	item->context = "";
	item->n_choices = 2;
	if ((rc = text_member(l, "sentence_good", "good", false, &item->choices[0])) == 0)
		rc = text_member(l, "sentence_bad", "bad", false, &item->choices[1]);
	return rc;
}

static int
read_last_word(struct line *l, struct task__item *item)
{
	const char *text, *space;
	int rc;

	if ((rc = text_member(l, "text", NULL, false, &text)) != 0)
		return rc;
	if ((space = strrchr(text, ' ')) == NULL || space[1] == '\0')
		return wrong(
		    l, "a text with a word behind its last space", space == NULL ? "no space" : "none");
	if ((item->choices = mem_arena_alloc(l->t->arena, sizeof(*item->choices))) == NULL ||
	    (item->context = mem_arena_strndup(l->t->arena, text, (size_t)(space - text))) == NULL)
		return ENOMEM;
	item->choices[0] = space;
	item->n_choices = 1;
	return 0;
}

static int
read_set(struct line *l, struct task__item *item)
{
	const char *file = l->t->files[l->file], *base = strrchr(file, '/'), *name;
	struct json *set = json_get(l->object, "set");
	char stem[256];

	if (json_kind(set) == JSON_KIND_NULL)
		set = json_get(l->object, "UID");

	base = base != NULL ? base + 1 : file;
	snprintf(stem, sizeof(stem), "%s", base);
	if (strlen(stem) > strlen(ENDING) && strcmp(stem + strlen(stem) - strlen(ENDING), ENDING) == 0)
		stem[strlen(stem) - strlen(ENDING)] = '\0';
	if (l->folder || json_kind(set) == JSON_KIND_NULL)
		name = stem;
	else if (!json_text(set, &name))
		return wrong(l, "a member \"set\" or \"UID\" that is a text, the name of the item's set",
		    json_kind_name(json_kind(set)));
	return set_number(l->t, name, &item->set);
}

static int
read_line(struct line *l)
{
	struct task *t = l->t;
	struct task__item item = {.file = l->file, .line = l->number};
	int rc;

	if (t->kind == TASK_ANY)
		t->kind = json_get(l->object, "choices") != NULL ? TASK_CHOICES :
		    json_get(l->object, "sentence_good") != NULL || json_get(l->object, "good") != NULL ?
								   TASK_PAIRS :
		    json_get(l->object, "text") != NULL ? TASK_LAST_WORD :
							  TASK_ANY;
	switch (t->kind) {
	case TASK_CHOICES:
		rc = read_choices(l, &item);
		break;
	case TASK_PAIRS:
		rc = read_pair(l, &item);
		break;
	case TASK_LAST_WORD:
		rc = read_last_word(l, &item);
		break;
	default:
		rc = wrong(l,
		    "an object with context, choices and gold; sentence_good and sentence_bad; or text",
		    "none of these");
	}
	if (rc != 0 || (rc = read_set(l, &item)) != 0)
		return rc;
	if (mem_grow((void **)&t->items, &t->cap_items, t->n_items + 1, sizeof(*t->items)) != 0)
		return ENOMEM;
	t->items[t->n_items++] = item;
	return 0;
}

static int
read_file(struct task *t, const char *path, bool folder, struct err_note *note)
{
	struct line l = {.t = t, .file = (uint32_t)t->n_files, .folder = folder, .note = note};
	size_t len, before = t->n_items;
	char *data = NULL, name[4200];
	int rc;

	if (mem_grow((void **)&t->files, &t->cap_files, t->n_files + 1, sizeof(*t->files)) != 0 ||
	    (t->files[t->n_files] = mem_arena_strndup(t->arena, path, strlen(path))) == NULL)
		return ENOMEM;
	t->n_files++;
	if ((rc = file_read(path, 0, &data, &len, note)) != 0)
		return rc;
	for (char *at = data, *end; at < data + len && rc == 0; at = end + 1) {
		if ((end = memchr(at, '\n', (size_t)(data + len - at))) == NULL)
			end = data + len;
		l.number++;
		if (strspn(at, " \t\r\n") >= (size_t)(end - at))
			continue;
		snprintf(name, sizeof(name), "%s: line %" PRIu64, path, l.number);
		if ((rc = json_parse(at, (size_t)(end - at), name, &l.object, note)) == 0)
			rc = read_line(&l);
		json_close(&l.object);
	}
	if (rc == 0 && t->n_items == before)
		rc = err_expect(note, ERR_FORMAT, "%s", "items, one JSON object a line", "none", path);
	free(data);
	return rc;
}

static int
is_item_file(const struct dirent *e)
{
	size_t n = strlen(e->d_name), m = strlen(ENDING);

	return e->d_name[0] != '.' && n > m && strcmp(e->d_name + n - m, ENDING) == 0;
}

static int
by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

int
task__read(struct task *t, const char *path, struct err_note *note)
{
	struct dirent **entries = NULL;
	char file[4200];
	struct stat st;
	int n, rc = 0;

	if (stat(path, &st) != 0)
		return err_note_set(note, errno, "%s", path);
	if (!S_ISDIR(st.st_mode))
		return read_file(t, path, false, note);
	if ((n = scandir(path, &entries, is_item_file, by_bytes)) < 0)
		return err_note_set(note, errno, "%s", path);
	if (n == 0)
		rc = err_expect(note, ERR_NOT_FOUND, "%s", "files *" ENDING, "none", path);
	for (int i = 0; i < n; i++) {
		snprintf(file, sizeof(file), "%s/%s", path, entries[i]->d_name);
		if (rc == 0)
			rc = read_file(t, file, true, note);
		free(entries[i]);
	}
	free(entries);
	return rc;
}
