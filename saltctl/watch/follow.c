/* SPDX-License-Identifier: Apache-2.0 */
#include "saltctl/watch/follow.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "saltctl/core/output.h"
#include "base/clock/stop.h"
#include "base/json/json.h"
#include "base/log/log.h"

void
follow_add(struct follow *f, const char *name, const char *text, size_t len, char last_ts[32])
{
	struct follow_line *l = ctl_add(f->lines, f->n, f->cap);
	size_t n;

	l->text = ctl_strndup(text, len);
	if (strncmp(l->text, "ts=", 3) == 0 && (n = strcspn(l->text + 3, " ")) > 0 && n < sizeof(l->ts)) {
		memcpy(last_ts, l->text + 3, n);
		last_ts[n] = '\0';
	}
	snprintf(l->ts, sizeof(l->ts), "%s", last_ts);
	snprintf(l->name, sizeof(l->name), "%s", name);
	l->number = f->n_all++;
}

static int
earlier(const void *a, const void *b)
{
	const struct follow_line *x = a, *y = b;
	int by_time = strcmp(x->ts, y->ts);	/* one format in UTC, so texts sort like times */

	return by_time != 0 ? by_time : x->number < y->number ? -1 : 1;
}

static void
print_line(const struct follow *f, const struct follow_line *l)
{
	struct json *o;
	char *text;

	if (!f->json) {			/* JSON escapes control characters itself */
		size_t size = 4 * (strlen(l->name) + strlen(l->text)) + 2, n;

		text = ctl_alloc(size, 1);
		n = log_escape(l->name, strlen(l->name), text, size) + 1;
		log_escape(l->text, strlen(l->text), text + n, size - n);
		printf("%-*s | %s\n", (int)f->widest, text, text + n);
		free(text);
		return;
	}
	o = ctl_record(CTL("daemon", l->name), CTL("line", l->text));
	if ((text = json_print(o, false)) != NULL)
		puts(text);
	free(text);
	json_close(&o);
}

/*
 * Waits until standard output can be written. False: a stop was requested before. Without this wait, write(2)
 * to a pipe that nobody reads would block in spite of a stop signal.
 */
static bool
wait_for_reader(void)
{
	struct pollfd p[] = {{.fd = STDOUT_FILENO, .events = POLLOUT}, {.fd = stop_fd(), .events = POLLIN}};

	while (poll(p, 2, -1) < 0)
		if (errno != EINTR)
			return true;
	return p[0].revents != 0;
}

void
follow_print(struct follow *f)
{
	bool read = true;

	if (f->n > 0)
		qsort(f->lines, f->n, sizeof(*f->lines), earlier);
	for (size_t i = 0; i < f->n; i++)
		if (strlen(f->lines[i].name) > f->widest)
			f->widest = strlen(f->lines[i].name);
	for (size_t i = 0; i < f->n; i++) {
		if (read && (read = wait_for_reader())) {
			print_line(f, &f->lines[i]);
			fflush(stdout);
		}
		free(f->lines[i].text);
	}
	f->n = 0;
}

void
follow_clear(struct follow *f)
{
	for (size_t i = 0; i < f->n; i++)
		free(f->lines[i].text);
	free(f->lines);
	*f = (struct follow){.n = 0};
}

bool
follow_wanted(const char *name, const char *const *operands, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		size_t len = strlen(operands[i]);

		if (strncmp(name, operands[i], len) == 0 && (name[len] == '\0' || name[len] == '-'))
			return true;
	}
	return n == 0;
}
