/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/bus/bus_internal.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include "base/err/crash.h"
#include "base/file/file.h"
#include "base/hash/hash.h"

/*
 * A key file is text: a line "role=teacher", one with "public=" and 40 characters of Z85, and in NAME.key
 * also one with "secret=" and 40 characters; '#' begins a comment line. Valid: the role is known, the keys
 * have 40 characters.
 */
enum { KEY_FILE_MAX = 1024, KEYS_MAX = 4096 };

static bool
name_ok(const char *name)
{
	size_t n = strlen(name);

	if (n == 0 || n >= BUS_KEY_NAME_MAX || name[0] == '.')
		return false;
	for (; *name != 0; name++)
		if (!isalnum((unsigned char)*name) && strchr("._-", *name) == NULL)
			return false;
	return true;
}

static void
key_line(char *line, struct bus_key *key)
{
	char *value = strchr(line, '=');

	if (line[0] == '#' || value == NULL)
		return;
	*value++ = 0;
	if (strcmp(line, "role") == 0)
		key->role = bus__role_from_name(value);
	else if (strcmp(line, "public") == 0 && strlen(value) == BUS_KEY_BYTES - 1)
		strcpy(key->public_key, value);
	else if (strcmp(line, "secret") == 0 && strlen(value) == BUS_KEY_BYTES - 1)
		strcpy(key->secret_key, value);
}

static bool
z85_ok(const char *text)
{
	uint8_t raw[32];

	return strlen(text) == BUS_KEY_BYTES - 1 && zmq_z85_decode(raw, text) != NULL;
}

/* Whether the file is on a read-only file system. Kubernetes mounts secrets that way, with mode 1777. */
static bool
file_read_only(int fd)
{
	struct statvfs fs;

	return fstatvfs(fd, &fs) == 0 && (fs.f_flag & ST_RDONLY) != 0;
}

int
bus__keys_check_dir(const char *dir, struct err_note *note)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0)
		rc = err_note_set(note, errno, "security.curve_dir %s", dir);
	else if ((st.st_mode & 022) != 0 && !file_read_only(fd))
		rc = err_expect(note, EACCES, "security.curve_dir %s",
		    "a folder that only its owner may change, since its .pub files are the accepted keys (chmod go-w)", "mode %04o", dir,
		    (unsigned)st.st_mode & 07777u);
	if (fd >= 0)
		close(fd);
	return rc;
}

static int
key_read(const char *path, bool secret, struct bus_key *out, struct err_note *note)
{
	char text[KEY_FILE_MAX + 1], *line, *rest = NULL;
	struct stat st;
	ssize_t n;
	int fd, rc = 0;

	if ((fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)) < 0)
		return err_note_set(note, errno == ENOENT ? ERR_NOT_FOUND : errno, "%s", path);
	if (fstat(fd, &st) != 0 || (n = read(fd, text, KEY_FILE_MAX)) < 0) {
		rc = err_note_set(note, errno, "%s", path);
		goto out;
	}
	if (!secret && (st.st_mode & 022) != 0 && !file_read_only(fd)) {
		rc = err_expect(note, EACCES, "%s", "a file that only its owner may change (chmod go-w)", "mode %04o", path,
		    (unsigned)st.st_mode & 07777u);
		goto out;
	}
	if (secret && (st.st_mode & 077) != 0) {
		rc = err_expect(note, EACCES, "%s", "mode 0600", "%04o", path, (unsigned)st.st_mode & 07777u);
		goto out;
	}
	text[n] = 0;
	for (line = strtok_r(text, "\r\n", &rest); line != NULL; line = strtok_r(NULL, "\r\n", &rest))
		key_line(line, out);
	if (out->role == BUS_ROLE_NONE || !z85_ok(out->public_key) || (secret && !z85_ok(out->secret_key)))
		rc = err_expect(note, ERR_FORMAT, "%s",
		    "role=, public=%s with keys of 40 characters (saltctl keygen)", "%zd bytes without them",
		    path, secret ? ", secret=" : "", n);
out:
	explicit_bzero(text, sizeof(text));
	close(fd);
	return rc;
}

int
bus__key_load(const char *dir, const char *name, bool secret, struct bus_key *out, struct err_note *note)
{
	char path[PATH_MAX];

	*out = (struct bus_key){0};
	if (!name_ok(name))
		return err_expect(note, ERR_FORMAT, "key name",
		    "at most %d of [A-Za-z0-9._-], no leading dot", "%s", BUS_KEY_NAME_MAX - 1, name);
	snprintf(out->name, sizeof(out->name), "%s", name);
	if ((size_t)snprintf(path, sizeof(path), "%s/%s.%s", dir, name,
	    secret ? "key" : "pub") >= sizeof(path))
		return err_note_set(note, ENAMETOOLONG, "%s", dir);
	return key_read(path, secret, out, note);
}

/* Calls each() for the keys of dir's .pub files until it returns true. */
static bool
each_public(const char *dir, bool (*each)(void *arg, const struct bus_key *key), void *arg)
{
	DIR *d = opendir(dir);
	struct dirent *entry;
	struct bus_key key;
	bool done = false;

	for (int i = 0; d != NULL && !done && i < KEYS_MAX && (entry = readdir(d)) != NULL; i++) {
		size_t n = strlen(entry->d_name);
		char name[BUS_KEY_NAME_MAX];

		if (n <= 4 || n - 4 >= sizeof(name) || strcmp(entry->d_name + n - 4, ".pub") != 0)
			continue;
		memcpy(name, entry->d_name, n - 4);
		name[n - 4] = 0;
		done = bus__key_load(dir, name, false, &key, NULL) == 0 && each(arg, &key);
	}
	if (d != NULL)
		closedir(d);
	return done;
}

static bool
is_this(void *arg, const struct bus_key *key)
{
	struct bus_key *wanted = arg;

	if (strcmp(wanted->public_key, key->public_key) != 0)
		return false;
	*wanted = *key;
	return true;
}

bool
bus__key_allowed(const char *dir, const char *public_key, struct bus_key *out)
{
	struct bus_key key = {.name = ""};

	snprintf(key.public_key, sizeof(key.public_key), "%s", public_key);
	if (bus__keys_check_dir(dir, NULL) != 0 || !each_public(dir, is_this, &key))
		return false;
	if (out != NULL)
		*out = key;
	return true;
}

static bool
add_name(void *arg, const struct bus_key *key)
{
	*(uint64_t *)arg += hash_bytes64(key, sizeof(*key));
	return false;
}

uint64_t
bus__keys_sum(const char *dir)
{
	uint64_t sum = 0;

	if (bus__keys_check_dir(dir, NULL) == 0)
		each_public(dir, add_name, &sum);
	return sum;
}

static int
key_write(const char *path, mode_t mode, const struct bus_key *key, bool secret, struct err_note *note)
{
	char text[KEY_FILE_MAX];
	int fd, rc, n;

	n = snprintf(text, sizeof(text), "%s\nrole=%s\npublic=%s\n%s%s%s",
	    secret ? "# secret key of one process, or of all processes of one role: keep it secret" :
		     "# public key: processes with its secret key may connect",
	    bus_role_name(key->role), key->public_key, secret ? "secret=" : "", secret ? key->secret_key : "",
	    secret ? "\n" : "");
	if ((fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)) < 0)
		return err_note_set(note, errno, "%s", path);
	if ((rc = file_write_all(fd, text, (size_t)n)) == 0 && fsync(fd) != 0)
		rc = errno;
	if (close(fd) != 0 && rc == 0)
		rc = errno;
	if (rc != 0) {
		err_note_set(note, rc, "%s", path);
		unlink(path);
	}
	explicit_bzero(text, sizeof(text));
	return rc;
}

int
bus_keys_generate(const char *dir, const char *name, enum bus_role role, struct err_note *note)
{
	struct bus_key key = {.role = role};
	char secret_path[PATH_MAX], public_path[PATH_MAX];
	int rc;

	if (!name_ok(name) || role <= BUS_ROLE_NONE || role > BUS_ROLE_CLIENT)
		return err_expect(note, ERR_FORMAT, "key name or role",
		    "at most %d of [A-Za-z0-9._-], no leading dot; selector, teacher, trainer, client",
		    "%s, %s", BUS_KEY_NAME_MAX - 1, name, bus_role_name(role));
	if ((size_t)snprintf(secret_path, sizeof(secret_path), "%s/%s.key", dir, name) >= sizeof(secret_path))
		return err_note_set(note, ENAMETOOLONG, "%s", dir);
	snprintf(public_path, sizeof(public_path), "%s/%s.pub", dir, name);
	if ((rc = file_make_dirs(dir, 0700, note)) != 0 || (rc = bus__keys_check_dir(dir, note)) != 0)
		return rc;
	if (access(public_path, F_OK) == 0)
		return err_note_set(note, EEXIST, "%s", public_path);
	if (zmq_curve_keypair(key.public_key, key.secret_key) != 0)
		return err_note_set(note, errno, "a new key pair");
	rc = key_write(secret_path, 0600, &key, true, note);
	crash_point("keys.secret");
	if (rc == 0 && (rc = key_write(public_path, 0644, &key, false, note)) != 0)
		unlink(secret_path);
	explicit_bzero(&key, sizeof(key));
	return rc;
}
