#include "trainerd/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json/json.h"

struct metrics {
	int fd;
};

/* Is this whole line of a step that stays? */
static int
line_stays(const char *line, size_t n, uint64_t step)
{
	struct json *j = NULL;
	const char *kind;
	int64_t at;
	int stays;

	if (json_parse(line, n, "metrics", &j, NULL) != 0)
		return 0;
	stays = json_int(json_get(j, "step"), &at) && at >= 0 && (uint64_t)at <= step &&
	    json_text(json_get(j, "kind"), &kind) && ((uint64_t)at < step || strcmp(kind, "event") != 0);	/* an event comes again */
	json_close(&j);
	return stays;
}

static int
metrics_cut(const char *path, uint64_t step, struct err_note *note)
{
	char temp[4160], *line = NULL;
	FILE *in, *out = NULL;
	size_t cap = 0;
	ssize_t n;
	int rc = 0;

	if ((in = fopen(path, "re")) == NULL)
		return errno == ENOENT ? 0 : err_note_set(note, errno, "%s", path);
	snprintf(temp, sizeof(temp), "%s.tmp", path);
	if ((out = fopen(temp, "we")) == NULL) {
		rc = err_note_set(note, errno, "%s", temp);
		goto out;
	}
	while ((n = getline(&line, &cap, in)) > 0)
		if (step > 0 && line[n - 1] == '\n' && line_stays(line, (size_t)n, step) && fwrite(line, 1, (size_t)n, out) != (size_t)n) {
			rc = err_note_set(note, errno, "%s", temp);
			goto out;
		}
	if (fflush(out) != 0 || fsync(fileno(out)) != 0)
		rc = err_note_set(note, errno, "%s", temp);
out:
	free(line);
	fclose(in);
	if (out != NULL && fclose(out) != 0 && rc == 0)
		rc = err_note_set(note, errno, "%s", temp);
	if (rc == 0 && rename(temp, path) != 0)
		rc = err_note_set(note, errno, "%s", path);
	if (rc != 0)
		unlink(temp);
	return rc;
}

int
metrics_open(struct metrics **m, const char *path, uint64_t step, struct err_note *note)
{
	int rc;

	*m = NULL;
	if ((rc = metrics_cut(path, step, note)) != 0)
		return rc;
	if ((*m = calloc(1, sizeof(**m))) == NULL)
		return ENOMEM;
	if (((*m)->fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666)) < 0) {
		rc = err_note_set(note, errno, "%s", path);
		free(*m);
		*m = NULL;
	}
	return rc;
}

void
metrics_close(struct metrics **m)
{
	if (*m == NULL)
		return;
	close((*m)->fd);
	free(*m);
	*m = NULL;
}

int
metrics_write(struct metrics *m, struct json *line)
{
	char *text = line != NULL ? json_print(line, false) : NULL;
	size_t n;
	int rc = 0;

	json_close(&line);
	if (text == NULL)
		return ENOMEM;
	n = strlen(text);
	text[n] = '\n';			/* in place of the NUL: one write, so a line is never mixed with another */
	if (write(m->fd, text, n + 1) != (ssize_t)(n + 1))
		rc = errno != 0 ? errno : EIO;
	free(text);
	return rc;
}

int
metrics_sync(struct metrics *m)
{
	return fsync(m->fd) == 0 ? 0 : errno;
}
