/* SPDX-License-Identifier: Apache-2.0 */
/* tokenizer encode, decode, info. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "saltctl/core/ctl.h"
#include "saltctl/core/output.h"
#include "data/tokenizer/tokenizer.h"

#define TOKENIZER_OPTION {"tokenizer", "PATH", "tokenizer.json or tokenizer.model, or a folder that holds one (required)", false}

static const struct cli_option encode_options[] = {
	TOKENIZER_OPTION,
	{"specials", NULL, "recognise special tokens in the text, as Hugging Face does by default", false},
	{"raw", NULL, "write int32, little-endian, instead of text", false},
	CTL_END
};

static const struct cli_option decode_options[] = {
	TOKENIZER_OPTION,
	{"skip-specials", NULL, "leave special tokens out", false},
	{"raw", NULL, "read int32, little-endian, instead of text", false},
	CTL_END
};

static const struct cli_option info_options[] = {
	{"ids", NULL, "list every id with its bytes; with --json in hexadecimal", false},
	CTL_JSON, CTL_END
};

struct coder {
	const struct ctl_args *args;
	struct tokenizer *tok;
	struct tokenizer_encoder *enc;
	struct tokenizer_ids ids;
	struct tokenizer_bytes text;
	struct err_note note;
};

/* Calls one() with the content of each FILE, or of standard input. */
static int
each_input(struct ctl_args *args, int (*one)(struct coder *c, const char *name, const unsigned char *bytes, size_t n))
{
	const char *path = ctl_need(args, "tokenizer"), *name = "-";
	struct coder c = {.args = args};
	unsigned char *bytes;
	size_t n, i = 0;
	int exit_code = path == NULL ? EX_USAGE : ctl_open_tokenizer(args, path, &c.tok), rc;

	if (exit_code == 0 && (rc = tokenizer_encoder_new(&c.enc, c.tok)) != 0)
		exit_code = ctl_fail(args, rc, NULL);
	while (exit_code == 0 && i < (args->n_operands > 0 ? args->n_operands : 1)) {
		name = args->n_operands > 0 ? args->operands[i] : "-";
		if ((exit_code = ctl_read_all(args, name, &bytes, &n)) != 0)
			break;
		c.ids.n = c.text.n = 0;
		exit_code = one(&c, name, bytes, n);
		free(bytes);
		i++;
	}
	free(c.ids.ids);
	free(c.text.bytes);
	tokenizer_encoder_destroy(&c.enc);
	tokenizer_destroy(&c.tok);
	return exit_code;
}

static void
print_ids(const struct tokenizer_ids *ids, bool raw)
{
	if (raw) {
		fwrite(ids->ids, sizeof(*ids->ids), ids->n, stdout);
		return;
	}
	for (size_t i = 0; i < ids->n; i++)
		printf(i > 0 ? " %d" : "%d", ids->ids[i]);
	putchar('\n');
}

static int
encode_one(struct coder *c, const char *name, const unsigned char *bytes, size_t n)
{
	bool specials = ctl_has(c->args, "specials");
	int rc = tokenizer_encode(c->enc, bytes, n, specials ? TOKENIZER_SPECIALS : 0, &c->ids, &c->note);

	(void)name;
	if (rc != 0)
		return ctl_fail(c->args, rc, &c->note);
	print_ids(&c->ids, ctl_has(c->args, "raw"));
	return 0;
}

static int
encode(struct ctl_args *args)
{
	return each_input(args, encode_one);
}

/* Parses ids separated by white space. */
static int
parse_ids(struct coder *c, const char *name, const unsigned char *bytes, size_t n)
{
	for (size_t i = 0; i < n;) {
		size_t begin = i;
		int64_t v = 0;

		if (strchr(" \t\r\n", bytes[i]) != NULL && bytes[i] != '\0') {
			i++;
			continue;
		}
		for (; i < n && bytes[i] >= '0' && bytes[i] <= '9' && v <= INT32_MAX; i++)
			v = v * 10 + (bytes[i] - '0');
		if (i == begin || v > INT32_MAX || (i < n && (bytes[i] == '\0' || strchr(" \t\r\n", bytes[i]) == NULL)))
			return err_expect_at(&c->note, ERR_FORMAT, "%s", "byte %zu",
			    "token ids: numbers with white space between them", "", name, begin);
		*(int32_t *)ctl_add(c->ids.ids, c->ids.n, c->ids.cap) = (int32_t)v;
	}
	return 0;
}

static int
decode_one(struct coder *c, const char *name, const unsigned char *bytes, size_t n)
{
	int flags = ctl_has(c->args, "skip-specials") ? TOKENIZER_SKIP_SPECIALS : 0, rc = 0;

	if (strcmp(name, "-") == 0)
		name = "standard input";
	if (!ctl_has(c->args, "raw")) {
		rc = parse_ids(c, name, bytes, n);
	} else if (n % sizeof(int32_t) != 0) {
		rc = err_expect(&c->note, ERR_FORMAT, "%s", "int32 ids: a multiple of 4 bytes", "%zu bytes", name, n);
	} else {
		c->ids.n = n / sizeof(int32_t);
		ctl_grow((void **)&c->ids.ids, &c->ids.cap, c->ids.n + 1, sizeof(int32_t));
		memcpy(c->ids.ids, bytes, n);
	}
	if (rc != 0 || (rc = tokenizer_decode(c->tok, c->ids.ids, c->ids.n, flags, &c->text, &c->note)) != 0)
		return ctl_fail(c->args, rc, &c->note);
	if (c->text.n > 0)		/* without ids the text is NULL */
		fwrite(c->text.bytes, 1, c->text.n, stdout);
	return 0;
}

static int
decode(struct ctl_args *args)
{
	return each_input(args, decode_one);
}

static void
print_token(const struct tokenizer *tok, int32_t id)
{
	const unsigned char *bytes;
	bool special;
	size_t n;

	tokenizer_token(tok, id, &bytes, &n, &special);
	printf("%d\t", id);
	for (size_t i = 0; i < n; i++)
		if (bytes[i] > ' ' && bytes[i] < 127 && bytes[i] != '\\')
			putchar(bytes[i]);
		else
			printf("\\x%02x", bytes[i]);
	printf(special ? "\tspecial\n" : "\n");
}

/* --ids --json: an array of {"id", "bytes" (hexadecimal, because a token need not be UTF-8), "special"}. */
static int
print_tokens_json(const struct tokenizer *tok)
{
	struct json *all = ctl_array();

	for (int32_t id = 0; id < tokenizer_vocab_size(tok); id++) {
		const unsigned char *bytes;
		bool special;
		size_t n;
		char *hex;

		tokenizer_token(tok, id, &bytes, &n, &special);
		hex = ctl_alloc(2 * n + 1, 1);
		for (size_t i = 0; i < n; i++)
			snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
		ctl_push(all, ctl_record(CTL("id", id), CTL("bytes", hex), CTL("special", special)));
		free(hex);
	}
	return ctl_print_json(all);
}

static int
info(struct ctl_args *args)
{
	struct tokenizer *tok = NULL;
	char hex[HASH_HEX_BYTES];
	int32_t eod = -1;
	int exit_code = ctl_open_tokenizer(args, args->operands[0], &tok);

	if (exit_code != 0)
		return exit_code;
	if (ctl_has(args, "ids") && ctl_has(args, "json")) {
		exit_code = print_tokens_json(tok);
		tokenizer_destroy(&tok);
		return exit_code;
	}
	hash_hex(tokenizer_fingerprint(tok), hex);
	if (tokenizer_end_of_document(tok, NULL, &eod, NULL) != 0)
		eod = -1;
	if (ctl_has(args, "ids")) {
		for (int32_t id = 0; id < tokenizer_vocab_size(tok); id++)
			print_token(tok, id);
	} else if (ctl_has(args, "json")) {
		exit_code = ctl_print_json(ctl_record(CTL("vocabulary", tokenizer_vocab_size(tok)),
		    CTL("end_of_document", ctl_known(eod >= 0, eod)), CTL("lossless", tokenizer_is_lossless(tok)),
		    CTL("split", tokenizer_describe(tok)), CTL("fingerprint", hex)));
	} else {
		ctl_line("vocabulary", "%d ids", tokenizer_vocab_size(tok));
		if (eod >= 0)
			ctl_line("end of document", "%d", eod);
		else
			ctl_line("end of document", "none found; name one with --eod");
		ctl_line("lossless", "%s",
		    tokenizer_is_lossless(tok) ? "yes: decode(encode(x)) = x for any bytes" : "no");
		ctl_line("split", "%s", tokenizer_describe(tok));
		ctl_line("fingerprint", "%s", hex);
	}
	tokenizer_destroy(&tok);
	return exit_code;
}

const struct ctl_verb ctl_tokenizer_encode = {
	.name = "tokenizer encode", .operands = "[FILE ...]", .summary = "text to token ids",
	.about = "Prints a line of ids for each FILE, or for standard input. Any bytes are accepted, UTF-8 or not.",
	.example = "echo 'Hello, world' | saltctl tokenizer encode --tokenizer share/tokenizer-4k",
	.options = encode_options, .max_operands = CTL_ANY, .run = encode,
};

const struct ctl_verb ctl_tokenizer_decode = {
	.name = "tokenizer decode", .operands = "[FILE ...]", .summary = "token ids to text",
	.about = "Reads ids as numbers with white space between them, from each FILE or from standard input.",
	.example = "echo 40 41 42 | saltctl tokenizer decode --tokenizer share/tokenizer-4k",
	.options = decode_options, .max_operands = CTL_ANY, .run = decode,
};

const struct ctl_verb ctl_tokenizer_info = {
	.name = "tokenizer info", .operands = "PATH", .summary = "vocabulary, split and fingerprint of a tokenizer",
	.about = "PATH is a tokenizer.json or tokenizer.model, or a folder that holds one.",
	.example = "saltctl tokenizer info share/tokenizer-4k",
	.options = info_options, .min_operands = 1, .max_operands = 1, .run = info,
};
