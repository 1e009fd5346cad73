/* SPDX-License-Identifier: Apache-2.0 */
/* escape - makes text from peers and files safe for terminals and logs; limits the rate of log lines. */
#include "base/log/log.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* The length of the UTF-8 character at p[0 .. n) (Unicode 15, table 3-7), 0 if invalid; *c: code point. */
static size_t
character(const unsigned char *p, size_t n, uint32_t *c)
{
	static const struct { unsigned char first, last, low, high; size_t bytes; } rows[] = {
		{0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3},
		{0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
	};

	*c = p[0];
	if (p[0] < 0x80)
		return 1;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		size_t k = 1;

		if (p[0] < rows[i].first || p[0] > rows[i].last)
			continue;
		if (n < rows[i].bytes || p[1] < rows[i].low || p[1] > rows[i].high)
			return 0;
		*c = p[0] & (0x7fu >> rows[i].bytes);
		for (*c = *c << 6 | (p[1] & 0x3fu); ++k < rows[i].bytes; *c = *c << 6 | (p[k] & 0x3fu))
			if ((p[k] & 0xc0) != 0x80)
				return 0;
		return rows[i].bytes;
	}
	return 0;
}

/* Control characters, characters that reorder or break a line, and the byte order mark. */
static bool
harmful(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x200e && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
	    (c >= 0x2066 && c <= 0x2069) || c == 0xfeff || c == 0x61c;
}

size_t
log_escape(const char *text, size_t len, char *out, size_t size)
{
	const unsigned char *p = (const unsigned char *)text, *end = p + len;
	size_t at = 0;

	if (size == 0)
		return 0;
	while (p < end) {
		uint32_t c;
		size_t n = character(p, (size_t)(end - p), &c);

		if (n > 0 && !harmful(c)) {
			if (at + n >= size)
				break;
			memcpy(out + at, p, n);
			at += n;
			p += n;
			continue;
		}
		for (n = n > 0 ? n : 1; n > 0 && at + 4 < size; n--)
			at += (size_t)snprintf(out + at, size - at, "\\x%02x", *p++);
		if (n > 0)
			break;
	}
	out[at] = '\0';
	return at;
}

bool
log_limited(struct log_limit *l, unsigned long *left_out)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct timespec now;
	bool may;

	clock_gettime(CLOCK_MONOTONIC, &now);
	pthread_mutex_lock(&lock);
	if (l->n == 0 || now.tv_sec - l->since_s >= LOG_LIMIT_S) {
		l->since_s = now.tv_sec;
		l->n = 0;
	}
	may = l->n < LOG_LIMIT_LINES;
	l->n++;
	*left_out = l->left_out;
	l->left_out = may ? 0 : l->left_out + 1;
	pthread_mutex_unlock(&lock);
	return may;
}
