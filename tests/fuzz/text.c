/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: text of any kind. Byte 0: the name of the file (bits 0 to 2); --text or --jsonl, or the file in a
 * folder (3, 4); --skip-bad-lines (5); how documents are split (6, 7). If the text can be read to its end,
 * the counters agree with its one file. If the strict JSON parser accepts it, json_scan gives the same
 * result; json_scan never accepts a truncated object.
 */
#include "data/text/text.h"

#include "base/json/json.h"
#include "fuzz.h"

static void
compare_scan(const char *p, size_t len)
{
	struct json_scan s = {.text = NULL};
	struct json *root = NULL;
	const char *text;
	size_t used;
	int rc = json_scan(&s, p, len, "text");

	if (rc == 0) {
		FUZZ_CHECK(s.used > 0 && s.used <= len && p[s.used - 1] == '}');
		used = s.used;
		FUZZ_CHECK(json_scan(&s, p, used - 1, "text") == ERR_AGAIN || fuzz_faults);
	}
	if (rc != ENOMEM && json_parse(p, len, "x", &root, NULL) == 0 && json_kind(root) == JSON_KIND_OBJECT &&
	    memcmp(p, "\xef\xbb\xbf", len < 3 ? len : 3) != 0) {
		FUZZ_CHECK(rc == 0 || fuzz_faults);
		if (rc == 0 && json_text(json_get(root, "text"), &text)) {
			if (json_scan(&s, p, len, "text") == 0)
				FUZZ_CHECK(s.found && s.kind == JSON_KIND_TEXT && s.n_replaced == 0 && s.n_text == strlen(text) &&
				    memcmp(s.text, text, s.n_text) == 0);
		} else if (rc == 0) {
			FUZZ_CHECK(!s.found || s.kind != JSON_KIND_TEXT);
		}
	}
	json_close(&root);
	json_scan_free(&s);
}

/* Makes other files in the folder, which must be ignored. */
static void
start(void)
{
	char path[128];

	fuzz_file(".hidden", "a", 1);
	fuzz_file("other", "b", 1);
	snprintf(path, sizeof(path), "%s/x.d", fuzz_dir());
	FUZZ_CHECK(mkdir(path, 0777) == 0);
	snprintf(path, sizeof(path), "%s/x.link", fuzz_dir());
	FUZZ_CHECK(symlink("x.d", path) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const char *const names[8] = {"x", "x.json", "x.jsonl", "x.gz", "x.bz2", "x.xz", "x.jsonl.zst", "x.npy"};
	struct text_options o = {.mark = "--", .field = "text", .only = "x*"};
	struct err_note note = {0};
	struct text_place place;
	const unsigned char *doc;
	const char *path;
	uint64_t n_docs = 0;
	struct text *t;
	bool in_folder;
	char copy[192];
	size_t n;
	int rc;

	if (len < 1)
		return 0;
	if (fuzz_dir_path[0] == '\0')
		start();
	in_folder = (data[0] >> 3 & 3) == 3;
	o.form = in_folder ? TEXT_FORM_AUTO : data[0] >> 3 & 3;
	o.skip_bad = data[0] >> 5 & 1;
	o.split = data[0] >> 6 & 3;
	snprintf(copy, sizeof(copy), "%s", fuzz_file(names[data[0] & 7], data + 1, len - 1));
	path = in_folder ? fuzz_dir() : copy;
	if ((rc = text_open(&t, &path, 1, &o, &note)) != 0) {
		FUZZ_REFUSED(rc, note);
		FUZZ_CHECK(fuzz_faults);
		return 0;
	}
	while ((rc = text_next(t, &doc, &n, &place, &note)) == 0 && n_docs < 100000) {
		FUZZ_CHECK(n > 0 && doc[0] + doc[n - 1] >= 0 && place.line > 0 && strcmp(place.name, copy) == 0);
		n_docs++;
	}
	if (rc == ERR_NOT_FOUND) {
		uint64_t n_out = text_tally(t, TEXT_TALLY_NOT_TEXT)->n + text_tally(t, TEXT_TALLY_NO_FIELD)->n;

		FUZZ_CHECK(text_tally(t, TEXT_TALLY_PLAIN)->n + text_tally(t, TEXT_TALLY_JSON)->n + n_out == 1);
		FUZZ_CHECK(n_out == 0 || in_folder);
		FUZZ_CHECK(text_n_files(t) == 1 && text_tally(t, TEXT_TALLY_HIDDEN)->n == in_folder &&
		    text_tally(t, TEXT_TALLY_NOT_ONLY)->n == in_folder && text_tally(t, TEXT_TALLY_NO_FILE)->n == in_folder);
		FUZZ_CHECK(text_tally(t, TEXT_TALLY_NO_DOCUMENT)->n == (n_docs == 0 && n_out == 0));
		FUZZ_CHECK(n_out > 0 || (text_read_bytes(t) == len - 1 && text_total_bytes(t) == len - 1));
	} else if (rc != 0) {
		FUZZ_REFUSED(rc, note);
	}
	text_close(&t);
	text_close(&t);		/* NULL now */
	unlink(copy);
	compare_scan((const char *)data + 1, len - 1);
	return 0;
}
