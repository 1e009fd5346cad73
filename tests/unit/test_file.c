/* SPDX-License-Identifier: Apache-2.0 */
#include "base/file/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "check.h"

static char dir[64] = "/tmp/salt_file.XXXXXX";

static const char *
in(const char *name)
{
	static char path[2][4200];
	static int turn;

	turn = !turn;
	snprintf(path[turn], sizeof(path[turn]), "%s/%s", dir, name);
	return path[turn];
}

static void
test_replace(void)
{
	struct file_replace r;
	struct err_note note;
	struct stat st;
	char *data;
	size_t len;

	CHECK(file_replace_all(in("a/b/c.txt"), "one", 3, true, &note) == 0);	/* makes a and a/b */
	CHECK(file_read(in("a/b/c.txt"), 0, &data, &len, &note) == 0 && len == 3);
	CHECK_STR(data, "one");
	free(data);
	/* The old content is there until the end of a replacement, and after an abort. */
	CHECK(file_replace_begin(&r, in("a/b/c.txt"), &note) == 0);
	fputs("two", r.f);
	CHECK(file_read(in("a/b/c.txt"), 3, &data, &len, &note) == 0);
	CHECK_STR(data, "one");
	free(data);
	file_replace_abort(&r);
	CHECK(access(r.temp, F_OK) != 0);
	CHECK(file_read(in("a/b/c.txt"), 2, &data, &len, &note) == ERR_RANGE && data == NULL);
	CHECK_STR(note.expected, "at most 2 bytes");
	CHECK(file_read(in("none"), 0, &data, &len, &note) == ENOENT);
	CHECK_STR(note.name, in("none"));
	/* The rename would remove a pipe or a device; a folder is refused before the work, not after it. */
	CHECK(mkfifo(in("pipe"), 0600) == 0 && symlink("pipe", in("link")) == 0 &&
	    symlink("/dev/null", in("null")) == 0);
	CHECK(file_replace_begin(&r, in("pipe"), &note) == EEXIST && r.f == NULL);
	CHECK_STR(note.expected, "a regular file, or none");
	CHECK_STR(note.found, "a pipe");
	CHECK(file_replace_all(in("link"), "x", 1, false, &note) == EEXIST);
	CHECK(file_replace_all(in("null"), "x", 1, false, &note) == EEXIST);
	CHECK_STR(note.found, "a device");
	CHECK(file_replace_begin(&r, in("a"), &note) == EEXIST);
	CHECK_STR(note.found, "a folder");
	CHECK(lstat(in("pipe"), &st) == 0 && S_ISFIFO(st.st_mode));
	CHECK(unlink(in("link")) == 0 && symlink("nothing", in("link")) == 0 &&
	    file_replace_all(in("link"), "x", 1, false, &note) == 0);
}

/* A write that fails reports the correct errno, keeps the old file and leaves nothing behind. */
static void
test_no_space(void)
{
	static char big[100000];
	struct rlimit was, small = {.rlim_cur = 5000};
	struct err_note note;
	char *data;
	size_t len;
	int fd = open("/dev/full", O_WRONLY);

	CHECK(fd >= 0 && file_write_all(fd, "x", 1) == ENOSPC);
	close(fd);
	CHECK(file_replace_all(in("limited"), "old", 3, false, &note) == 0);
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &was);
	small.rlim_max = was.rlim_max;
	setrlimit(RLIMIT_FSIZE, &small);
	CHECK(file_replace_all(in("limited"), big, sizeof(big), false, &note) == EFBIG);
	setrlimit(RLIMIT_FSIZE, &was);
	CHECK_STR(note.place, "write");
	CHECK(file_read(in("limited"), 0, &data, &len, &note) == 0 && len == 3);
	free(data);
	snprintf(big, sizeof(big), "%s.%ld.tmp", in("limited"), (long)getpid());
	CHECK(access(big, F_OK) != 0);
}

static void
test_dirs(void)
{
	struct err_note note;
	struct stat st;

	CHECK(file_make_dirs(in("x/y//z/"), 0700, &note) == 0 && stat(in("x/y/z"), &st) == 0 && S_ISDIR(st.st_mode));
	CHECK(file_make_dirs(in("x/y/z"), 0777, &note) == 0);
	CHECK(file_replace_all(in("x/file"), "", 0, false, &note) == 0);
	CHECK(file_make_dirs(in("x/file/below"), 0777, &note) == ENOTDIR);
	CHECK_STR(note.name, in("x/file"));
	CHECK(file_make_parents("alone", &note) == 0 && file_make_parents("/root-level", &note) == 0);
}

static int
make(const char *name)
{
	return file_replace_all(in(name), "x", 1, false, NULL);
}

static bool
there(const char *name)
{
	struct stat st;

	return lstat(in(name), &st) == 0;
}

/* A tree is removed with everything below it, but not targets of symbolic links or a mounted file system. */
static void
test_remove(void)
{
	struct err_note note;

	CHECK(file_remove_tree(in("none"), &note) == 0);
	REQUIRE(make("outside/keep") == 0 && make("tree/a/b/c") == 0 && make("tree/.hidden") == 0 && make("single") == 0);
	REQUIRE(symlink("../outside", in("tree/link")) == 0 && symlink("nowhere", in("tree/a/dangling")) == 0 &&
	    symlink("outside", in("top")) == 0);
	CHECK(file_remove_tree(in("top/"), &note) == 0 && !there("top") && there("outside/keep"));
	CHECK(file_remove_tree(in("tree/"), &note) == 0 && !there("tree") && there("outside/keep"));
	CHECK(file_remove_tree(in("single"), &note) == 0 && !there("single"));
	CHECK(file_remove_tree(in("outside/keep/below"), &note) == ENOTDIR);

	REQUIRE(make("tree/first") == 0 && make("tree/m/below") == 0 && make("tree/z") == 0);
	if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount(in("outside"), in("tree/m"), NULL, MS_BIND, NULL) != 0)
		return;			/* needs root */
	CHECK(file_remove_tree(in("tree"), &note) == EBUSY && there("outside/keep"));
	CHECK_STR(note.name, in("tree/m"));
	CHECK(!there("tree/first") && !there("tree/z"));
	CHECK(umount(in("tree/m")) == 0 && file_remove_tree(in("tree"), &note) == 0 && !there("tree"));
}

int
main(void)
{
	char command[100];

	REQUIRE(mkdtemp(dir) != NULL);
	test_replace();
	test_no_space();
	test_dirs();
	test_remove();
	snprintf(command, sizeof(command), "rm -r %s", dir);
	CHECK(system(command) == 0);
	return check_done();
}
