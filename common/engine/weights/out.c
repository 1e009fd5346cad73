/* SPDX-License-Identifier: Apache-2.0 */
/* out - a file being written: buffered, hashed on the way, synced at the end; no overwriting, no retries */
#include "engine/weights/weights_internal.h"
#include "base/err/crash.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int
step_note(struct err_note *note, int rc, const char *path, const char *step)
{
	err_note_set(note, rc, "%s", path);
	err_note_place(note, "%s", step);
	return rc;
}

/* Closes and frees. Returns the result of close, which callers may ignore. */
static int
release(struct weights__out *o)
{
	int rc = 0;

	if (o->fd >= 0 && close(o->fd) != 0)
		rc = errno;
	o->fd = -1;
	hash_destroy(&o->hash);
	free(o->buf);
	o->buf = NULL;
	return rc;
}

int
weights__out_open(struct weights__out *o, const char *dir, const char *name, struct err_note *note)
{
	memset(o, 0, sizeof(*o));
	o->fd = -1;
	if (!weights__file_name(name) || (size_t)snprintf(o->path, sizeof(o->path), "%s/%s", dir, name) >= sizeof(o->path))
		return step_note(note, ENAMETOOLONG, dir, "create");
	snprintf(o->file.name, sizeof(o->file.name), "%s", name);
	if ((o->hash = hash_new()) == NULL || (o->buf = malloc(WEIGHTS__OUT_BYTES)) == NULL) {
		release(o);
		return step_note(note, ENOMEM, o->path, "create");
	}
	if ((o->fd = open(o->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) < 0) {
		int rc = errno;

		release(o);
		return step_note(note, rc, o->path, "create");
	}
	return 0;
}

static int
write_all(struct weights__out *o, const unsigned char *p, size_t n, struct err_note *note)
{
	for (size_t at = 0; at < n; ) {
		ssize_t k = write(o->fd, p + at, n - at);

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0) {
			int rc = k < 0 ? errno : EIO;

			err_note_set(note, rc, "%s", o->path);
			err_note_place(note, "write at byte %" PRIu64, o->file.size_bytes + at);
			return rc;
		}
		at += (size_t)k;
	}
	hash_update(o->hash, p, n);
	o->file.size_bytes += n;
	return 0;
}

static int
flush(struct weights__out *o, struct err_note *note)
{
	size_t n = o->n_buf;

	o->n_buf = 0;
	return n > 0 ? write_all(o, o->buf, n, note) : 0;
}

int
weights__out_put(struct weights__out *o, const void *p, size_t n, struct err_note *note)
{
	int rc;

	if (n >= WEIGHTS__OUT_BYTES)
		return (rc = flush(o, note)) != 0 ? rc : write_all(o, p, n, note);
	if (n > WEIGHTS__OUT_BYTES - o->n_buf && (rc = flush(o, note)) != 0)
		return rc;
	memcpy(o->buf + o->n_buf, p, n);
	o->n_buf += n;
	return 0;
}

int
weights__out_close(struct weights__out *o, struct err_note *note)
{
	int rc;

	if ((rc = flush(o, note)) != 0)
		return rc;
	crash_point("weights.written");
	if (fsync(o->fd) != 0)
		return step_note(note, errno, o->path, "fsync");
	o->file.hash = hash_digest(o->hash);
	if ((rc = release(o)) != 0)
		return step_note(note, rc, o->path, "close");
	return 0;
}

void
weights__out_drop(struct weights__out *o)
{
	if (o->fd < 0)
		return;
	release(o);
	unlink(o->path);
}

int
weights_file_write(const char *dir, const char *name, const void *p, size_t n, struct weights_file *out, struct err_note *note)
{
	struct weights__out o;
	int rc;

	if ((rc = weights__out_open(&o, dir, name, note)) != 0)
		return rc;
	if ((rc = weights__out_put(&o, p, n, note)) == 0 && (rc = weights__out_close(&o, note)) == 0 && out != NULL)
		*out = o.file;
	if (rc != 0)
		weights__out_drop(&o);
	return rc;
}

int
weights_file_copy(const char *dir, const char *name, const char *from, struct weights_file *out, struct err_note *note)
{
	struct weights__out o;
	unsigned char buf[65536];
	int fd, rc;

	if ((fd = open(from, O_RDONLY | O_CLOEXEC)) < 0)
		return step_note(note, errno, from, "open");
	if ((rc = weights__out_open(&o, dir, name, note)) != 0) {
		close(fd);
		return rc;
	}
	for (;;) {
		ssize_t n = read(fd, buf, sizeof(buf));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			rc = step_note(note, errno, from, "read");
		if (n <= 0)
			break;
		if ((rc = weights__out_put(&o, buf, (size_t)n, note)) != 0)
			break;
	}
	if (rc == 0 && (rc = weights__out_close(&o, note)) == 0 && out != NULL)
		*out = o.file;
	if (rc != 0)
		weights__out_drop(&o);
	close(fd);
	return rc;
}
