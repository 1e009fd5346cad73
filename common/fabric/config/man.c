/* SPDX-License-Identifier: Apache-2.0 */
/* man - the table of options as fleet.yaml(5). The text before the table is that of docs/config.md, converted to roff. */
#include <errno.h>
#include <string.h>
#include "fabric/config/config_internal.h"

/* Text of a line: `bold`, **italic**, *italic*; no escapes or requests of its own. */
static void
line(FILE *out, const char *s, size_t len)
{
	bool bold = false, italic = false;

	if (len > 0 && (*s == '.' || *s == '\''))
		fputs("\\&", out);
	for (size_t i = 0; i < len; i++) {
		if (s[i] == '`') {
			bold = !bold;
			fputs(bold ? "\\fB" : "\\fR", out);
		} else if (s[i] == '*' && !bold) {
			italic = !italic;
			fputs(italic ? "\\fI" : "\\fR", out);
			i += i + 1 < len && s[i + 1] == '*';
		} else if (s[i] == '\\') {
			fputs("\\e", out);
		} else if (s[i] == '-') {
			fputs("\\-", out);
		} else {
			fputc(s[i], out);
		}
	}
	fputc('\n', out);
}

/* The part of markdown that config__docs_head uses: paragraphs and one level of bullets. */
static void
markdown(FILE *out, const char *s)
{
	bool gap = true;

	for (size_t len; *s != '\0'; s += len + (s[len] == '\n')) {
		len = strcspn(s, "\n");
		if (len == 0 || *s == '#' || *s == '<') {
			gap = true;
		} else if (s[0] == '*' && s[1] == ' ') {
			fputs(".IP \\(bu 2\n", out);
			line(out, s + 2, len - 2);
			gap = false;
		} else {
			size_t indent = strspn(s, " ");

			if (gap)
				fputs(".PP\n", out);
			line(out, s + indent, len - indent);
			gap = false;
		}
	}
}

int
config_man(FILE *out, const char *version)
{
	static const char *const classes[] = { "identity", "tunable", "host" };
	const char *section = "";
	char buf[256], text[512];

	fprintf(out, ".\\\" Made from the table of options, common/fabric/config/table.c, when the programs are built.\n"
	    ".TH FLEET.YAML 5 \"\" \"saltfleet %s\" \"saltfleet\"\n.SH NAME\nfleet.yaml \\- configuration file of a saltfleet\n.SH DESCRIPTION\n", version);
	markdown(out, config__docs_head);
	fputs(".SH OPTIONS\n", out);
	for (size_t i = 0; i < config__n_options; i++) {
		const struct config__option *o = &config__table[i];
		const char *expected = config__expected(o, buf, sizeof(buf));

		if (strcmp(section, o->section) != 0)
			fprintf(out, ".SS %s\n", o->section);
		section = o->section;
		fprintf(out, ".TP\n\\fB%s\\fR\n", o->key);
		line(out, o->help, strlen(o->help));
		fputs(".br\n", out);
		snprintf(text, sizeof(text), "%s%s%s; %s%s; class %s", expected, o->unit[0] != '\0' ? ", " : "", o->unit,
		    o->def == NULL ? "required" : o->def[0] == '\0' ? "default: empty" : "default: ", o->def != NULL && o->def[0] != 0 ? o->def : "", classes[o->class]);
		line(out, text, strlen(text));
	}
	fputs(".SH EXAMPLE\n.nf\n.RS 4\nrun: {dir: run/salt, seed: 1}\ncorpus: {train: data/train, heldout: data/heldout, context: 128}\n"
	    "cache: {dir: cache}\nteacher: {model: models/small}\nselector: {endpoints: [\"tcp://127.0.0.1:5750\"]}\n"
	    "trainer: {model: models/student, steps: 400, batch: 32}\nphase_one: {steps: 200}\n.RE\n.fi\n"
	    ".SH SEE ALSO\n\\fBsaltctl\\fR(1), \\fBselectord\\fR(8), \\fBteacherd\\fR(8), \\fBtrainerd\\fR(8)\n", out);
	return ferror(out) ? EIO : 0;
}
