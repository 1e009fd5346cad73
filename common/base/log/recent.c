/* SPDX-License-Identifier: Apache-2.0 */
/* recent - keeps the last lines of the log for requests to the status socket. */
#include "base/log/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct { char *text; size_t len; } kept[LOG_KEPT];	/* line i is at i % LOG_KEPT */
static uint64_t n_lines;

void
log__remember(const char *line, size_t len)
{
	char *copy = malloc(len), *old;

	if (copy == NULL)
		return;			/* the line is missing only in log_answer */
	memcpy(copy, line, len);
	pthread_mutex_lock(&lock);
	old = kept[n_lines % LOG_KEPT].text;
	kept[n_lines % LOG_KEPT].text = copy;
	kept[n_lines % LOG_KEPT].len = len;
	n_lines++;
	pthread_mutex_unlock(&lock);
	free(old);
}

/* "log" or "log N". */
static bool
is_request(const void *body, size_t len, uint64_t *from)
{
	char text[32], *end;

	*from = 0;
	if (len < 3 || len >= sizeof(text) || memcmp(body, "log", 3) != 0)
		return false;
	memcpy(text, body, len);
	text[len] = '\0';
	if (len == 3)
		return true;
	if (text[3] != ' ' || text[4] < '0' || text[4] > '9')
		return false;
	errno = 0;
	*from = strtoull(text + 4, &end, 10);
	return errno == 0 && end == text + len;
}

bool
log_answer(const void *body, size_t len, char **answer, size_t *answer_len)
{
	uint64_t from, first;
	size_t size = 128, n;

	if (!is_request(body, len, &from))
		return false;
	pthread_mutex_lock(&lock);
	first = n_lines > LOG_KEPT ? n_lines - LOG_KEPT : 0;
	if (from > first)
		first = from < n_lines ? from : n_lines;
	for (uint64_t i = first; i < n_lines; i++)
		size += kept[i % LOG_KEPT].len;
	if ((*answer = malloc(size)) != NULL) {
		n = (size_t)snprintf(*answer, size, "log pid=%d first=%llu next=%llu\n", (int)getpid(), (unsigned long long)first,
		    (unsigned long long)n_lines);
		for (uint64_t i = first; i < n_lines; i++) {
			memcpy(*answer + n, kept[i % LOG_KEPT].text, kept[i % LOG_KEPT].len);
			n += kept[i % LOG_KEPT].len;
		}
		*answer_len = n;
	}
	pthread_mutex_unlock(&lock);
	return true;
}
