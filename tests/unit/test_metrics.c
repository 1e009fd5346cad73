/* SPDX-License-Identifier: Apache-2.0 */
#include "trainerd/metrics.h"

#include <errno.h>
#include <glob.h>
#include <math.h>
#include <stdint.h>
#include <unistd.h>
#include "base/json/json.h"
#include "files.h"

static void
read_text(const char *path, char *buf, size_t size)
{
	buf[slurp(path, buf, size)] = '\0';
}

/* Number of former files beside it. */
static size_t
n_kept(const char *path)
{
	char pattern[100];
	glob_t g;
	size_t n;

	snprintf(pattern, sizeof(pattern), "%s.*", path);
	n = glob(pattern, 0, NULL, &g) == 0 ? g.gl_pathc : 0;
	globfree(&g);
	return n;
}

int
main(void)
{
	char path[] = "/tmp/salt_metrics_XXXXXX", text[4096];
	struct metrics *m = NULL;
	struct err_note note;
	int fd = mkstemp(path);

	REQUIRE(fd >= 0);
	close(fd);
	spill_text(path, "{\"kind\":\"step\",\"step\":1}\n{\"kind\":\"eval\",\"step\":2}\n{\"kind\":\"event\",\"step\":2}\n"
	    "{\"kind\":\"step\",\"step\":3}\n{\"kind\":\"step\",\"step\":2}\n{\"kind\":\"step\",\"step\":1");
	REQUIRE(metrics_open(&m, path, 2, 1, &note) == 0);
	CHECK(metrics_write(m, "step", 3, NULL, 0) == 0);
	CHECK(metrics_write(m, "eval", 3, (struct metrics_field[]){{"loss", json_new_num(NAN)}, {"n", json_new_int(7)}}, 2) == 0);
	CHECK(metrics_write(m, "eval", 3, (struct metrics_field[]){{"loss", NULL}, {"n", json_new_int(7)}}, 2) == ENOMEM);
	CHECK(metrics_sync(m) == 0);
	metrics_close(&m);
	read_text(path, text, sizeof(text));
	CHECK_STR(text, "{\"kind\":\"step\",\"step\":1}\n{\"kind\":\"eval\",\"step\":2}\n{\"kind\":\"step\",\"step\":2}\n"
	    "{\"kind\":\"step\",\"step\":3}\n{\"kind\":\"eval\",\"step\":3,\"loss\":null,\"n\":7}\n");
	CHECK(n_kept(path) == 0);		/* one step is repeated, as after a crash */
	/* If more steps are repeated than a restart explains, the former file is kept under another name. */
	REQUIRE(metrics_open(&m, path, 1, 1, &note) == 0);
	metrics_close(&m);
	read_text(path, text, sizeof(text));
	CHECK_STR(text, "{\"kind\":\"step\",\"step\":1}\n");
	CHECK(n_kept(path) == 1);
	REQUIRE(metrics_open(&m, path, 0, 1, &note) == 0);	/* a new run in the folder of an old one */
	metrics_close(&m);
	read_text(path, text, sizeof(text));
	CHECK_STR(text, "");
	CHECK(n_kept(path) == 2);
	REQUIRE(metrics_open(&m, path, 0, 1, &note) == 0);	/* nothing to keep */
	metrics_close(&m);
	CHECK(n_kept(path) == 2);
	/*
	 * A line that no trainer writes is left out, and kept in the former file. An incomplete last line is
	 * usual after a crash.
	 */
	spill_text(
	    path, "{\"kind\":\"step\",\"step\":1}\nnot json\n{\"kind\":\"step\",\"step\":2}\n{\"kind\":\"st");
	REQUIRE(metrics_open(&m, path, 2, 1, &note) == 0);
	metrics_close(&m);
	read_text(path, text, sizeof(text));
	CHECK_STR(text, "{\"kind\":\"step\",\"step\":1}\n{\"kind\":\"step\",\"step\":2}\n");
	CHECK(n_kept(path) == 3);
	snprintf(text, sizeof(text), "%s/metrics.jsonl", path);		/* below a file */
	CHECK(metrics_open(&m, text, 0, 1, &note) != 0 && m == NULL);
	snprintf(text, sizeof(text), "rm %s*", path);
	CHECK(system(text) == 0);
	return check_done();
}
