/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replay - the main function of a fuzz target without libFuzzer. fuzz_NAME PATH... runs every file, and every
 * file in every folder, once, and then up to FAULTS_MAX times with another one of our allocations failing.
 * The last line gives the numbers.
 */
#include "fuzz.h"

#include <dirent.h>

#define FAULTS_MAX 12

static unsigned long n_inputs, n_faults;

/* ---- failing allocations: the linker option --wrap redirects our calls here, not those of libraries ---- */

static unsigned long n_calls, fail_at;		/* fail_at 0: none */
static bool spared;

/* No failures while jansson 2.14 parses: it would continue with an incomplete token and read past its end. */
struct json_t *__real_json_loadb(const char *text, size_t len, size_t flags, void *error) __attribute__((weak));	/* some targets have none */
struct json_t *__wrap_json_loadb(const char *text, size_t len, size_t flags, void *error);

struct json_t *
__wrap_json_loadb(const char *text, size_t len, size_t flags, void *error)
{
	struct json_t *j;

	spared = true;
	j = __real_json_loadb(text, len, flags, error);
	spared = false;
	return j;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
char *__real_strdup(const char *s);
char *__real_strndup(const char *s, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t n);

struct MHD_Response *__real_MHD_create_response_from_buffer(size_t n, void *bytes, int mode) __attribute__((weak));
struct MHD_Response *__wrap_MHD_create_response_from_buffer(size_t n, void *bytes, int mode);

static bool
fails(void)
{
	if (spared || ++n_calls != fail_at)
		return false;
	errno = ENOMEM;
	return true;
}

void *
__wrap_malloc(size_t n)
{
	return fails() ? NULL : __real_malloc(n);
}

void *
__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *
__wrap_realloc(void *p, size_t n)
{
	return fails() ? NULL : __real_realloc(p, n);
}

void *
__wrap_aligned_alloc(size_t align, size_t n)
{
	return fails() ? NULL : __real_aligned_alloc(align, n);
}

char *
__wrap_strdup(const char *s)
{
	return fails() ? NULL : __real_strdup(s);
}

char *
__wrap_strndup(const char *s, size_t n)
{
	return fails() ? NULL : __real_strndup(s, n);
}

struct MHD_Response *		/* its allocations are made inside the library */
__wrap_MHD_create_response_from_buffer(size_t n, void *bytes, int mode)
{
	return fails() ? NULL : __real_MHD_create_response_from_buffer(n, bytes, mode);
}

/* ---- */

/* Repeats the input with failing allocations, spread over the run; the first differs between inputs. */
static void
run_faults(const uint8_t *bytes, size_t len, unsigned long total)
{
	unsigned long step = total / FAULTS_MAX + 1, first = 1 + n_inputs % step;

	fuzz_faults = true;
	for (unsigned long at = first; at <= total; at += step) {
		n_calls = 0;
		fail_at = at;
		LLVMFuzzerTestOneInput(bytes, len);
		n_faults += n_calls >= at;
	}
	fail_at = 0;
	fuzz_faults = false;
}

static void
run_file(const char *path)
{
	struct stat st;
	uint8_t *bytes;
	ssize_t n;
	int fd;

	FUZZ_CHECK((fd = open(path, O_RDONLY | O_CLOEXEC)) >= 0 && fstat(fd, &st) == 0);
	/* exactly as long as the input, so that a sanitizer finds reads past the end */
	FUZZ_CHECK((bytes = __real_malloc(st.st_size > 0 ? (size_t)st.st_size : 1)) != NULL);
	n = read(fd, bytes, (size_t)st.st_size);
	close(fd);
	FUZZ_CHECK(n == (ssize_t)st.st_size);
	fprintf(stderr, "%s\r", path);		/* the last line before a crash */
	n_calls = 0;
	LLVMFuzzerTestOneInput(bytes, (size_t)n);
	n_inputs++;
#ifndef FUZZ_NO_FAULTS
	run_faults(bytes, (size_t)n, n_calls);
#endif
	free(bytes);
}

static int
visible(const struct dirent *e)
{
	return e->d_name[0] != '.';
}

static void
run_path(const char *path)
{
	struct dirent **list;
	struct stat st;
	int n;

	FUZZ_CHECK(stat(path, &st) == 0);
	if (!S_ISDIR(st.st_mode)) {
		run_file(path);
		return;
	}
	FUZZ_CHECK((n = scandir(path, &list, visible, alphasort)) >= 0);
	for (int i = 0; i < n; i++) {
		char file[4096];

		FUZZ_CHECK((size_t)snprintf(file, sizeof(file), "%s/%s", path, list[i]->d_name) < sizeof(file));
		run_path(file);
		free(list[i]);
	}
	free(list);
}

int
main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		run_path(argv[i]);
	fprintf(stderr, "\n");
	printf("%lu inputs, %lu allocations that failed\n", n_inputs, n_faults);
	return n_inputs > 0 ? 0 : 1;
}
