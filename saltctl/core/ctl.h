/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctl - saltctl: one program with a verb for each task. main.c finds the verb in its table and parses the
 * options that the verb declares; the verb's function does the work and returns a sysexits code. Nothing here
 * is linked into a daemon.
 */
#ifndef SALT_CTL_H
#define SALT_CTL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err/err.h"
#include "data/corpus/corpus.h"
#include "fabric/config/cli.h"

struct config;
struct config_corpus;
struct tokenizer;

/* ---- verbs ---- */

struct ctl_args;

struct ctl_verb {
	const char *name;			/* "corpus build" */
	const char *operands;			/* "TEXT ..."; "" for none */
	const char *summary;			/* one line */
	const char *about;			/* rest of the help text; may be "" */
	const char *example;			/* one command line */
	const struct cli_option *options;	/* ends with CTL_END */
	size_t min_operands, max_operands;
	int (*run)(struct ctl_args *args);	/* returns the exit code */
};

#define CTL_ANY SIZE_MAX
#define CTL_JSON {"json", NULL, "print JSON instead of text", false, 0}
#define CTL_CONFIG {"config", "FILE", "fleet.yaml", false, 'c'}, \
	{"set", "KEY=VALUE", "override one option of fleet.yaml; may be repeated", true, 0}
#define CTL_END CLI_END

extern const struct ctl_verb ctl_corpus_build, ctl_corpus_info, ctl_corpus_show, ctl_corpus_merge, ctl_corpus_split, ctl_corpus_sample, ctl_tokenizer_encode, ctl_tokenizer_decode,
    ctl_tokenizer_info, ctl_model_info, ctl_model_new, ctl_model_import, ctl_model_grow, ctl_config_check, ctl_label, ctl_eval,
    ctl_generate, ctl_status, ctl_cache_stat, ctl_cache_fsck, ctl_cache_export, ctl_cache_import, ctl_cache_reselect,
    ctl_cache_drop, ctl_scores_export, ctl_scores_import, ctl_report, ctl_ledger, ctl_keygen, ctl_plan, ctl_logs, ctl_run_info, ctl_events, ctl_top,
    ctl_exporter;

/* ---- documents made from the table of verbs (docs.c) ---- */

const struct ctl_verb *const *ctl_verbs(size_t *n);	/* the table in main.c */
void ctl_docs_man(const struct ctl_verb *const *verbs, size_t n, FILE *out);		/* saltctl.1 */
/* the data of share/completion/saltfleet.bash */
void ctl_docs_completion(const struct ctl_verb *const *verbs, size_t n, FILE *out);

/* ---- arguments (args.c) ---- */

struct ctl_args {
	const struct ctl_verb *verb;
	struct cli_args cli;
	char program[64], help[64];		/* "saltctl VERB" and "saltctl help VERB", for cli */
	const char **operands;			/* cli.operands */
	size_t n_operands;
};

/*
 * ctl_args_parse - parses the arguments that follow the verb; argv[-1] must exist. Returns 0, or an exit code
 * after it printed a message. With --help only args->cli.wants_help is set. argv must remain valid as long as
 * args. Call ctl_args_free at the end, also after an error.
 */
int ctl_args_parse(struct ctl_args *args, const struct ctl_verb *verb, int argc, char **argv);
void ctl_args_free(struct ctl_args *args);

/*
 * ctl_get - the last value given for an option, "" for a flag, NULL if it was not given.
 * ctl_get_nth - the i-th value of a repeated option.
 */
#define ctl_get(args, name) cli_get(&(args)->cli, name)
#define ctl_get_nth(args, name, i) cli_get_nth(&(args)->cli, name, i)
#define ctl_has(args, name) (cli_get(&(args)->cli, name) != NULL)

/*
 * Read a number from min to max; *out is unchanged if the option is not given. They return 0, or EX_USAGE
 * after they printed a message.
 */
int ctl_get_u64(const struct ctl_args *args, const char *name, uint64_t min, uint64_t max, uint64_t *out);
int ctl_get_num(const struct ctl_args *args, const char *name, double min, double max, double *out);

/* ctl_need - the value of a required option; NULL after it printed a message. */
const char *ctl_need(const struct ctl_args *args, const char *name);

/* ctl_usage - reports wrong use: prints "saltctl VERB: MESSAGE" and what to type; returns EX_USAGE. */
#define ctl_usage(args, ...) cli_usage(&(args)->cli, __VA_ARGS__)

/* ctl_fail - prints "saltctl VERB: NOTE"; returns err_exit_code(rc). note may be NULL. */
int ctl_fail(const struct ctl_args *args, int rc, const struct err_note *note);

/* ---- what several verbs open (open.c); these return 0, or an exit code after they printed a message ---- */

int ctl_open_config(const struct ctl_args *args, unsigned needs, struct config **cfg);
/* path: a tokenizer.json or tokenizer.model, or a folder with one */
int ctl_open_tokenizer(const struct ctl_args *args, const char *path, struct tokenizer **tok);
/*
 * ctl_open_corpus - opens the corpus PREFIX. --dtype states the type of raw ids; it is then stored in
 * PREFIX.json, which is reported on standard error. Without --dtype the type in `configured` is used (NULL:
 * none). Only the type and the isolation of documents are taken from `configured`. The fingerprint is
 * computed in any case, because later reads are checked against its hashes; the argument fingerprint may be
 * NULL.
 */
#define CTL_DTYPE {"dtype", "TYPE", "type of the ids in a raw token file: uint16, uint32 or int32; then stored in PREFIX.json", false}
int ctl_open_corpus(const struct ctl_args *args, const struct config_corpus *configured, const char *prefix, uint32_t number,
    struct corpus **corpus, struct hash128 *fingerprint);

/* ctl_read_all - reads a file, or standard input for "-", into *bytes (free() it). */
int ctl_read_all(const struct ctl_args *args, const char *path, unsigned char **bytes, size_t *n);

/*
 * ctl_tokenizer_path - writes path to out; for a folder path/tokenizer.json, or path/tokenizer.model if the
 * folder has only that. ctl_tokenizer_copy - writes dir/tokenizer.json from the file at path; a
 * tokenizer.model is converted.
 */
void ctl_tokenizer_path(const char *path, char *out, size_t size);
int ctl_tokenizer_copy(const char *dir, const char *path, struct err_note *note);

#endif
