/* SPDX-License-Identifier: Apache-2.0 */
#include "trainerd/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/err/crash.h"
#include "base/file/file.h"
#include "base/json/json.h"
#include "base/log/log.h"

struct metrics {
	int fd;
};

/*
 * *stays: this is a complete line of a step that is kept. *step_after: it is the line of a later step.
 * *other: it is no line of a trainer. 0, also for other text, or ENOMEM.
 */
static int
line_stays(const char *line, size_t n, uint64_t step, bool *stays, bool *step_after, bool *other)
{
	struct json *j = NULL;
	const char *kind;
	int64_t at;
	int rc;

	*stays = *step_after = false;
	*other = true;
	if ((rc = json_parse(line, n, "metrics", &j, NULL)) != 0)
		return rc == ENOMEM ? rc : 0;
	if (json_int(json_get(j, "step"), &at) && at >= 0 && json_text(json_get(j, "kind"), &kind)) {
		*other = false;
		*step_after = (uint64_t)at > step && strcmp(kind, "step") == 0;
		/* An event of this step will be written again. */
		*stays = step > 0 && ((uint64_t)at < step || ((uint64_t)at == step && strcmp(kind, "event") != 0));
	}
	json_close(&j);
	return 0;
}

/*
 * Keeps the file under a second name with the date. n_other: lines that are no trainer's; 0: it has too many
 * later steps.
 */
static int
keep_former(const char *path, uint64_t step, uint64_t n_other, struct err_note *note)
{
	char kept[4300], date[32];
	time_t now = time(NULL);
	struct tm tm;

	strftime(date, sizeof(date), "%Y-%m-%dT%H%M%SZ", gmtime_r(&now, &tm));
	snprintf(kept, sizeof(kept), "%s.%s", path, date);
	for (int i = 1; i < 100 && link(path, kept) != 0; i++) {
		if (errno != EEXIST && (errno == ENOENT || rename(path, kept) != 0))	/* not all file systems have links */
			return err_note_set(note, errno, "%s", kept);
		if (errno != EEXIST)
			break;
		snprintf(kept, sizeof(kept), "%s.%s-%d", path, date, i);
	}
	if (n_other > 0)
		log_warn("metrics.kept",
		    "path=%s step=%" PRIu64 " why=\"%" PRIu64
		    " lines are not a trainer's (damaged?) and were left out\"",
		    kept, step, n_other);
	else
		log_warn("metrics.kept",
		    "path=%s step=%" PRIu64
		    " why=\"the file has steps that will be trained again, from step %" PRIu64 "\"",
		    kept, step, step);
	return 0;
}

static int
metrics_cut(const char *path, uint64_t step, uint64_t usual, struct err_note *note)
{
	struct file_replace out;
	uint64_t removed = 0, n_other = 0;
	bool stays, step_after, other;
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;
	FILE *in;
	int rc;

	if ((in = fopen(path, "re")) == NULL)
		return errno == ENOENT ? 0 : err_note_set(note, errno, "%s", path);
	if ((rc = file_replace_begin(&out, path, note)) != 0)
		goto out;
	while (rc == 0 && (n = getline(&line, &cap, in)) > 0) {
		stays = step_after = other = false;
		if (line[n - 1] == '\n' &&
		    (rc = line_stays(line, (size_t)n, step, &stays, &step_after, &other)) != 0)
			err_note_set(note, rc, "%s", path);
		else if (stays)
			fwrite(line, 1, (size_t)n, out.f);
		else if (step == 0 || step_after)
			removed++;
		n_other += other;
	}
	if (rc == 0 && ferror(in))
		rc = err_note_set(note, errno, "%s", path);
	else if (rc == 0 && (removed > (step > 0 ? usual : 0) || n_other > 0))
		rc = keep_former(path, step, n_other, note);
	if (rc != 0)
		file_replace_abort(&out);
	else
		rc = file_replace_end(&out, true, note);
	crash_point("metrics.cut");
out:
	free(line);
	fclose(in);
	return rc;
}

int
metrics_open(struct metrics **m, const char *path, uint64_t step, uint64_t usual, struct err_note *note)
{
	int rc;

	*m = NULL;
	if ((rc = metrics_cut(path, step, usual, note)) != 0)
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
metrics_write(struct metrics *m, const char *kind, uint64_t step, const struct metrics_field *fields, size_t n)
{
	struct json *line = json_build("{s:s, s:I}", "kind", kind, "step", (long long)step);
	int rc = line != NULL ? 0 : ENOMEM;
	char *text = NULL;
	size_t len;

	for (size_t i = 0; i < n; i++) {
		struct json *value = fields[i].value;

		if (rc == 0)
			rc = json_put(line, fields[i].name, value);
		else
			json_close(&value);
	}
	if (rc == 0 && (text = json_print(line, false)) == NULL)
		rc = ENOMEM;
	if (rc == 0) {
		len = strlen(text);
		text[len] = '\n';		/* in place of the NUL: one write a line */
		rc = file_write_all(m->fd, text, len + 1);
	}
	json_close(&line);
	free(text);
	return rc;
}

int
metrics_sync(struct metrics *m)
{
	return fsync(m->fd) == 0 ? 0 : errno;
}
