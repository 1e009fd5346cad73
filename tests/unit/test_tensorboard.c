/* SPDX-License-Identifier: Apache-2.0 */
/* Cases that system/tensorboard does not test: failed writes, and file names after the clock was set back. */
#include "trainerd/tensorboard.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "fabric/wire/tb_event.h"

static char dir[] = "/tmp/salt_tensorboard_XXXXXX";

/* Finds the last file by name and returns its size. */
static long
last_file(char *name, size_t size)
{
	struct dirent **list;
	struct stat st = {0};
	char path[512];
	int n = scandir(dir, &list, NULL, alphasort);

	REQUIRE(n > 2);
	snprintf(name, size, "%s", list[n - 1]->d_name);
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	REQUIRE(stat(path, &st) == 0);
	while (n > 0)
		free(list[--n]);
	free(list);
	return (long)st.st_size;
}

static void
limit(long bytes)
{
	struct rlimit l;

	REQUIRE(getrlimit(RLIMIT_FSIZE, &l) == 0);
	l.rlim_cur = bytes < 0 ? l.rlim_max : (rlim_t)bytes;
	REQUIRE(setrlimit(RLIMIT_FSIZE, &l) == 0);
}

/* A record is in the file completely or not at all, however much space there is. */
static void
failed_writes(void)
{
	const struct tb_scalar one = {"train/loss", 1.5f};
	struct tb_scalar many[TB_SCALARS_MAX + 1];
	struct tensorboard *t = NULL;
	struct err_note note = {.name = ""};
	char name[256];
	long opened, record;

	REQUIRE(tensorboard_open(&t, dir, 5, &note) == 0);
	opened = last_file(name, sizeof(name));
	CHECK(tensorboard_write(t, 5, &one, 1) == 0);
	record = last_file(name, sizeof(name)) - opened;
	CHECK(record > 16);
	limit(opened + record + 7);
	CHECK(tensorboard_write(t, 6, &one, 1) != 0);
	CHECK(last_file(name, sizeof(name)) == opened + record);
	limit(opened + record);
	CHECK(tensorboard_write(t, 6, &one, 1) == EFBIG);
	CHECK(last_file(name, sizeof(name)) == opened + record);
	limit(-1);
	for (size_t i = 0; i < TB_SCALARS_MAX + 1; i++)
		many[i] = one;
	CHECK(tensorboard_write(t, 6, many, TB_SCALARS_MAX + 1) == ERR_RANGE);
	CHECK(tensorboard_write(t, 6, many, TB_SCALARS_MAX) == 0);
	CHECK(last_file(name, sizeof(name)) > opened + record + TB_SCALARS_MAX * 10);
	tensorboard_close(&t);
	CHECK(t == NULL);
}

/* The file of a new start sorts after those of earlier starts, also if the clock was set back in between. */
static void
names(void)
{
	static const char later[] = "events.out.tfevents.9000000000000.earlier";
	struct tensorboard *t = NULL;
	struct err_note note = {.name = ""};
	char path[512], first[256], second[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, later);
	REQUIRE((f = fopen(path, "w")) != NULL && fclose(f) == 0);
	for (int i = 0; i < 2; i++) {
		REQUIRE(tensorboard_open(&t, dir, 0, &note) == 0);
		tensorboard_close(&t);
		last_file(i == 0 ? first : second, sizeof(first));
	}
	CHECK(strcmp(first, later) > 0);
	CHECK(strcmp(second, first) > 0);
	CHECK(tensorboard_open(&t, path, 0, &note) != 0 && t == NULL);	/* a file in the place of the folder */
	CHECK(strstr(note.name, later) != NULL);
}

int
main(void)
{
	char command[128];

	signal(SIGXFSZ, SIG_IGN);
	REQUIRE(mkdtemp(dir) != NULL);
	failed_writes();
	names();
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	CHECK(system(command) == 0);
	return check_done();
}
