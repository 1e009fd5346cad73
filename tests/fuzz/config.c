/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: fleet.yaml, and after a zero byte a --set. It is rejected with a name, or the settings are printed
 * to a file that gives the same settings when it is read.
 */
#include "fabric/config/config.h"

#include "fuzz.h"

static char *
printed(const struct config *cfg, size_t *len)
{
	char *text = NULL;
	FILE *f = open_memstream(&text, len);

	FUZZ_CHECK(f != NULL);
	if (!FUZZ_WORKS(config_print(cfg, f, false))) {
		fclose(f);
		free(text);
		return NULL;
	}
	fclose(f);
	return text;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct config *cfg = NULL, *again = NULL;
	struct err_note note = {0};
	size_t n_first = 0, n_second = 0, set_len, n;
	char *first = NULL, *second = NULL, set[256];
	const char *set_at, *sets[1] = {set};
	int rc;

	n = fuzz_cut(data, len, &set_at, &set_len);
	snprintf(set, sizeof(set), "%.*s", (int)(set_len < 255 ? set_len : 255), set_at != NULL ? set_at : "");
	if ((rc = config_load_text((const char *)data, n, "fuzz", "/fuzz", sets, set_at != NULL, &cfg, &note)) != 0) {
		FUZZ_CHECK(cfg == NULL && (rc == ERR_CONFIG || (fuzz_faults && rc == ENOMEM)));
		FUZZ_REFUSED(rc, note);
		FUZZ_CHECK(note.expected[0] != '\0' || note.found[0] != '\0' || rc == ENOMEM);
		return 0;
	}
	if ((first = printed(cfg, &n_first)) != NULL &&
	    FUZZ_WORKS(config_load_text(first, n_first, "again", "/elsewhere", NULL, 0, &again, &note))) {
		if ((second = printed(again, &n_second)) != NULL)
			FUZZ_CHECK(n_first == n_second && memcmp(first, second, n_first) == 0);
		FUZZ_WORKS(config_identity_diff(cfg, again, &note));
	}
	free(first);
	free(second);
	config_destroy(&cfg);
	config_destroy(&again);
	return 0;
}
