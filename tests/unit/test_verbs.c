/* SPDX-License-Identifier: Apache-2.0 */
/* The table of saltctl's verbs: each has all texts for help, and its example is a valid command line. */
#include "saltctl/core/ctl.h"

#include "check.h"

enum { WORDS_MAX = 64 };

/* Splits text into words in place, as a shell does for the examples: spaces, quotes, an end at | < > ; &. */
static int
split(char *text, char *words[WORDS_MAX])
{
	char *to = text;
	int n = 0;

	for (char *p = text; *p != '\0'; ) {
		while (*p == ' ')
			p++;
		if (*p == '\0' || strchr("|<>;&", *p) != NULL)
			break;
		REQUIRE(n < WORDS_MAX);
		words[n++] = to;
		for (char quote = 0; *p != '\0' && (quote != 0 || (*p != ' ' && strchr("|<>;&", *p) == NULL)); p++)
			if (quote == 0 && (*p == '\'' || *p == '"'))
				quote = *p;
			else if (*p == quote)
				quote = 0;
			else
				*to++ = *p;
		if (*p == ' ')
			p++;
		else if (*p != '\0') {
			*to = '\0';
			break;
		}
		*to++ = '\0';
	}
	return n;
}

static void
example_parses(const struct ctl_verb *v)
{
	char text[1024], start[80], *words[WORDS_MAX], *at;
	struct ctl_args args;
	int n, of_verb = 1 + (strchr(v->name, ' ') != NULL);

	snprintf(start, sizeof(start), "saltctl %s", v->name);
	snprintf(text, sizeof(text), "%s", v->example);
	CHECK_ROW(v->name, (at = strstr(text, start)) != NULL);
	if ((at = strstr(text, start)) == NULL)
		return;
	n = split(at + strlen("saltctl "), words);
	CHECK_ROW(v->name, n >= of_verb);
	CHECK_ROW(v->name, ctl_args_parse(&args, v, n - of_verb, words + of_verb) == 0);
	CHECK_ROW(v->name, n > of_verb || v->min_operands == 0);
	ctl_args_free(&args);
}

/* Checks that the manual page and the completion have all verbs and options. */
static void
in_docs(const struct ctl_verb *const *verbs, size_t n)
{
	char *man = NULL, *words = NULL, line[128];
	size_t man_len, words_len;
	FILE *out;

	REQUIRE((out = open_memstream(&man, &man_len)) != NULL);
	ctl_docs_man(verbs, n, out);
	fclose(out);
	REQUIRE((out = open_memstream(&words, &words_len)) != NULL);
	ctl_docs_completion(verbs, n, out);
	fclose(out);
	for (size_t i = 0; i < n; i++) {
		char *at, *end;

		snprintf(line, sizeof(line), "\n.SS %s\n", verbs[i]->name);
		CHECK_ROW(verbs[i]->name, strstr(man, line) != NULL);
		snprintf(line, sizeof(line), "\t\"%s\") echo '", verbs[i]->name);
		CHECK_ROW(verbs[i]->name, (at = strstr(words, line)) != NULL);
		if ((at = strstr(words, line)) == NULL)
			continue;
		end = strchr(at, '\n');
		for (const struct cli_option *o = verbs[i]->options; o->name != NULL; o++) {
			char *found;

			snprintf(line, sizeof(line), "--%s%s ", o->name, o->arg != NULL ? "=" : "");
			found = strstr(at, line);
			CHECK_ROW(verbs[i]->name, found != NULL && found < end);
		}
	}
	free(man);
	free(words);
}

int
main(void)
{
	size_t n;
	const struct ctl_verb *const *verbs = ctl_verbs(&n);

	CHECK(n >= 25);
	for (size_t i = 0; i < n; i++) {
		const struct ctl_verb *v = verbs[i];

		CHECK_ROW(v->name, v->summary[0] != '\0' && v->run != NULL && v->options != NULL && v->min_operands <= v->max_operands);
		CHECK_ROW(v->name, v->operands[0] != '\0' || v->max_operands == 0);
		CHECK_ROW(v->name, v->summary[strlen(v->summary) - 1] != '.' && strchr(v->summary, '\n') == NULL);
		for (const struct cli_option *o = v->options; o->name != NULL; o++)
			CHECK_ROW(o->name, o->help[0] != '\0' && (!o->many || o->arg != NULL) && strcmp(o->name, "help") != 0);
		for (size_t k = 0; k < i; k++)
			CHECK_ROW(v->name, strcmp(v->name, verbs[k]->name) != 0);
		example_parses(v);
	}
	in_docs(verbs, n);
	return check_done();
}
