/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

static const char *const err_texts[] = {
	[ERR_NOT_FOUND - ERR_NOT_FOUND] = "not found",
	[ERR_EXISTS - ERR_NOT_FOUND] = "exists already",
	[ERR_CORRUPT - ERR_NOT_FOUND] = "stored data is damaged",
	[ERR_FORMAT - ERR_NOT_FOUND] = "malformed input",
	[ERR_RANGE - ERR_NOT_FOUND] = "value out of range",
	[ERR_VERSION - ERR_NOT_FOUND] = "version not supported",
	[ERR_MISMATCH - ERR_NOT_FOUND] = "identities differ",
	[ERR_CONFIG - ERR_NOT_FOUND] = "bad configuration",
	[ERR_USAGE - ERR_NOT_FOUND] = "wrong usage",
	[ERR_UNSUPPORTED - ERR_NOT_FOUND] = "not supported",
	[ERR_FULL - ERR_NOT_FOUND] = "no space left",
	[ERR_AGAIN - ERR_NOT_FOUND] = "try again later",
	[ERR_TIMEOUT - ERR_NOT_FOUND] = "timed out",
	[ERR_CLOSED - ERR_NOT_FOUND] = "closed",
	[ERR_REFUSED - ERR_NOT_FOUND] = "refused",
	[ERR_NONFINITE - ERR_NOT_FOUND] = "not a finite number",
	[ERR_BUSY - ERR_NOT_FOUND] = "in use by another process",
	[ERR_STOPPED - ERR_NOT_FOUND] = "stopped on request",
	[ERR_LIBRARY - ERR_NOT_FOUND] = "library call failed",
	[ERR_INTERNAL - ERR_NOT_FOUND] = "internal error",
};

_Static_assert(sizeof(err_texts) / sizeof(err_texts[0]) == ERR_END - ERR_NOT_FOUND, "every code has a text");

const char *
err_str(int rc)
{
	static _Thread_local char buf[128];

	if (rc == 0)
		return "ok";
	if (rc >= ERR_NOT_FOUND && rc < ERR_END)
		return err_texts[rc - ERR_NOT_FOUND];
	if (rc > 0)
		return strerror_r(rc, buf, sizeof(buf));
	snprintf(buf, sizeof(buf), "unknown error %d", rc);
	return buf;
}

int
err_exit_code(int rc)
{
	switch (rc) {
	case 0:
		return EX_OK;
	case ERR_USAGE:
		return EX_USAGE;
	case ERR_CORRUPT:
	case ERR_FORMAT:
	case ERR_RANGE:
	case ERR_VERSION:
	case ERR_UNSUPPORTED:
	case ERR_NONFINITE:
		return EX_DATAERR;
	case ERR_NOT_FOUND:
	case ENOENT:
	case ENOTDIR:
	case EISDIR:
		return EX_NOINPUT;
	case ERR_TIMEOUT:
	case ERR_CLOSED:
	case ERR_REFUSED:
	case ERR_BUSY:
	case EADDRINUSE:
	case EADDRNOTAVAIL:
	case ECONNREFUSED:
		return EX_UNAVAILABLE;
	case EEXIST:
	case ERR_EXISTS:
		return EX_CANTCREAT;
	case ERR_FULL:
	case EIO:
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
	case EROFS:
		return EX_IOERR;
	case ERR_AGAIN:
	case ERR_STOPPED:
	case EAGAIN:
	case EINTR:
		return EX_TEMPFAIL;
	case EACCES:
	case EPERM:
		return EX_NOPERM;
	case ERR_CONFIG:
	case ERR_MISMATCH:
		return EX_CONFIG;
	default:
		return rc > 0 ? EX_OSERR : EX_SOFTWARE;
	}
}

#define NOTE_PART(note, part)						\
	do {								\
		va_list ap;						\
		if ((note) == NULL)					\
			break;						\
		va_start(ap, fmt);					\
		vsnprintf((note)->part, sizeof((note)->part), fmt, ap);	\
		va_end(ap);						\
	} while (0)

int
err_note_set(struct err_note *note, int rc, const char *fmt, ...)
{
	if (note != NULL)
		memset(note, 0, sizeof(*note));
	NOTE_PART(note, name);
	return rc;
}

void
err_note_place(struct err_note *note, const char *fmt, ...)
{
	NOTE_PART(note, place);
}

void
err_note_expected(struct err_note *note, const char *fmt, ...)
{
	NOTE_PART(note, expected);
}

void
err_note_found(struct err_note *note, const char *fmt, ...)
{
	NOTE_PART(note, found);
}

int
err_note_within(struct err_note *note, int rc, const char *text)
{
	char name[sizeof(note->name)];

	if (note == NULL)
		return rc;
	snprintf(name, sizeof(name), "%s", note->name);
	snprintf(note->name, sizeof(note->name), "%.40s%s%.150s", text, name[0] != '\0' ? " " : "", name);
	return rc;
}

int
err__expect(struct err_note *note, int rc, const char *fmt, ...)
{
	char text[6000], *at = text, *part[4];
	va_list ap;

	if (note == NULL)
		return rc;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (int i = 0; i < 4; i++)
		part[i] = at != NULL ? strsep(&at, i < 3 ? "\x1f" : "") : "";
	if (part[0][0] != '\0')
		err_note_set(note, rc, "%s", part[0]);
	if (part[1][0] != '\0')
		err_note_place(note, "%s", part[1]);
	err_note_expected(note, "%s", part[2]);
	err_note_found(note, "%s", part[3]);
	return rc;
}

const char *
err_note_str(const struct err_note *note, int rc, char *buf, unsigned long size)
{
	static const struct err_note empty;
	const struct err_note *n = note != NULL ? note : &empty;

	snprintf(buf, size, "%s%s%s%s%s%s%s%s%s%s%s",
	    n->name, n->name[0] ? ": " : "",
	    n->place, n->place[0] ? ": " : "",
	    n->expected[0] ? "expected " : "", n->expected,
	    n->expected[0] && n->found[0] ? ", " : "",
	    n->found[0] ? "found " : "", n->found,
	    n->expected[0] || n->found[0] ? ": " : "",
	    err_str(rc));
	return buf;
}
