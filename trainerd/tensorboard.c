/* SPDX-License-Identifier: Apache-2.0 */
#include "trainerd/tensorboard.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file/file.h"
#include "base/hash/hash.h"
#include "fabric/wire/tb_event.h"

#define PREFIX "events.out.tfevents."

struct tensorboard {
	int fd;
	off_t good;				/* whole records end here */
};

static double
now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void
put_le(uint8_t *p, uint64_t v, int bytes)
{
	for (int i = 0; i < bytes; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

static uint32_t
masked_crc(const void *p, size_t n)
{
	uint32_t crc = hash_crc32c(p, n);

	return (crc >> 15 | crc << 17) + 0xa282ead8U;
}

static int
write_event(struct tensorboard *t, const struct tb_event *e)
{
	uint8_t record[12 + TB_EVENT_BYTES_MAX + 4];
	size_t n = tb_event_encode(e, record + 12, TB_EVENT_BYTES_MAX), all = 12 + n + 4;
	int rc;

	if (n == 0)
		return ERR_RANGE;
	put_le(record, n, 8);
	put_le(record + 8, masked_crc(record, 8), 4);
	put_le(record + 12 + n, masked_crc(record + 12, n), 4);
	if ((rc = file_write_all(t->fd, record, all)) == 0)
		t->good += (off_t)all;
	else if (ftruncate(t->fd, t->good) != 0)
		rc = errno;
	return rc;
}

/*
 * The number in a file's name: the time in milliseconds, or more if a file has that number, so that readers see
 * starts in order.
 */
static int64_t
next_number(const char *dir)
{
	int64_t next = (int64_t)(now_s() * 1e3);
	struct dirent *e;
	DIR *d = opendir(dir);

	if (d == NULL)
		return next;
	while ((e = readdir(d)) != NULL)
		if (strncmp(e->d_name, PREFIX, strlen(PREFIX)) == 0) {
			int64_t there = strtoll(e->d_name + strlen(PREFIX), NULL, 10);

			if (there >= next && there < INT64_MAX)
				next = there + 1;
		}
	closedir(d);
	return next;
}

int
tensorboard_open(struct tensorboard **out, const char *dir, uint64_t first_step, struct err_note *note)
{
	struct tensorboard *t = NULL;
	char path[4352], host[64] = "";
	struct tb_event version = {.wall_time = now_s(), .file_version = "brain.Event:2"};
	struct tb_event mark = {.wall_time = now_s(), .step = (int64_t)first_step, .session_start = true};
	int rc;

	*out = NULL;
	if ((rc = file_make_dirs(dir, 0777, note)) != 0)
		return rc;
	if ((t = calloc(1, sizeof(*t))) == NULL)
		return ENOMEM;
	if (gethostname(host, sizeof(host) - 1) != 0 || host[0] == '\0')
		snprintf(host, sizeof(host), "host");
	snprintf(path, sizeof(path), "%s/" PREFIX "%013" PRId64 ".%s", dir, next_number(dir), host);
	if ((t->fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) < 0) {
		rc = err_note_set(note, errno, "%s", path);
	} else if ((rc = write_event(t, &version)) != 0 || (rc = write_event(t, &mark)) != 0) {
		err_note_set(note, rc, "%s", path);
		close(t->fd);
	}
	if (rc != 0)
		free(t);
	else
		*out = t;
	return rc;
}

void
tensorboard_close(struct tensorboard **t)
{
	if (*t == NULL)
		return;
	close((*t)->fd);
	free(*t);
	*t = NULL;
}

int
tensorboard_write(struct tensorboard *t, uint64_t step, const struct tb_scalar *scalars, size_t n)
{
	struct tb_event e = {.wall_time = now_s(), .step = (int64_t)step, .scalars = scalars, .n_scalars = n};

	return write_event(t, &e);
}
