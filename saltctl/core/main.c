/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/cpus/cpus.h"
#include "base/err/nearest.h"
#include "fabric/config/cli.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/output.h"
#include "base/log/log.h"

CPUS_BOUND_SPIN;

/* All verbs; help lists them in this order. */
static const struct ctl_verb *const verbs[] = {
	&ctl_corpus_build, &ctl_corpus_info, &ctl_corpus_show, &ctl_corpus_split, &ctl_corpus_merge, &ctl_corpus_sample,
	&ctl_tokenizer_encode, &ctl_tokenizer_decode, &ctl_tokenizer_info,
	&ctl_model_new, &ctl_model_import, &ctl_model_grow, &ctl_model_info,
	&ctl_config_check, &ctl_plan,
	&ctl_label, &ctl_run_info, &ctl_status, &ctl_top, &ctl_logs, &ctl_events, &ctl_exporter,
	&ctl_cache_stat, &ctl_cache_fsck, &ctl_cache_export, &ctl_cache_import, &ctl_cache_reselect, &ctl_cache_drop,
	&ctl_scores_export, &ctl_scores_import,
	&ctl_eval, &ctl_generate,
	&ctl_report, &ctl_ledger,
	&ctl_keygen,
};

#define N_VERBS (sizeof(verbs) / sizeof(verbs[0]))

const struct ctl_verb *const *
ctl_verbs(size_t *n)
{
	*n = N_VERBS;
	return verbs;
}

static const char *
verb_name(const void *arg, size_t i)
{
	(void)arg;
	return i < N_VERBS ? verbs[i]->name : NULL;
}

static void
help(FILE *out)
{
	fprintf(out,
	    "saltctl %s - command line tool of saltfleet: corpora, models, label caches, runs and running fleets\n\nusage: saltctl VERB [options]\n\n",
	    cli_version);
	for (size_t i = 0; i < N_VERBS; i++)
		fprintf(out, "  %-18s %s\n", verbs[i]->name, verbs[i]->summary);
	fprintf(out, "\nsaltctl help VERB shows a verb's options and an example. saltctl --version.\n"
	    "saltctl help --man prints the manual page, saltctl help --completion the data for bash completion.\n"
	    "Exit codes follow sysexits.h: 64 wrong use, 65 bad data, 66 no such input, 69 no answer, 78 bad configuration.\n");
}

static void
help_verb(const struct ctl_verb *v, FILE *out)
{
	fprintf(out, "saltctl %s - %s\n\nusage: saltctl %s%s%s%s\n", v->name, v->summary, v->name,
	    v->options[0].name != NULL ? " [options]" : "", v->operands[0] != '\0' ? " " : "", v->operands);
	if (v->about[0] != '\0')
		fprintf(out, "\n%s\n", v->about);
	if (v->options[0].name != NULL)
		fputc('\n', out);
	cli_print_options(v->options, 24, out);
	fprintf(out, "\nexample: %s\n", v->example);
}

/* Finds the verb that the first two words of argv, or the first one, name. *used: number of words. */
static const struct ctl_verb *
find(int argc, char **argv, int *used)
{
	char two[128];

	for (*used = 2; *used > 0; --*used) {
		if (*used > argc)
			continue;
		snprintf(two, sizeof(two), "%s%s%s", argv[0], *used == 2 ? " " : "", *used == 2 ? argv[1] : "");
		for (size_t i = 0; i < N_VERBS; i++)
			if (strcmp(verbs[i]->name, two) == 0)
				return verbs[i];
	}
	return NULL;
}

static int
unknown(int argc, char **argv)
{
	size_t len = strlen(argv[0]);
	char two[128];
	const char *near;
	bool group = false;

	/* "corpus" alone lists the verbs of that group; "corpus bild" suggests the nearest verb. */
	for (size_t i = 0; i < N_VERBS; i++)
		group |= strncmp(verbs[i]->name, argv[0], len) == 0 && verbs[i]->name[len] == ' ';
	snprintf(two, sizeof(two), "%.60s%s%.60s", argv[0], argc > 1 && group ? " " : "",
	    argc > 1 && group ? argv[1] : "");
	near = err_nearest(two, verb_name, NULL);
	fprintf(stderr, "saltctl: unknown verb \"%s\"", two);
	if (group && argc == 1) {
		fprintf(stderr, "; there is");
		for (size_t i = 0; i < N_VERBS; i++)
			if (strncmp(verbs[i]->name, argv[0], len) == 0 && verbs[i]->name[len] == ' ')
				fprintf(stderr, " \"%s\"", verbs[i]->name);
	} else if (near != NULL) {
		fprintf(stderr, "; did you mean \"%s\"?", near);
	}
	fprintf(stderr, "\ntry: saltctl help\n");
	return EX_USAGE;
}

int
main(int argc, char **argv)
{
	const struct ctl_verb *verb;
	struct ctl_args args;
	int used, exit_code;
	bool asks_help;

	log_init("saltctl", LOG_LEVEL_WARN);
	signal(SIGPIPE, SIG_IGN);	/* a verb completes its files even without a reader: see ctl_flush */
	argc--;
	argv++;
	if (argc == 0) {
		help(stderr);
		return EX_USAGE;
	}
	if (strcmp(argv[0], "--version") == 0) {
		printf("saltctl %s\n", cli_version);
		return ctl_flush(0);
	}
	asks_help = strcmp(argv[0], "help") == 0 || strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0;
	if (asks_help && argc == 1) {
		help(stdout);
		return ctl_flush(0);
	}
	if (asks_help && argc == 2 && (strcmp(argv[1], "--man") == 0 || strcmp(argv[1], "--completion") == 0)) {
		(argv[1][2] == 'm' ? ctl_docs_man : ctl_docs_completion)(verbs, N_VERBS, stdout);
		return ctl_flush(0);
	}
	if ((verb = find(argc - asks_help, argv + asks_help, &used)) == NULL)
		return unknown(argc - asks_help, argv + asks_help);
	if (asks_help) {
		help_verb(verb, stdout);
		return ctl_flush(0);
	}
	if ((exit_code = ctl_args_parse(&args, verb, argc - used, argv + used)) == 0 && args.cli.wants_help)
		help_verb(verb, stdout);
	else if (exit_code == 0)
		exit_code = verb->run(&args);
	ctl_args_free(&args);
	return ctl_flush(exit_code);
}
