/* SPDX-License-Identifier: Apache-2.0 */
#include "trainerd/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "base/file/file.h"
#include "base/log/log.h"

#define HERE_MS 5000
#define ELSEWHERE_MS 100000
#define RETRY_MS 200

struct lock {
	int fd;
	char dir[4096], path[4200];
};

struct holder {
	char host[256], since[64];
	long pid;
};

static void
read_holder(int fd, struct holder *h)
{
	char text[400];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	if (sscanf(text, "%255s %ld %63s", h->host, &h->pid, h->since) != 3)
		*h = (struct holder){.host = "an unknown host", .since = "?"};
}

static void
write_holder(int fd)
{
	char host[256] = "?", text[400], date[32];
	time_t now = time(NULL);
	struct tm tm;
	int rc;

	gethostname(host, sizeof(host) - 1);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
	snprintf(text, sizeof(text), "%s %ld %s\n", host, (long)getpid(), date);
	/* Only messages use the text: on a full disk the lock works without it. */
	if ((rc = ftruncate(fd, 0) != 0 ? errno : file_write_all(fd, text, strlen(text))) != 0)
		log_warn("run.lock", "why=\"%s\"", err_str(rc));
}

/* Whether the holder named in the file runs on this host. */
static bool
is_here(const struct holder *h)
{
	char host[256] = "";

	gethostname(host, sizeof(host) - 1);
	return strcmp(host, h->host) == 0;
}

static int
take(struct lock *l, struct err_note *note)
{
	/*
	 * A lock of the open file: one of the process would be released when another descriptor of the file
	 * is closed.
	 */
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int64_t start = clock_now_ms();
	struct holder other;
	bool said = false;
	int rc;

	if ((rc = file_make_dirs(l->dir, 0777, note)) != 0)
		return rc;
	if ((l->fd = open(l->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666)) < 0)
		return err_note_set(note, errno, "%s", l->path);
	while (fcntl(l->fd, F_OFD_SETLK, &whole) != 0) {
		rc = errno;
		if (rc == EINTR)
			continue;
		if (rc != EAGAIN && rc != EACCES) {
			log_warn("run.lock",
			    "path=%s why=\"%s\" hint=\"no locks on this file system: make sure that only one "
			    "trainer at a time uses run.dir\"",
			    l->path, strerror(rc));
			return 0;
		}
		read_holder(l->fd, &other);
		if (clock_now_ms() - start > (is_here(&other) ? HERE_MS : ELSEWHERE_MS))
			return err_expect(note, ERR_AGAIN, "run.dir %s", "no other trainer in it",
			    "it in use by another trainer on %s, pid %ld, since %s (wait for it, stop it, or "
			    "use another run.dir)",
			    l->dir, other.host, other.pid, other.since);
		if (!said)
			log_info("run.locked", "path=%s host=%s holder=%ld since=%s", l->path, other.host, other.pid, other.since);
		said = true;
		stop_sleep_ms(RETRY_MS);
		if (stop_requested())
			return err_note_set(note, ERR_STOPPED, "waiting for %s", l->path);
	}
	write_holder(l->fd);
	return 0;
}

int
lock_take(struct lock **lock, const char *run_dir, struct err_note *note)
{
	struct lock *l = calloc(1, sizeof(*l));
	int rc;

	*lock = NULL;
	if (l == NULL)
		return ENOMEM;
	snprintf(l->dir, sizeof(l->dir), "%s", run_dir);
	snprintf(l->path, sizeof(l->path), "%s/run.lock", run_dir);
	if ((rc = take(l, note)) == 0)
		*lock = l;
	else
		lock_release(&l);
	return rc;
}

void
lock_release(struct lock **lock)
{
	if (*lock == NULL)
		return;
	if ((*lock)->fd >= 0)
		close((*lock)->fd);
	free(*lock);
	*lock = NULL;
}

int
lock_check(struct lock *l, bool *again, struct err_note *note)
{
	struct stat ours, there;

	*again = fstat(l->fd, &ours) == 0 && (stat(l->path, &there) != 0 || ours.st_ino != there.st_ino || ours.st_dev != there.st_dev);
	if (!*again)
		return 0;
	log_warn("run.removed",
	    "dir=%s hint=\"run.dir was removed, moved or replaced while this run uses it; trainerd creates "
	    "it again\"",
	    l->dir);
	close(l->fd);
	return take(l, note);
}
