/* SPDX-License-Identifier: Apache-2.0 */
/* print - settings and the table as text, and comparison of two configurations. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file/file.h"
#include "base/hash/hash.h"
#include "fabric/config/config_internal.h"

int
config_print(const struct config *cfg, FILE *out, bool with_origin)
{
	char *value = malloc(CONFIG__VALUE_BYTES), origin[32];
	const char *section = "";

	if (value == NULL)
		return ENOMEM;
	for (size_t i = 0; i < config__n_options; i++) {
		const struct config__option *o = &config__table[i];

		if (strcmp(section, o->section) != 0)
			fprintf(out, "%s:\n", o->section);
		section = o->section;
		if (!config__given(cfg, o)) {
			fprintf(out, "  # %s: not given\n", o->name);
			continue;
		}
		fprintf(out, "  %s: %s", o->name, config__value(cfg, o, true, value, CONFIG__VALUE_BYTES));
		if (with_origin)
			fprintf(out, "  # %s", config_origin(cfg, o->key, origin, sizeof(origin)));
		fputc('\n', out);
	}
	free(value);
	return ferror(out) ? EIO : 0;
}

void
config_print_renamed(const struct config *cfg, FILE *out, const char *program)
{
	const char *before = "";
	char origin[32];

	for (size_t i = 0; i < config__n_options; i++) {
		const struct config__option *o = &config__table[i];

		if (!cfg->own->origin[i].renamed)
			continue;
		if (before[0] == '\0')
			fprintf(out, "%s: options given under their former names, which still work: ", program);
		fprintf(out, "%s%s (%s) is now %s", before, o->was, config_origin(cfg, o->key, origin, sizeof(origin)), o->key);
		before = ", ";
	}
	if (before[0] != '\0')
		fputc('\n', out);
}

#define RESOLVED "fleet.resolved.yaml"		/* written if the user has a fleet.yaml in run_dir */
#define STORED_HEAD "# Written by trainerd from the options of the run, and again at its next start. "

static void
stored_head(const char *body, size_t len, char head[128])
{
	char hex[HASH_HEX_BYTES];

	snprintf(head, 128, STORED_HEAD "%s\n", hash_hex(hash_bytes(body, len), hex));
}

/* Whether path is absent, or unchanged since config_store wrote it. */
static bool
replaceable(const char *path)
{
	char *text = NULL, *body, head[128];
	size_t len;
	bool ours;
	int rc = file_read(path, CONFIG__FILE_BYTES_MAX, &text, &len, NULL);

	if (rc != 0)
		return rc == ENOENT;
	body = memchr(text, '\n', len);
	body = body != NULL ? body + 1 : text + len;
	stored_head(body, len - (size_t)(body - text), head);
	ours = strlen(head) == (size_t)(body - text) && memcmp(text, head, strlen(head)) == 0;
	free(text);
	return ours;
}

void
config_stored(const char *run_dir, char *path, size_t size)
{
	snprintf(path, size, "%s/" RESOLVED, run_dir);
	if (access(path, F_OK) != 0)
		snprintf(path, size, "%s/fleet.yaml", run_dir);
}

int
config_store(const struct config *cfg, const char *run_dir, struct err_note *note)
{
	char path[CONFIG__TEXT_BYTES_MAX + 32], resolved[sizeof(path)], head[128], *body = NULL;
	struct file_replace r;
	size_t len = 0;
	FILE *f = open_memstream(&body, &len);
	int rc = f != NULL ? config_print(cfg, f, false) : ENOMEM;

	if (f != NULL && fclose(f) != 0)
		rc = ENOMEM;
	if (rc != 0)
		goto out;
	snprintf(path, sizeof(path), "%s/fleet.yaml", run_dir);
	snprintf(resolved, sizeof(resolved), "%s/" RESOLVED, run_dir);
	stored_head(body, len, head);
	if ((rc = file_replace_begin(&r, access(resolved, F_OK) == 0 || !replaceable(path) ? resolved : path, note)) != 0)
		goto out;
	fputs(head, r.f);
	fwrite(body, 1, len, r.f);
	rc = file_replace_end(&r, true, note);
out:
	free(body);
	return rc;
}

/* False if other options make o meaningless. A difference is ignored only if that is so in both configurations. */
static bool
in_use(const struct config *cfg, const struct config__option *o)
{
	bool sampled = cfg->labels.kind == LABELS_KIND_SAMPLED, chosen = cfg->selector.mode != CONFIG_MODE_NONE;

	if (strcmp(o->key, "labels.samples") == 0 || strcmp(o->key, "labels.seed") == 0)
		return sampled;
	if (strcmp(o->key, "labels.k") == 0)
		return cfg->labels.kind == LABELS_KIND_TOPK;
	if (strcmp(o->key, "selector.k") == 0)
		return cfg->selector.mode == CONFIG_MODE_SALT_DS;
	if (strcmp(o->key, "selector.keep_share") == 0)
		return chosen;
	if (strcmp(o->key, "selector.by_part") == 0)
		return chosen && corpus_is_list(cfg->corpus.train);
	if (strcmp(o->key, "selector.block") == 0)
		return cfg->selector.pool == 0;
	return true;
}

/* The next option of a class that differs, from *i on; false at the end. was and is have CONFIG__VALUE_BYTES each. */
static bool
next_difference(const struct config *old, const struct config *now, enum config__class class, size_t *i, char *was, char *is)
{
	for (; *i < config__n_options; (*i)++) {
		const struct config__option *o = &config__table[*i];

		if (o->class != class || (!in_use(old, o) && !in_use(now, o)))
			continue;
		config__value(old, o, false, was, CONFIG__VALUE_BYTES);
		config__value(now, o, false, is, CONFIG__VALUE_BYTES);
		if (strcmp(was, is) != 0)
			return true;
	}
	return false;
}

int
config_identity_diff(const struct config *old, const struct config *now, struct err_note *note)
{
	char *was = malloc(CONFIG__VALUE_BYTES), *is = malloc(CONFIG__VALUE_BYTES), origin[32];
	size_t i = 0;
	int rc = 0;

	if (was == NULL || is == NULL) {
		rc = ENOMEM;
	} else if (next_difference(old, now, CONFIG__IDENTITY, &i, was, is)) {
		rc = err_note_set(note, ERR_CONFIG, "%s", config__table[i].key);
		err_note_place(note, "an identity option, which cannot change for an existing run or cache");
		err_note_expected(note, "%s", was);
		err_note_found(note, "%s (%s)", is, config_origin(now, config__table[i].key, origin, sizeof(origin)));
	}
	free(was);
	free(is);
	return rc;
}

size_t
config_tunable_diff(const struct config *old, const struct config *now,
    void (*each)(void *arg, const char *key, const char *was, const char *is), void *arg)
{
	char *was = malloc(CONFIG__VALUE_BYTES), *is = malloc(CONFIG__VALUE_BYTES);
	size_t n = 0;

	if (was != NULL && is != NULL)
		for (size_t i = 0; next_difference(old, now, CONFIG__TUNABLE, &i, was, is); i++, n++)
			if (each != NULL)
				each(arg, config__table[i].key, was, is);
	free(was);
	free(is);
	return n;
}

const char config__docs_head[] =
	"# fleet.yaml\n"
	"\n"
	"<!-- Made from the table of options (common/fabric/config/table.c) by `cmake --build --preset dev --target docs`; a test compares the two. -->\n"
	"\n"
	"Look up here what an option does, which values it takes, and whether you may change it on a run that exists.\n"
	"\n"
	"One file configures every daemon of a fleet. It has sections, sections have options, and an option has one value or a flat list.\n"
	"`corpus.train` may also be a list of corpora with weights: `[{prefix: data/web, weight: 0.7}, {prefix: data/code, weight: 0.3}]`, or a\n"
	"line `- {prefix: data/web, weight: 0.7}` for each.\n"
	"Options marked *required* have no default. They are needed only by programs that use them: a baseline run needs no cache and no\n"
	"teacher.\n"
	"\n"
	"* `--set section.key=value` (any number of times) overrides the file: `--set trainer.lr=1e-3 --set trainer.keep_steps=50,100`. A list\n"
	"  of corpora is written as in the file: `--set 'corpus.train=[{prefix: a, weight: 1}, {prefix: b, weight: 3}]'`.\n"
	"* Relative paths, also those of `--set`, start at the directory of the configuration file. `~` and `$NAME` are not expanded.\n"
	"* `saltctl config check -c fleet.yaml` prints the file with all values resolved. A run keeps its own copy in `run.dir/fleet.yaml`,\n"
	"  or in `run.dir/fleet.resolved.yaml` if a `fleet.yaml` of yours is there.\n"
	"* An unknown or repeated key, a wrong type or a value out of range ends the program with exit code 78. The message has file and line,\n"
	"  what was expected and what was found. Anchors, aliases, tags, more than one document and files over 1 MiB are refused.\n"
	"* Options have three classes. **identity**: rows, labels or sums depend on it; a change on a live run or cache is refused (78).\n"
	"  **tunable**: may change from one start to the next; the change is logged. **host**: paths, sizes and processes, which differ from\n"
	"  machine to machine. A model or corpus is identified by its fingerprint, so its path is of class host.\n"
	"* Put text with `:` `#` `*` or spaces into double quotes. Whole numbers have no point and no exponent. Sizes in bytes may end in KiB,\n"
	"  MiB, GiB or TiB.\n"
	"* Some options had other names before (`docs/glossary.md` lists them). The former names still work, and programs report them.\n"
	"\n"
	"Each daemon prints at its start what the settings amount to: `baseline` (no phase one), `salt` (phase one, then without the teacher),\n"
	"`salt_ds` (the same on chosen sequences), `salt_file` (on those of `selector.file`) or `rkd` (phase one is the whole run, every\n"
	"sequence in order).\n"
	"\n"
	"Some options depend on each other. `trainer.lanes` is a power of two; `trainer.ranks` divides it, and it divides `trainer.batch`.\n"
	"`trainer.micro_batch` divides batch / lanes. `trainer.warmup` is at most `trainer.steps`, with wsd together with\n"
	"`trainer.decay_steps`. `phase_one.steps` is at most `trainer.steps` and excludes `phase_one.until_margin`, which needs\n"
	"`corpus.heldout`. With `linear` and `ratio`, `phase_one.handover_steps` is from 1 to `phase_one.steps`. `selector.keep_share` of a\n"
	"block must be at least one sequence. `selector.mode: file` needs `selector.file`. Endpoints outside of the machine need `security.curve_dir` or\n"
	"`security.allow_plain_remote: true`.\n";

static void
cell(FILE *out, const char *s)
{
	for (; *s != '\0'; s++)
		fprintf(out, *s == '|' || *s == '*' ? "\\%c" : "%c", *s);
}

int
config_docs(FILE *out)
{
	static const char *const classes[] = { "identity", "tunable", "host" };
	const char *section = "";
	char buf[256];

	fputs(config__docs_head, out);
	for (size_t i = 0; i < config__n_options; i++) {
		const struct config__option *o = &config__table[i];

		if (strcmp(section, o->section) != 0)
			fprintf(out, "\n## %s\n\n| option | value | default | class | meaning |\n|---|---|---|---|---|\n", o->section);
		section = o->section;
		fprintf(out, "| `%s` | ", o->key);
		cell(out, config__expected(o, buf, sizeof(buf)));
		if (o->unit[0] != '\0')
			fprintf(out, ", %s", o->unit);
		if (o->def == NULL)
			fputs(" | *required*", out);
		else if (o->def[0] == '\0')
			fputs(" | empty", out);
		else
			fprintf(out, " | `%s`", o->def);
		fprintf(out, " | %s | ", classes[o->class]);
		cell(out, o->help);
		fputs(" |\n", out);
	}
	return ferror(out) ? EIO : 0;
}
