#include "saltctl/core/ctl.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#define NEAREST_MAX 64			/* longest word compared */

/* Edits between two words: insert, delete, replace (Levenshtein). */
static size_t
distance(const char *a, const char *b)
{
	size_t row[NEAREST_MAX + 1], na = strlen(a), nb = strlen(b);

	if (na > NEAREST_MAX || nb > NEAREST_MAX)
		return SIZE_MAX;
	for (size_t j = 0; j <= nb; j++)
		row[j] = j;
	for (size_t i = 1; i <= na; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= nb; j++) {
			size_t up = row[j], best = diagonal + (a[i - 1] != b[j - 1]);

			if (up + 1 < best)
				best = up + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			diagonal = up;
			row[j] = best;
		}
	}
	return row[nb];
}

const char *
ctl_nearest(const char *word, const char *(*get)(const void *arg, size_t i), const void *arg)
{
	size_t best = strlen(word) / 3 + 1, d;
	const char *found = NULL, *candidate;

	for (size_t i = 0; (candidate = get(arg, i)) != NULL; i++)
		if ((d = distance(word, candidate)) < best || (d == best && found == NULL)) {
			best = d;
			found = candidate;
		}
	return found;
}

static const char *
option_name(const void *arg, size_t i)
{
	const struct ctl_option *options = arg;

	return options[i].name;
}

int
ctl_usage(const struct ctl_args *args, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "saltctl %s: ", args->verb->name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\ntry: saltctl help %s\n", args->verb->name);
	return EX_USAGE;
}

int
ctl_fail(const struct ctl_args *args, int rc, const struct err_note *note)
{
	char text[1400];

	fprintf(stderr, "saltctl %s: %s\n", args->verb->name, err_note_str(note, rc, text, sizeof(text)));
	return err_exit_code(rc);
}

static const struct ctl_option *
find(const struct ctl_verb *verb, const char *name, size_t len)
{
	for (const struct ctl_option *o = verb->options; o->name != NULL; o++)
		if (strlen(o->name) == len && memcmp(o->name, name, len) == 0)
			return o;
	return NULL;
}

/* Two options have a short form, in every verb that has them. NULL: no such form. */
static const char *
long_name(const char *word)
{
	return strcmp(word, "-c") == 0 ? "config" : strcmp(word, "-f") == 0 ? "follow" : NULL;
}

static int
parse_option(struct ctl_args *args, const char *word, char **argv, int argc, int *i)
{
	const char *name = word[1] == '-' ? word + 2 : long_name(word), *equals = strchr(name, '=');
	size_t len = equals != NULL ? (size_t)(equals - name) : strlen(name);
	const struct ctl_option *o = find(args->verb, name, len);
	struct ctl_value *value = &args->values[args->n_values];

	if (o == NULL) {
		char cut[NEAREST_MAX + 1];
		const char *near;

		snprintf(cut, sizeof(cut), "%.*s", (int)len, name);
		near = ctl_nearest(cut, option_name, args->verb->options);
		return near != NULL ? ctl_usage(args, "unknown option %s; did you mean --%s?", word, near) :
		    ctl_usage(args, "unknown option %s", word);
	}
	if (!o->many && ctl_has(args, o->name))
		return ctl_usage(args, "--%s is given twice", o->name);
	value->option = o;
	if (o->arg == NULL) {
		if (equals != NULL)
			return ctl_usage(args, "--%s takes no value", o->name);
		value->text = "";
	} else if (equals != NULL) {
		value->text = equals + 1;
	} else if (*i + 1 < argc) {
		value->text = argv[++*i];
	} else {
		return ctl_usage(args, "--%s %s: the %s is missing", o->name, o->arg, o->arg);
	}
	args->n_values++;
	return 0;
}

int
ctl_args_parse(struct ctl_args *args, const struct ctl_verb *verb, int argc, char **argv)
{
	bool over = false;
	int rc;

	*args = (struct ctl_args){.verb = verb};
	args->values = calloc((size_t)argc + 1, sizeof(*args->values));
	args->operands = calloc((size_t)argc + 1, sizeof(*args->operands));
	if (args->values == NULL || args->operands == NULL)
		return EX_OSERR;
	for (int i = 0; i < argc; i++) {
		const char *word = argv[i];

		if (over || word[0] != '-' || word[1] == '\0') {
			args->operands[args->n_operands++] = word;
		} else if (strcmp(word, "--") == 0) {
			over = true;
		} else if (word[1] == '-' || long_name(word) != NULL) {
			if ((rc = parse_option(args, word, argv, argc, &i)) != 0)
				return rc;
		} else {
			return ctl_usage(args, "unknown option %s", word);
		}
	}
	if (args->n_operands < verb->min_operands)
		return ctl_usage(args, "%s is missing", verb->operands);
	if (args->n_operands > verb->max_operands)
		return ctl_usage(args, "unexpected argument %s", args->operands[verb->max_operands]);
	return 0;
}

void
ctl_args_free(struct ctl_args *args)
{
	free(args->values);
	free(args->operands);
	*args = (struct ctl_args){.verb = args->verb};
}

const char *
ctl_get_nth(const struct ctl_args *args, const char *name, size_t i)
{
	for (size_t v = 0; v < args->n_values; v++)
		if (strcmp(args->values[v].option->name, name) == 0 && i-- == 0)
			return args->values[v].text;
	return NULL;
}

const char *
ctl_get(const struct ctl_args *args, const char *name)
{
	const char *last = NULL, *text;

	for (size_t i = 0; (text = ctl_get_nth(args, name, i)) != NULL; i++)
		last = text;
	return last;
}

bool
ctl_has(const struct ctl_args *args, const char *name)
{
	return ctl_get_nth(args, name, 0) != NULL;
}

const char *
ctl_need(const struct ctl_args *args, const char *name)
{
	const char *text = ctl_get(args, name);
	const struct ctl_option *o = find(args->verb, name, strlen(name));

	if (text == NULL)
		ctl_usage(args, "--%s %s is missing: %s", name, o->arg, o->help);
	return text;
}

int
ctl_get_u64(const struct ctl_args *args, const char *name, uint64_t min, uint64_t max, uint64_t *out)
{
	const char *text = ctl_get(args, name);
	unsigned long long v;
	char *end;

	if (text == NULL)
		return 0;
	errno = 0;
	v = strtoull(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || v < min || v > max) {
		if (max == UINT64_MAX)
			return ctl_usage(args, "--%s: expected a whole number of at least %llu, found \"%s\"", name, (unsigned long long)min, text);
		return ctl_usage(args, "--%s: expected a whole number from %llu to %llu, found \"%s\"", name, (unsigned long long)min,
		    (unsigned long long)max, text);
	}
	*out = v;
	return 0;
}

int
ctl_get_num(const struct ctl_args *args, const char *name, double min, double max, double *out)
{
	const char *text = ctl_get(args, name);
	double v;
	char *end;

	if (text == NULL)
		return 0;
	v = strtod(text, &end);
	if (end == text || *end != '\0' || !(v >= min && v <= max))
		return ctl_usage(args, "--%s: expected a number from %g to %g, found \"%s\"", name, min, max, text);
	*out = v;
	return 0;
}
