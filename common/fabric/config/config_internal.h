/* SPDX-License-Identifier: Apache-2.0 */
/* config_internal - shared by the files of this module. */
#ifndef SALT_CONFIG_INTERNAL_H
#define SALT_CONFIG_INTERNAL_H

#include "fabric/config/config.h"
#include "base/mem/mem.h"

enum {
	CONFIG__FILE_BYTES_MAX = 1 << 20,
	CONFIG__ITEMS_MAX = 256,		/* of a list */
	CONFIG__PATHS_MAX = 15,			/* of a list of paths */
	CONFIG__LIST_BYTES_MAX = 32768,		/* of a list of corpora as text */
	CONFIG__TEXT_BYTES_MAX = 4096,
	CONFIG__VALUE_BYTES = 65536		/* enough for any value as text: 256 endpoints of 200 bytes, quoted */
};

enum config__type {
	CONFIG__PATH,
	CONFIG__CORPUS,			/* a path, or a list of {prefix, weight}, which the field holds as JSON for corpus_open */
	CONFIG__COMPUTE_CLASS,		/* auto, or the name of a compute class */
	CONFIG__ENDPOINT,
	CONFIG__ENDPOINTS,		/* list, at least one, no duplicates */
	CONFIG__NUMBERS,		/* list of u64 */
	CONFIG__PATHS,			/* list, no duplicates */
	CONFIG__U32,
	CONFIG__U64,
	CONFIG__BYTES,			/* u64 with KiB MiB GiB TiB */
	CONFIG__FLOAT,
	CONFIG__PAIR,			/* two doubles */
	CONFIG__FLAG,
	CONFIG__CHOICE
};

enum config__class { CONFIG__IDENTITY, CONFIG__TUNABLE, CONFIG__HOST };

struct config__word {
	const char *word;		/* NULL ends the list */
	int value;
};

struct config__option {
	const char *section, *name, *key;	/* "trainer", "lr", "trainer.lr" */
	enum config__type type;
	enum config__class class;
	size_t offset;			/* in struct config; table.c checks the field's type at compile time */
	const char *def;		/* default, parsed like a value of the file; NULL: none, so it may be required */
	uint64_t lo, hi;		/* of whole numbers */
	double flo, fhi;		/* of floats */
	bool open;			/* flo itself is excluded */
	const struct config__word *choices;
	const char *word;		/* a word allowed instead of a number: all -> UINT64_MAX, none -> NaN */
	const char *unit, *help;
	const char *was;		/* the key's former name, still accepted; NULL: none */
};

extern const struct config__option config__table[];
extern const size_t config__n_options;

const struct config__option *config__find(const char *key);	/* by its key or its former name; NULL if there is none */

/* config__unknown - ERR_CONFIG; the note expects what, with the key (or section, if key has no dot) that was probably meant. */
int config__unknown(struct err_note *note, const char *key, const char *what);

enum config__source { CONFIG__DEFAULT, CONFIG__DERIVED, CONFIG__FILE, CONFIG__SET };

struct config__origin {
	enum config__source source;
	unsigned line;
	bool renamed;			/* given under its former name */
};

struct config_own {
	struct mem_arena *arena;	/* all texts and lists */
	const char *file;		/* for notes; "": no file */
	const char *base_dir;		/* where relative paths start */
	struct config__origin *origin;	/* one for each line of the table */
};

/* A value as written in the file. quoted[i]: it was in quotes, so it is text and not a number. */
struct config__raw {
	bool is_list;
	size_t n;
	const char **item;		/* of CONFIG__CORPUS: prefix, weight, prefix, weight, ... */
	bool *quoted;
};

/* config__assign - checks raw and stores it in the option's field. On failure the field is unchanged and note filled in. */
int config__assign(struct config *cfg, const struct config__option *o, const struct config__raw *raw, struct err_note *note);

/* config__assign_text - the same for a text as given to --set. */
int config__assign_text(struct config *cfg, const struct config__option *o, const char *text, struct err_note *note);

/* config__expected - writes "a number in (0, 10]" to buf and returns it. config__value - the value; quoted: for yaml. */
const char *config__expected(const struct config__option *o, char *buf, size_t size);
const char *config__value(const struct config *cfg, const struct config__option *o, bool quoted, char *buf, size_t size);

int config__validate(const struct config *cfg, struct err_note *note);	/* options against each other: 0 or ERR_CONFIG, naming both */
struct config__origin *config__origin_of(const struct config *cfg, const char *key);	/* NULL: no such option */
bool config__given(const struct config *cfg, const struct config__option *o);	/* it has a default or was set */

/* config__yaml - parses the text of a file and assigns its values. config__yaml_value: the text of one value. */
int config__yaml(struct config *cfg, const char *text, size_t len, struct err_note *note);
int config__yaml_value(struct config *cfg, const struct config__option *o, const char *text, struct err_note *note);

extern const char config__docs_head[];		/* text of docs/config.md before the table */

/* config__loopback - true if the endpoint is on this machine: ipc, 127.x, localhost, ::1. */
bool config__loopback(const char *endpoint);

#endif
