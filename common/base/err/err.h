/* SPDX-License-Identifier: Apache-2.0 */
/*
 * err - one integer for every failure: 0 for success, > 0 an errno, < 0 one of the codes below. Codes of
 * libraries are translated where the library is called.
 */
#ifndef SALT_ERR_H
#define SALT_ERR_H

enum err_code {
	ERR_NOT_FOUND = -1000,		/* no such key, file entry, tensor, message */
	ERR_EXISTS,			/* exists already */
	ERR_CORRUPT,			/* a checksum or an invariant of stored data is wrong */
	ERR_FORMAT,			/* input does not follow its format */
	ERR_RANGE,			/* a value outside its range */
	ERR_VERSION,			/* an unknown version of a format or protocol */
	ERR_MISMATCH,			/* two identities differ that must be equal */
	ERR_CONFIG,			/* fleet.yaml or a command line option */
	ERR_USAGE,			/* command line used wrongly */
	ERR_UNSUPPORTED,		/* valid, but not supported by this build */
	ERR_FULL,			/* a queue, map or disk is full */
	ERR_AGAIN,			/* the same call may succeed later */
	ERR_TIMEOUT,			/* did not happen in time */
	ERR_CLOSED,			/* the peer or the object is closed */
	ERR_REFUSED,			/* the peer refused */
	ERR_NONFINITE,			/* NaN or infinity instead of a number */
	ERR_BUSY,			/* in use by another process */
	ERR_STOPPED,			/* stopped by a signal before the end */
	ERR_LIBRARY,			/* a library failed without a better code */
	ERR_INTERNAL,			/* a broken invariant of this program */
	ERR_END				/* one past the last; not a code */
};

/* What a user needs to correct an error. Parsers and loaders fill it; the error's handler prints it. */
struct err_note {
	char name[192];			/* the thing: a file, a key, a tensor */
	char place[320];		/* where in it: line, byte offset */
	char expected[320];
	char found[320];
};

/* err_str - text for any code, never NULL; static storage (errno texts: per thread). */
const char *err_str(int rc);

/*
 * err_exit_code - the sysexits.h code for rc: 0 for 0; 64 usage, 65 data, 66 no input, 69 unavailable, 70
 * internal, 71 system, 73 cannot create, 74 I/O, 75 try again, 77 permission, 78 configuration.
 */
int err_exit_code(int rc);

/*
 * err_note_set - starts a note with its name. Returns rc, so that `return err_note_set(...)` works.
 * err_note_place, _expected, _found - add a part. All do nothing if note is NULL. Long text is cut.
 */
int err_note_set(struct err_note *note, int rc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void err_note_place(struct err_note *note, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void err_note_expected(struct err_note *note, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void err_note_found(struct err_note *note, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* err_note_within - puts text before the name, for example the option that named a file. Returns rc. */
int err_note_within(struct err_note *note, int rc, const char *text);

/*
 * err_expect - sets name, expected and found in one call. The parts are printf formats (string literals);
 * their arguments follow in order. Returns rc.
 *	return err_expect(note, ERR_RANGE, "trainer.lanes", "a power of two", "%d", lanes);
 *	return err_expect(note, ERR_RANGE, "%s", "at most %d bytes", "%zu", path, max, len);
 * err_expect_at - the same with a place: err_expect_at(note, rc, name, place, expected, found, arguments
 * ...). A part "" is left empty; name "" keeps the note's name and place.
 */
#define err_expect(note, rc, name, expected, ...) err__expect(note, rc, name "\x1f\x1f" expected "\x1f" __VA_ARGS__)
#define err_expect_at(note, rc, name, place, expected, ...) \
	err__expect(note, rc, name "\x1f" place "\x1f" expected "\x1f" __VA_ARGS__)
int err__expect(struct err_note *note, int rc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/*
 * err_note_str - writes "NAME: PLACE: expected EXPECTED, found FOUND: TEXT" into buf, where TEXT is
 * err_str(rc); empty parts are left out. @note may be NULL or empty: then only TEXT. At most size bytes with
 * the NUL. Returns buf.
 */
const char *err_note_str(const struct err_note *note, int rc, char *buf, unsigned long size);

#endif
