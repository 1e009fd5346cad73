/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_fuzz_config [N [SEED]] - the corpus (tests/golden/config/ *.in) and N seeded mutations of it. Whatever comes in: an error that names
 * something, or settings that print to a file which reads back to the same settings.
 */
#include <dirent.h>
#include "fabric/config/config.h"
#include "fuzz.h"

#define CORPUS "tests/golden/config"
enum { FILES_MAX = 512, BYTES_MAX = 8192 };

static struct { char *text; size_t len; } corpus[FILES_MAX];
static size_t n_corpus, n_good;

static size_t
chance(size_t below)
{
	return fuzz_u32() % below;
}

static void
load_corpus(void)
{
	DIR *dir = opendir(CORPUS);
	struct dirent *e;

	REQUIRE(dir != NULL);
	while ((e = readdir(dir)) != NULL && n_corpus < FILES_MAX) {
		char path[600];
		size_t len = strlen(e->d_name);
		FILE *f;

		if (len < 4 || strcmp(e->d_name + len - 3, ".in") != 0)
			continue;
		snprintf(path, sizeof(path), CORPUS "/%s", e->d_name);
		REQUIRE((f = fopen(path, "rb")) != NULL);
		REQUIRE((corpus[n_corpus].text = malloc(BYTES_MAX)) != NULL);
		corpus[n_corpus].len = fread(corpus[n_corpus].text, 1, BYTES_MAX / 2, f);
		n_corpus++;
		fclose(f);
	}
	closedir(dir);
	REQUIRE(n_corpus > 0);
}

static char *
printed(const struct config *cfg, size_t *len)
{
	char *text = NULL;
	FILE *f = open_memstream(&text, len);

	REQUIRE(f != NULL && config_print(cfg, f, false) == 0);
	fclose(f);
	return text;
}

static void
one(const char *text, size_t len, const char *set)
{
	struct config *cfg = NULL, *again = NULL;
	struct err_note note = { 0 };
	size_t n_first = 0, n_second = 0;
	char *first, *second;
	int rc;

	rc = config_load_text(text, len, "fuzz", "/fuzz", &set, set != NULL, &cfg, &note);
	if (rc != 0) {
		CHECK(cfg == NULL && rc == ERR_CONFIG);
		CHECK(note.name[0] != '\0' && (note.expected[0] != '\0' || note.found[0] != '\0'));
		return;
	}
	n_good++;
	first = printed(cfg, &n_first);
	rc = config_load_text(first, n_first, "fuzz", "/elsewhere", NULL, 0, &again, &note);
	CHECK(rc == 0);
	if (rc == 0) {
		second = printed(again, &n_second);
		CHECK(n_first == n_second && memcmp(first, second, n_first) == 0);
		CHECK(config_identity_diff(cfg, again, &note) == 0);
		free(second);
	}
	free(first);
	config_destroy(&cfg);
	config_destroy(&again);
}

/* A few edits of one file, with pieces of another; len stays at most BYTES_MAX. */
static size_t
mutate(char *buf)
{
	static const char *const words[] = { ":", ": ", "[", "]", "{", "}", "\n", "  ", "&a ", "*a", "!!str ", "---\n", "...\n", "\"", "'", "|\n", ">\n",
	    "0", "-1", "18446744073709551616", "1e308", ".nan", "\xEF\xBB\xBF", "\xC2\x85", "\xE2\x80\xA8", "\\0", "#", "%YAML 1.1\n", "? ", "<<: ",
	    "~", "null", ",", "TiB", "tcp://127.0.0.1:1" };
	size_t at = chance(n_corpus), len = corpus[at].len;

	memcpy(buf, corpus[at].text, len);
	for (uint32_t edits = 1 + chance(4); edits > 0; edits--) {
		size_t from = chance(len + 1), n;
		const char *word;

		switch (chance(5)) {
		case 0:						/* flip */
			if (from < len)
				buf[from] ^= (char)(1u << chance(8));
			break;
		case 1:						/* cut */
			n = chance(16);
			n = n > len - from ? len - from : n;
			memmove(buf + from, buf + from + n, len - from - n);
			len -= n;
			break;
		case 2:						/* end here */
			len = chance(8) == 0 ? from : len;
			break;
		case 3:						/* a word of YAML */
			word = words[chance(sizeof(words) / sizeof(words[0]))];
			n = strlen(word);
			if (len + n <= BYTES_MAX) {
				memmove(buf + from + n, buf + from, len - from);
				memcpy(buf + from, word, n);
				len += n;
			}
			break;
		default:					/* the end of another file */
			at = chance(n_corpus);
			n = chance(corpus[at].len + 1);
			if (from + corpus[at].len - n <= BYTES_MAX) {
				memcpy(buf + from, corpus[at].text + n, corpus[at].len - n);
				len = from + corpus[at].len - n;
			}
		}
	}
	return len;
}

int
main(int argc, char **argv)
{
	unsigned long n = argc > 1 ? strtoul(argv[1], NULL, 10) : 20000;
	char *buf = malloc(BYTES_MAX), set[64];

	REQUIRE(buf != NULL);
	fuzz_seed(argc > 2 ? strtoull(argv[2], NULL, 10) : 1);
	load_corpus();
	for (size_t i = 0; i < n_corpus; i++)
		one(corpus[i].text, corpus[i].len, NULL);
	for (unsigned long i = 0; i < n; i++) {
		size_t len = mutate(buf);
		char *exact = malloc(len > 0 ? len : 1);	/* a byte read past the end is seen by the sanitizer */

		REQUIRE(exact != NULL);
		memcpy(exact, buf, len);
		snprintf(set, sizeof(set), "%.*s", (int)chance(60), buf);
		one(exact, len, chance(4) == 0 ? set : NULL);
		free(exact);
	}
	fprintf(stderr, "%zu of them were good files\n", n_good);
	CHECK(n_good > n / 100);			/* else the mutations only test the scanner */
	free(buf);
	for (size_t i = 0; i < n_corpus; i++)
		free(corpus[i].text);
	return check_done();
}
