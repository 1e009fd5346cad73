/* tokenizer encode, decode, info. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "saltctl/core/ctl.h"
#include "saltctl/core/output.h"
#include "base/mem/mem.h"
#include "data/tokenizer/tokenizer.h"

#define TOKENIZER_OPTION {"tokenizer", "PATH", "tokenizer.json, or a folder that holds one (required)", false}

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
	{"ids", NULL, "list every id with its bytes", false},
	CTL_JSON, CTL_END
};

static const char *
operand(const struct ctl_args *args, size_t i)
{
	return args->n_operands == 0 ? "-" : args->operands[i];
}

static size_t
n_inputs(const struct ctl_args *args)
{
	return args->n_operands == 0 ? 1 : args->n_operands;
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
encode(struct ctl_args *args)
{
	const char *path = ctl_need(args, "tokenizer");
	struct tokenizer_encoder *enc = NULL;
	struct tokenizer_ids ids = {0};
	struct err_note note = {.name = ""};
	struct tokenizer *tok = NULL;
	unsigned char *bytes;
	size_t n;
	int exit_code, rc;

	if (path == NULL || (exit_code = ctl_open_tokenizer(args, path, &tok)) != 0)
		return path == NULL ? EX_USAGE : exit_code;
	if ((rc = tokenizer_encoder_new(&enc, tok)) != 0)
		exit_code = ctl_fail(args, rc, NULL);
	for (size_t i = 0; exit_code == 0 && i < n_inputs(args); i++) {
		if ((exit_code = ctl_read_all(args, operand(args, i), &bytes, &n)) != 0)
			break;
		ids.n = 0;
		rc = tokenizer_encode(enc, bytes, n, ctl_has(args, "specials") ? TOKENIZER_SPECIALS : 0, &ids, &note);
		free(bytes);
		if (rc != 0)
			exit_code = ctl_fail(args, rc, &note);
		else
			print_ids(&ids, ctl_has(args, "raw"));
	}
	free(ids.ids);
	tokenizer_encoder_destroy(&enc);
	tokenizer_destroy(&tok);
	return exit_code;
}

/* Numbers with white space between them. */
static int
parse_ids(const struct ctl_args *args, const char *name, const unsigned char *bytes, size_t n,
    struct tokenizer_ids *ids)
{
	struct err_note note;

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
			return ctl_fail(args, err_expect_at(&note, ERR_FORMAT, "%s", "byte %zu",
			    "token ids: numbers with white space between them", "",
			    strcmp(name, "-") == 0 ? "standard input" : name, begin), &note);
		if (mem_grow((void **)&ids->ids, &ids->cap, ids->n + 1, sizeof(*ids->ids)) != 0)
			return ctl_fail(args, ENOMEM, NULL);
		ids->ids[ids->n++] = (int32_t)v;
	}
	return 0;
}

static int
read_ids(const struct ctl_args *args, const char *name, struct tokenizer_ids *ids)
{
	struct err_note note;
	unsigned char *bytes;
	size_t n;
	int exit_code = ctl_read_all(args, name, &bytes, &n);

	if (exit_code != 0)
		return exit_code;
	ids->n = 0;
	if (!ctl_has(args, "raw")) {
		exit_code = parse_ids(args, name, bytes, n, ids);
	} else if (n % sizeof(int32_t) != 0) {
		exit_code = ctl_fail(args, err_expect(&note, ERR_FORMAT, "%s", "int32 ids: a multiple of 4 bytes",
		    "%zu bytes", strcmp(name, "-") == 0 ? "standard input" : name, n), &note);
	} else if (mem_grow((void **)&ids->ids, &ids->cap, n / sizeof(int32_t) + 1, sizeof(*ids->ids)) != 0) {
		exit_code = ctl_fail(args, ENOMEM, NULL);
	} else {
		ids->n = n / sizeof(int32_t);
		memcpy(ids->ids, bytes, n);
	}
	free(bytes);
	return exit_code;
}

static int
decode(struct ctl_args *args)
{
	const char *path = ctl_need(args, "tokenizer");
	struct tokenizer_bytes text = {0};
	struct tokenizer_ids ids = {0};
	struct err_note note = {.name = ""};
	struct tokenizer *tok = NULL;
	int exit_code, rc;

	if (path == NULL || (exit_code = ctl_open_tokenizer(args, path, &tok)) != 0)
		return path == NULL ? EX_USAGE : exit_code;
	for (size_t i = 0; exit_code == 0 && i < n_inputs(args); i++) {
		if ((exit_code = read_ids(args, operand(args, i), &ids)) != 0)
			break;
		text.n = 0;
		rc = tokenizer_decode(tok, ids.ids, ids.n, ctl_has(args, "skip-specials") ?
		    TOKENIZER_SKIP_SPECIALS : 0, &text, &note);
		if (rc != 0)
			exit_code = ctl_fail(args, rc, &note);
		else
			fwrite(text.bytes, 1, text.n, stdout);
	}
	free(text.bytes);
	free(ids.ids);
	tokenizer_destroy(&tok);
	return exit_code;
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

static int
info(struct ctl_args *args)
{
	struct tokenizer *tok = NULL;
	char hex[HASH_HEX_BYTES];
	int32_t eod = -1;
	int exit_code = ctl_open_tokenizer(args, args->operands[0], &tok);

	if (exit_code != 0)
		return exit_code;
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
	.about = "A line of ids for each FILE, or for standard input. Any bytes are accepted, UTF-8 or not.",
	.example = "echo 'Hello, world' | saltctl tokenizer encode --tokenizer share/tokenizer-4k",
	.options = encode_options, .max_operands = CTL_ANY, .run = encode,
};

const struct ctl_verb ctl_tokenizer_decode = {
	.name = "tokenizer decode", .operands = "[FILE ...]", .summary = "token ids to text",
	.about = "Ids as numbers with white space between them, from each FILE or from standard input.",
	.example = "echo 40 41 42 | saltctl tokenizer decode --tokenizer share/tokenizer-4k",
	.options = decode_options, .max_operands = CTL_ANY, .run = decode,
};

const struct ctl_verb ctl_tokenizer_info = {
	.name = "tokenizer info", .operands = "PATH", .summary = "vocabulary, split and fingerprint of a tokenizer",
	.about = "PATH is a tokenizer.json, or a folder that holds one.",
	.example = "saltctl tokenizer info share/tokenizer-4k",
	.options = info_options, .min_operands = 1, .max_operands = 1, .run = info,
};
