/* SPDX-License-Identifier: Apache-2.0 */
/* yaml - parses fleet.yaml with libyaml's events: a mapping of sections, each a mapping of options to a value or a flat list. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>
#include "fabric/config/config_internal.h"

struct reader {
	struct config *cfg;
	const char *text;
	size_t len;
	yaml_parser_t parser;
	yaml_event_t event;
	bool has_event;
	struct err_note *note;
	bool is_value;			/* of --set: there is no file and no line */
	unsigned *section_line;		/* indexed by the section's first option; 0: not seen yet */
};

static unsigned
line_of(const struct reader *r)
{
	return (unsigned)r->event.start_mark.line + 1;
}

static unsigned
line_at(const char *text, size_t offset)
{
	unsigned line = 1;

	for (size_t i = 0; i < offset; i++)
		line += text[i] == '\n';
	return line;
}

/*
 * ERR_CONFIG with a note at FILE:LINE: PLACE. The caller adds expected and found by err_expect with the name
 * "".
 */
static int
refuse(struct reader *r, unsigned line, const char *place)
{
	if (r->is_value)		/* the note names --set */
		return ERR_CONFIG;
	err_note_set(r->note, ERR_CONFIG, "%s:%u", r->cfg->own->file, line);
	err_note_place(r->note, "%s", place);
	return ERR_CONFIG;
}

/* The error for an event that is not expected here. */
static int
wrong_event(struct reader *r, unsigned line, const char *place, const char *expected, const char *found)
{
	refuse(r, line, place);
	return err_expect(r->note, ERR_CONFIG, "", "%s", "%s", expected, found);
}

static const char *
event_name(const yaml_event_t *e)
{
	switch (e->type) {
	case YAML_SCALAR_EVENT:
		return "a single value";
	case YAML_SEQUENCE_START_EVENT:
		return "a list";
	case YAML_MAPPING_START_EVENT:
		return "a mapping";
	case YAML_ALIAS_EVENT:
		return "an alias (*name)";
	case YAML_DOCUMENT_START_EVENT:
		return "a second document";
	default:
		return "the end";
	}
}

/* Reads the next event. Refuses anchors, aliases and tags, which are not allowed anywhere. */
static int
next(struct reader *r)
{
	const unsigned char *anchor = NULL, *tag = NULL;

	if (r->has_event)
		yaml_event_delete(&r->event);
	r->has_event = false;
	if (!yaml_parser_parse(&r->parser, &r->event)) {
		unsigned line = (unsigned)(r->parser.problem_mark.line + 1);

		if (r->parser.error == YAML_MEMORY_ERROR)
			return ENOMEM;
		if (r->parser.error == YAML_READER_ERROR)	/* has a byte offset and no line */
			line = line_at(r->text, r->parser.problem_offset < r->len ? r->parser.problem_offset : r->len);
		refuse(r, line, "");
		if (r->parser.error == YAML_READER_ERROR)
			return err_expect(r->note, ERR_CONFIG, "", "YAML", "%s at byte %zu", r->parser.problem, r->parser.problem_offset);
		return err_expect(r->note, ERR_CONFIG, "", "YAML", "%s in column %zu", r->parser.problem, r->parser.problem_mark.column + 1);
	}
	r->has_event = true;
	switch (r->event.type) {
	case YAML_SCALAR_EVENT:
		anchor = r->event.data.scalar.anchor;
		tag = r->event.data.scalar.tag;
		break;
	case YAML_SEQUENCE_START_EVENT:
		anchor = r->event.data.sequence_start.anchor;
		tag = r->event.data.sequence_start.tag;
		break;
	case YAML_MAPPING_START_EVENT:
		anchor = r->event.data.mapping_start.anchor;
		tag = r->event.data.mapping_start.tag;
		break;
	case YAML_ALIAS_EVENT:
		anchor = r->event.data.alias.anchor;
		break;
	default:
		break;
	}
	if (anchor == NULL && tag == NULL)
		return 0;
	refuse(r, line_of(r), "");
	return err_expect(r->note, ERR_CONFIG, "", "plain values without anchors, aliases and tags", "%s%s",
	    r->event.type == YAML_ALIAS_EVENT ? "*" : anchor != NULL ? "&" : "", (const char *)(anchor != NULL ? anchor : tag));
}

static int
add_item(struct reader *r, struct config__raw *raw, size_t *cap, size_t *cap_quoted)
{
	const char *s = (const char *)r->event.data.scalar.value;
	size_t n = r->event.data.scalar.length;
	char *copy;

	if (memchr(s, '\0', n) != NULL) {
		err_note_found(r->note, "a NUL byte");
		return ERR_CONFIG;
	}
	if (mem_grow((void **)&raw->item, cap, raw->n + 1, sizeof(*raw->item)) != 0 ||
	    mem_grow((void **)&raw->quoted, cap_quoted, raw->n + 1, sizeof(*raw->quoted)) != 0 ||
	    (copy = mem_arena_strndup(r->cfg->own->arena, s, n)) == NULL)
		return ENOMEM;
	raw->item[raw->n] = copy;
	raw->quoted[raw->n++] = r->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
	return 0;
}

/* One {prefix: PATH, weight: NUMBER} of a list of corpora, which starts with the current event: two items, prefix first. */
static int
read_corpus(struct reader *r, const struct config__option *o, struct config__raw *raw, size_t *cap, size_t *cap_quoted)
{
	struct config__raw one[2] = {{ 0 }, { 0 }};	/* prefix, weight */
	size_t caps[2][2] = {{ 0, 0 }, { 0, 0 }};
	unsigned line = line_of(r);
	char buf[256], found[80];
	int rc = 0;

	for (size_t i; rc == 0 && (rc = next(r)) == 0 && r->event.type != YAML_MAPPING_END_EVENT;) {
		const char *key = r->event.type == YAML_SCALAR_EVENT ? (const char *)r->event.data.scalar.value : NULL;

		if (key == NULL || strlen(key) != r->event.data.scalar.length)
			key = "";
		i = strcmp(key, "weight") == 0;
		snprintf(found, sizeof(found), "%.60s", key);
		if ((i == 0 && strcmp(key, "prefix") != 0) || one[i].n > 0) {
			rc = wrong_event(r, line, o->key, "prefix and weight, once each", key[0] == '\0' ? event_name(&r->event) : found);
			break;
		}
		if ((rc = next(r)) == 0 && r->event.type != YAML_SCALAR_EVENT)
			rc = wrong_event(r, line, o->key, config__expected(o, buf, sizeof(buf)), event_name(&r->event));
		if (rc == 0)
			rc = add_item(r, &one[i], &caps[i][0], &caps[i][1]);
	}
	if (rc == 0 && one[0].n + one[1].n != 2)
		rc = wrong_event(r, line, o->key, "prefix and weight", one[0].n > 0 ? "no weight" : one[1].n > 0 ? "no prefix" : "neither");
	if (rc == 0 && (mem_grow((void **)&raw->item, cap, raw->n + 2, sizeof(*raw->item)) != 0 ||
	    mem_grow((void **)&raw->quoted, cap_quoted, raw->n + 2, sizeof(*raw->quoted)) != 0))
		rc = ENOMEM;
	for (size_t i = 0; i < 2; i++) {
		if (rc == 0) {
			raw->item[raw->n] = one[i].item[0];
			raw->quoted[raw->n++] = one[i].quoted[0];
		}
		free(one[i].item);
		free(one[i].quoted);
	}
	return rc;
}

/* Reads the value of option o, which starts with the current event. */
static int
read_value(struct reader *r, const struct config__option *o, unsigned line, bool renamed)
{
	struct config__raw raw = { 0 };
	size_t cap = 0, cap_quoted = 0;
	char buf[256];
	int rc = 0;

	refuse(r, line, o->key);		/* the place, for failures below */
	if (r->event.type == YAML_SCALAR_EVENT) {
		rc = add_item(r, &raw, &cap, &cap_quoted);
	} else if (r->event.type == YAML_SEQUENCE_START_EVENT) {
		raw.is_list = true;
		while (o->type == CONFIG__CORPUS && (rc = next(r)) == 0 && r->event.type == YAML_MAPPING_START_EVENT && raw.n <= 2 * CONFIG__ITEMS_MAX)
			if ((rc = read_corpus(r, o, &raw, &cap, &cap_quoted)) != 0)
				break;
		while (o->type != CONFIG__CORPUS && (rc = next(r)) == 0 && r->event.type == YAML_SCALAR_EVENT && raw.n <= CONFIG__ITEMS_MAX)
			if ((rc = add_item(r, &raw, &cap, &cap_quoted)) != 0)
				break;
		if (rc == 0 && r->event.type != YAML_SEQUENCE_END_EVENT) {
			refuse(r, line, o->key);
			rc = err_expect(r->note, ERR_CONFIG, "", "%s", "%s inside the list", config__expected(o, buf, sizeof(buf)),
			    r->event.type == YAML_SCALAR_EVENT && o->type != CONFIG__CORPUS ? "more than 256 items" : event_name(&r->event));
		}
	} else {
		rc = wrong_event(r, line, o->key, config__expected(o, buf, sizeof(buf)), event_name(&r->event));
	}
	if (rc == 0)
		rc = config__assign(r->cfg, o, &raw, r->note);
	if (rc == 0)
		r->cfg->own->origin[o - config__table] = (struct config__origin){ CONFIG__FILE, line, renamed };
	free(raw.item);
	free(raw.quoted);
	return rc;
}

/* Copies the next key of the current mapping; returns 0 and "" at its end. */
static int
read_key(struct reader *r, const char *what, char *key, size_t size)
{
	int rc;

	key[0] = '\0';
	if ((rc = next(r)) != 0 || r->event.type == YAML_MAPPING_END_EVENT)
		return rc;
	if (r->event.type != YAML_SCALAR_EVENT || r->event.data.scalar.length == 0)
		return wrong_event(r, line_of(r), "", what, r->event.type == YAML_SCALAR_EVENT ? "an empty key" : event_name(&r->event));
	if (memchr(r->event.data.scalar.value, '\0', r->event.data.scalar.length) != NULL)
		return wrong_event(r, line_of(r), "", what, "a key with a NUL byte");
	snprintf(key, size, "%s", (const char *)r->event.data.scalar.value);
	return 0;
}

static int
unknown(struct reader *r, unsigned line, const char *key, const char *what)
{
	refuse(r, line, key);
	return config__unknown(r->note, key, what);
}

static int
twice(struct reader *r, unsigned line, const char *key, unsigned before)
{
	refuse(r, line, key);
	return err_expect(r->note, ERR_CONFIG, "", "unique keys", "the same key as in line %u", before);
}

static int
read_section(struct reader *r, const char *section)
{
	char name[128], key[260];
	int rc;

	for (;;) {
		const struct config__option *o;
		unsigned line;

		if ((rc = read_key(r, "the name of an option", name, sizeof(name))) != 0 || name[0] == '\0')
			return rc;
		line = line_of(r);
		snprintf(key, sizeof(key), "%s.%s", section, name);
		if ((o = config__find(key)) == NULL)
			return unknown(r, line, key, "an option of docs/config.md");
		if (r->cfg->own->origin[o - config__table].source == CONFIG__FILE)
			return twice(r, line, key, r->cfg->own->origin[o - config__table].line);
		if ((rc = next(r)) != 0 || (rc = read_value(r, o, line, strcmp(key, o->key) != 0)) != 0)
			return rc;
	}
}

/* Index of the first option of a section; n_options if there is no such section. */
static size_t
section_index(const char *section)
{
	size_t i = 0;

	while (i < config__n_options && strcmp(config__table[i].section, section) != 0)
		i++;
	return i;
}

static int
read_file(struct reader *r)
{
	char section[128];
	int rc;

	if ((rc = next(r)) != 0 || (rc = next(r)) != 0)		/* stream start; document start, or the end of an empty file */
		return rc;
	if (r->event.type == YAML_STREAM_END_EVENT)
		return 0;
	if ((rc = next(r)) != 0)
		return rc;
	if (r->event.type != YAML_MAPPING_START_EVENT)
		return wrong_event(r, line_of(r), "", "sections like \"trainer:\"", event_name(&r->event));
	for (;;) {
		unsigned line;
		size_t at;

		if ((rc = read_key(r, "the name of a section", section, sizeof(section))) != 0)
			return rc;
		if (section[0] == '\0')
			break;
		line = line_of(r);
		if ((at = section_index(section)) == config__n_options)
			return unknown(r, line, section, "a section of docs/config.md");
		if (r->section_line[at] != 0)
			return twice(r, line, section, r->section_line[at]);
		r->section_line[at] = line;
		if ((rc = next(r)) != 0)
			return rc;
		if (r->event.type == YAML_SCALAR_EVENT && r->event.data.scalar.length == 0 &&
		    r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
			continue;				/* "trainer:" with nothing below it */
		if (r->event.type != YAML_MAPPING_START_EVENT) {
			refuse(r, line, section);
			return err_expect(r->note, ERR_CONFIG, "", "options like \"%s: ...\" below it", "%s", config__table[at].name,
			    event_name(&r->event));
		}
		if ((rc = read_section(r, section)) != 0)
			return rc;
	}
	if ((rc = next(r)) != 0 || (rc = next(r)) != 0)		/* document end; stream end */
		return rc;
	return r->event.type == YAML_STREAM_END_EVENT ? 0 : wrong_event(r, line_of(r), "", "one document", event_name(&r->event));
}

int
config__yaml(struct config *cfg, const char *text, size_t len, struct err_note *note)
{
	struct reader r = { .cfg = cfg, .text = text, .len = len, .note = note };
	struct err_note own_note;
	int rc;

	if (r.note == NULL)			/* the functions below write to it unconditionally */
		r.note = &own_note;
	if (len > CONFIG__FILE_BYTES_MAX)
		return err_expect(note, ERR_CONFIG, "%s", "at most %d bytes", "%zu", cfg->own->file, CONFIG__FILE_BYTES_MAX, len);
	if ((r.section_line = calloc(config__n_options, sizeof(*r.section_line))) == NULL)
		return ENOMEM;
	if (!yaml_parser_initialize(&r.parser)) {
		free(r.section_line);
		return ENOMEM;
	}
	/* A byte order mark, as Windows editors write it: libyaml rejects one when the encoding is set. */
	if (len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) {
		text += 3;
		len -= 3;
	}
	yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, len);
	rc = read_file(&r);
	if (r.has_event)
		yaml_event_delete(&r.event);
	yaml_parser_delete(&r.parser);
	free(r.section_line);
	return rc;
}

int
config__yaml_value(struct config *cfg, const struct config__option *o, const char *text, struct err_note *note)
{
	struct err_note own_note;
	struct reader r = { .cfg = cfg, .text = text, .len = strlen(text), .note = note != NULL ? note : &own_note, .is_value = true };
	int rc;

	if (!yaml_parser_initialize(&r.parser))
		return ENOMEM;
	yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, r.len);
	if ((rc = next(&r)) == 0 && (rc = next(&r)) == 0 && (rc = next(&r)) == 0 &&	/* stream start, document start, the value */
	    (rc = read_value(&r, o, 0, false)) == 0 && (rc = next(&r)) == 0 && (rc = next(&r)) == 0 && r.event.type != YAML_STREAM_END_EVENT)
		rc = wrong_event(&r, 0, o->key, "one value", event_name(&r.event));
	if (r.has_event)
		yaml_event_delete(&r.event);
	yaml_parser_delete(&r.parser);
	return rc;
}
