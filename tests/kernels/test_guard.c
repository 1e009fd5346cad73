/* SPDX-License-Identifier: Apache-2.0 */
/* The guard reports every fault that it must find, and does not change the results of kernels. */
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "engine/kernels/kernels.h"

enum { N = 3000 };

static struct kernels *
context(void)
{
	struct err_note note = {0};
	struct kernels *k;

	REQUIRE(kernels_new(&k, &(struct kernels_options){.threads = 1}, &note) == 0);
	return k;
}

/* Computes y += x twice in device memory. */
static void
works(void)
{
	struct kernels *k = context();
	float host[N], back[N];
	float *x = kernels_alloc(k, sizeof(host)), *y = kernels_alloc(k, sizeof(host));

	for (int i = 0; i < N; i++)
		host[i] = (float)i;
	kernels_upload(k, x, host, sizeof(host));
	kernels_accumulate(k, y, x, N);
	kernels_accumulate(k, y, x, N);
	kernels_download(k, back, y, sizeof(back));
	for (int i = 0; i < N; i++)
		CHECK(back[i] == (float)(2 * i));
	kernels_free(k, x);
	kernels_free(k, y);
	kernels_destroy(&k);
}

static void
read_device(struct kernels *k)
{
	volatile float *p = kernels_alloc(k, N * sizeof(float));

	printf("%g\n", (double)p[7]);
}

static void
write_device(struct kernels *k)
{
	char *p = kernels_alloc(k, N * sizeof(float));

	((volatile char *)p)[28] = 1;
}

static void
read_freed(struct kernels *k)
{
	volatile char *p = kernels_alloc(k, N * sizeof(float));

	kernels_free(k, (void *)(uintptr_t)p);
	printf("%d\n", p[28]);
}

static void
download_freed(struct kernels *k)
{
	float *p = kernels_alloc(k, N * sizeof(float)), host[N];

	kernels_free(k, p);
	kernels_download(k, host, p, sizeof(host));
}

static void
download_to_device(struct kernels *k)
{
	char *p = kernels_alloc(k, N * sizeof(float));

	kernels_download(k, p + 28, p, 4);
}

static void
host_as_device(struct kernels *k)
{
	float host[N] = {0};
	struct tensor x = tensor_1d(host, DTYPE_F32, N), y = tensor_1d(kernels_alloc(k, sizeof(host)), DTYPE_F32, N);

	kernels_gelu(k, &y, &x);
}

static void
free_twice(struct kernels *k)
{
	void *p = kernels_alloc(k, N);

	kernels_free(k, p);
	kernels_free(k, p);
}

int
main(void)
{
	static const struct {
		const char *what;
		void (*run)(struct kernels *k);
		const char *report, *of;
	} rows[] = {
	    {"read", read_device, "device memory accessed outside kernels: byte 28 ", "of an allocation of 12000 bytes"},
	    {"write", write_device, "device memory accessed outside kernels: byte 28 ", "of an allocation of 12000 bytes"},
	    {"read after free", read_freed, "byte 28 ", "of an allocation of 12000 bytes, which was freed"},
	    /* It is not defined which byte memcpy accesses first. */
	    {"download after free", download_freed, "a kernel accessed memory that is not allocated: byte ",
		"of an allocation of 12000 bytes, which was freed"},
	    {"download to the device", download_to_device, "device memory accessed outside kernels: byte ",
		"of an allocation of 12000 bytes"},
	    {"host memory in a tensor", host_as_device, "host memory passed as device memory", ""},
	    {"free twice", free_twice, "kernels_free of what kernels_alloc did not return, or twice: byte 0 ",
		"of an allocation of 3000 bytes"},
	};

	works();
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char text[4096] = "";
		int out[2], status = 0;
		ssize_t n, at = 0;
		pid_t pid = -1;

		REQUIRE(pipe(out) == 0 && (pid = fork()) >= 0);
		if (pid == 0) {
			dup2(out[1], STDOUT_FILENO);
			dup2(out[1], STDERR_FILENO);
			rows[i].run(context());
			_exit(0);
		}
		close(out[1]);
		while ((n = read(out[0], text + at, sizeof(text) - 1 - (size_t)at)) > 0)
			at += n;
		close(out[0]);
		REQUIRE(waitpid(pid, &status, 0) == pid);
		CHECK_ROW(rows[i].what, WIFEXITED(status) && WEXITSTATUS(status) == 86);
		CHECK_ROW(rows[i].what, strstr(text, rows[i].report) != NULL && strstr(text, rows[i].of) != NULL);
	}
	return check_done();
}
