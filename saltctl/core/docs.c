/* SPDX-License-Identifier: Apache-2.0 */
/* docs - writes the table of verbs as a manual page and as bash completion, both during the build. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "fabric/config/cli.h"
#include "saltctl/core/ctl.h"

/* ---- saltctl.1 ---- */

/* Escapes a text for roff: no line becomes a request, and hyphens stay hyphens (examples are copied). */
static void
roff(FILE *out, const char *s)
{
	for (bool start = true; *s != '\0'; s++) {
		if (start && (*s == '.' || *s == '\''))
			fputs("\\&", out);
		start = *s == '\n';
		if (*s == '\\')
			fputs("\\e", out);
		else if (*s == '-')
			fputs("\\-", out);
		else
			fputc(*s, out);
	}
}

static void
man_verb(FILE *out, const struct ctl_verb *v)
{
	fprintf(out, ".SS ");
	roff(out, v->name);
	fprintf(out, "\n.PP\n\\fBsaltctl ");
	roff(out, v->name);
	fprintf(out, "\\fR%s", v->options[0].name != NULL ? " [\\fIoptions\\fR]" : "");
	if (v->operands[0] != '\0') {
		fprintf(out, " \\fI");
		roff(out, v->operands);
		fprintf(out, "\\fR");
	}
	fprintf(out, "\n.PP\n%c", toupper((unsigned char)v->summary[0]));
	roff(out, v->summary + 1);
	fprintf(out, ".\n");
	if (v->about[0] != '\0') {
		roff(out, v->about);
		fputc('\n', out);
	}
	for (const struct cli_option *o = v->options; o->name != NULL; o++) {
		fprintf(out, ".TP\n\\fB");
		if (o->letter != 0)
			fprintf(out, "\\-%c\\fR, \\fB", o->letter);
		fprintf(out, "\\-\\-");
		roff(out, o->name);
		fprintf(out, "\\fR");
		if (o->arg != NULL) {
			fprintf(out, " \\fI");
			roff(out, o->arg);
			fprintf(out, "\\fR");
		}
		fputc('\n', out);
		roff(out, o->help);
		fputc('\n', out);
	}
	fprintf(out, ".PP\nExample:\n.PP\n.nf\n.RS 4\n");
	roff(out, v->example);
	fprintf(out, "\n.RE\n.fi\n");
}

void
ctl_docs_man(const struct ctl_verb *const *verbs, size_t n, FILE *out)
{
	fprintf(out,
	    ".\\\" Made of the table of verbs by saltctl help \\-\\-man.\n.TH SALTCTL 1 \"\" \"saltfleet %s\" \"saltfleet\"\n"
	    ".SH NAME\nsaltctl \\- command line tool of saltfleet: corpora, models, label caches, runs and running fleets\n"
	    ".SH SYNOPSIS\n\\fBsaltctl\\fR \\fIVERB\\fR [\\fIoptions\\fR]\n.br\n\\fBsaltctl help\\fR [\\fIVERB\\fR]\n.br\n"
	    "\\fBsaltctl \\-\\-version\\fR\n"
	    ".SH DESCRIPTION\nThe command line tool of saltfleet: makes corpora and models, checks configurations, watches a fleet,\n"
	    "evaluates models, compares runs.\nResults go to standard output, everything else to standard error. Progress is shown\n"
	    "only on a terminal.\n.PP\nA value is given as \\fB\\-\\-name\\fR \\fIVALUE\\fR or \\fB\\-\\-name=\\fR\\fIVALUE\\fR;\n"
	    "\\fB\\-c\\fR is short for \\fB\\-\\-config\\fR, \\fB\\-f\\fR for \\fB\\-\\-follow\\fR, and what comes after \\fB\\-\\-\\fR is not an option.\n"
	    ".SH VERBS\n", cli_version);
	for (size_t i = 0; i < n; i++)
		man_verb(out, verbs[i]);
	fprintf(out,
	    ".SH EXIT STATUS\nThose of sysexits.h: 0 good, 64 wrong use (the message says what to type), 65 bad data, 66 no such input,\n"
	    "69 a daemon does not answer, 73 exists already, 74 a write failed, 75 not done in time, 77 key rejected,\n78 bad configuration.\n"
	    ".SH ENVIRONMENT\n.TP\nNO_COLOR\n\\fBtop\\fR shows no colours if it is not empty.\n.TP\nCOLUMNS\nthe width of what \\fBtop \\-\\-once\\fR prints.\n"
	    ".SH SEE ALSO\n\\fBselectord\\fR(8), \\fBteacherd\\fR(8), \\fBtrainerd\\fR(8), \\fBfleet.yaml\\fR(5)\n");
}

/* ---- bash ---- */

/* Prints the first words of all verbs, or the second words of those that begin with first. */
static void
words(const struct ctl_verb *const *verbs, size_t n, const char *first, FILE *out)
{
	const char *last = "";
	size_t last_len = 0, skip = first != NULL ? strlen(first) + 1 : 0;

	for (size_t i = 0; i < n; i++) {
		const char *word = verbs[i]->name + skip;
		size_t len;

		if (first != NULL && (strncmp(verbs[i]->name, first, skip - 1) != 0 || verbs[i]->name[skip - 1] != ' '))
			continue;
		len = strcspn(word, " ");
		if (len == last_len && strncmp(word, last, len) == 0)
			continue;
		fprintf(out, "%s%.*s", last_len > 0 ? " " : "", (int)len, word);
		last = word;
		last_len = len;
	}
}

void
ctl_docs_completion(const struct ctl_verb *const *verbs, size_t n, FILE *out)
{
	fprintf(out, "# Made of the table of verbs by saltctl help --completion.\n\n"
	    "_saltctl_options() {\t# the options of a verb, NAME= where an argument follows; 1: no such verb\n\tcase $1 in\n");
	for (size_t i = 0; i < n; i++) {
		fprintf(out, "\t\"%s\") echo '", verbs[i]->name);
		for (const struct cli_option *o = verbs[i]->options; o->name != NULL; o++)
			fprintf(out, "--%s%s ", o->name, o->arg != NULL ? "=" : "");
		fprintf(out, "--help' ;;\n");
	}
	fprintf(out,
	    "\t*) return 1 ;;\n\tesac\n}\n\n_saltctl_second() {\t# the second words of verbs of two\n\tcase $1 in\n");
	for (size_t i = 0; i < n; i++) {
		size_t len = strcspn(verbs[i]->name, " ");
		char first[64];

		if (verbs[i]->name[len] == '\0' || (i > 0 && strncmp(verbs[i - 1]->name, verbs[i]->name, len + 1) == 0))
			continue;
		snprintf(first, sizeof(first), "%.*s", (int)len, verbs[i]->name);
		fprintf(out, "\t%s) echo '", first);
		words(verbs, n, first, out);
		fprintf(out, "' ;;\n");
	}
	fprintf(out, "\tesac\n}\n\n_saltctl_first='");
	words(verbs, n, NULL, out);
	fprintf(out, " help'\n");
}
