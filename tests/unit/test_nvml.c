/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NVML with a stub (stub_nvml.c, argument 1), and a status that shows it. The library is opened once per
 * process, so each case runs in a child process.
 */
#include "base/nvml/nvml.h"

#include <math.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log/log.h"
#include "check.h"
#include "fabric/status/status.h"

static int n_warnings;
static char warning[2048];

static void
tap(void *arg, enum log_level level, const char *event, const char *line)
{
	(void)arg;
	(void)event;
	if (level == LOG_LEVEL_WARN) {
		n_warnings++;
		snprintf(warning, sizeof(warning), "%s", line);
	}
}

static double
gauge(const struct status_snapshot *s, const char *name)
{
	for (size_t i = 0; i < s->n_metrics; i++)
		if (strcmp(s->metrics[i].name, name) == 0)
			return s->metrics[i].value;
	return -1;
}

static bool
same(double a, double b)
{
	return a == b || (isnan(a) && isnan(b));
}

/* Takes two snapshots: nothing is logged twice, and an unknown figure is NaN, and null in JSON. */
static void
status_shows(const char *what, double used, double utilization, double memory_utilization, const char *says)
{
	struct status *st = status_new("teacherd", "teacherd-0", "0.1", 0);
	struct status_snapshot *s = calloc(1, sizeof(*s));
	char *json;

	REQUIRE(st != NULL && s != NULL);
	log_quiet("test");
	log_tap(tap, NULL);
	status_gpu(st, "Stub 9000", "0000:65:00.0", 4e9);
	status_snapshot(st, 1000, s);
	status_snapshot(st, 2000, s);
	CHECK_STR(s->gpu, "Stub 9000");
	CHECK_ROW(what, gauge(s, "gpu_memory_bytes") == 4e9 && same(gauge(s, "gpu_memory_used_bytes"), used) &&
	    same(gauge(s, "gpu_utilization_ratio"), utilization) && same(gauge(s, "gpu_memory_utilization_ratio"),
	    memory_utilization));
	CHECK_ROW(what, n_warnings == (says != NULL) && (says == NULL || strstr(warning, says) != NULL));
	json = status_json(s);
	REQUIRE(json != NULL);
	CHECK_ROW(json, strstr(json, "\"gpu\":\"Stub 9000\"") != NULL);
	CHECK_ROW(json, (strstr(json, "\"gpu_memory_used_bytes\":null") != NULL) == isnan(used) &&
	    (strstr(json, "\"gpu_utilization_ratio\":null") != NULL) == isnan(utilization));
	log_tap(NULL, NULL);
	free(json);
	free(s);
	status_destroy(&st);
}

static void
in_process(const char *library, const char *wrong, const char *processes, void (*test)(const void *), const void *arg)
{
	pid_t child = fork();
	int status;

	REQUIRE(child >= 0);
	if (child == 0) {
		setenv("SALT_NVML", library, 1);
		setenv("STUB_NVML", wrong, 1);
		setenv("STUB_NVML_PROCESSES", processes, 1);
		check_failures = 0;
		test(arg);
		fflush(NULL);
		_exit(check_failures != 0);
	}
	CHECK(waitpid(child, &status, 0) == child);
	CHECK_ROW(wrong, WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

struct row {
	const char *wrong, *library;		/* fault; library, NULL: the stub */
	int open_rc, read_rc;
	double used, utilization, memory_utilization;
	const char *says;			/* NULL: nothing */
};

static void
one(const void *arg)
{
	const struct row *row = arg;
	struct err_note note = {.name = ""};
	struct nvml_state state;
	struct nvml *gpu;
	char text[1300];
	int rc = nvml_open(&gpu, "0000:65:00.0", &note);

	CHECK_ROW(row->wrong, rc == row->open_rc);
	if (rc == 0) {
		rc = nvml_read(gpu, &state, &note);
		CHECK_ROW(row->wrong, rc == row->read_rc && same(state.used_bytes, row->used) &&
		    same(state.utilization, row->utilization) &&
		    same(state.memory_utilization, row->memory_utilization));
		nvml_close(&gpu);
	}
	if (row->says != NULL)
		CHECK_ROW(row->says, strstr(err_note_str(&note, rc, text, sizeof(text)), row->says) != NULL);
	status_shows(row->wrong, row->used, row->utilization, row->memory_utilization, row->says);
}

/* With CUDA_VISIBLE_DEVICES=1 the GPU is the second one of NVML, which its bus id finds. */
static void
mapped(const void *arg)
{
	static const struct { const char *id; double total, utilization; } rows[] = {{"0000:17:00.0", 80e9, 0.01},
	    {"0000:65:00.0", 4294967296, 0.97}};
	struct nvml_state state;
	struct nvml *gpu;

	(void)arg;
	for (int i = 0; i < 2; i++) {
		REQUIRE(nvml_open(&gpu, rows[i].id, NULL) == 0 && nvml_read(gpu, &state, NULL) == 0);
		CHECK_ROW(rows[i].id, state.memory_bytes == rows[i].total && state.utilization == rows[i].utilization);
		nvml_close(&gpu);
	}
	CHECK(nvml_open(&gpu, "0000:99:00.0", NULL) == ERR_NOT_FOUND && gpu == NULL);
}

/* This process is not listed; a process whose memory is not known has NaN, not 0. */
static void
processes(const void *arg)
{
	struct nvml_process list[4];
	char text[200], expected[200], many[8192] = "";
	struct nvml *gpu;
	size_t n;

	(void)arg;
	REQUIRE(nvml_open(&gpu, "0000:65:00.0", NULL) == 0);
	CHECK(nvml_processes(gpu, list, 4, &n, NULL) == 0 && n == 2);
	CHECK(list[0].pid == getppid() && list[0].memory_bytes == 3221225472.0 && isnan(list[1].memory_bytes));
	CHECK_STR(list[1].name, "?");				/* no process has this pid */
	snprintf(expected, sizeof(expected), "%s (%d) 3.00 GiB, ? (2147483646) ? GiB", list[0].name, (int)getppid());
	CHECK_STR(nvml_list(list, n, text, sizeof(text)), expected);
	CHECK(strncmp(list[0].name, "test_unit_nvml", 14) == 0);
	CHECK(strlen(nvml_list(list, n, text, 20)) == 19);
	CHECK(nvml_processes(gpu, list, 1, &n, NULL) == 0 && n == 1);
	CHECK(strncmp(nvml_users("0000:65:00.0", text, sizeof(text)), ", shared with test_unit_nvml (", 30) == 0);
	CHECK_STR(nvml_users("0000:99:00.0", text, sizeof(text)), "");
	for (int i = 0; i < 300; i++)				/* more than a first call has room for */
		strcat(many, "2147483646:1 ");
	setenv("STUB_NVML_PROCESSES", many, 1);
	CHECK(nvml_processes(gpu, list, 4, &n, NULL) == 0 && n == 4 && list[3].memory_bytes == 1);
	setenv("STUB_NVML", "processes", 1);
	CHECK(nvml_processes(gpu, list, 4, &n, NULL) == ERR_LIBRARY && n == 0);
	nvml_close(&gpu);
}

int
main(int argc, char **argv)
{
	static const struct row rows[] = {
		{"nothing", NULL, 0, 0, 3e9, 0.97, 0.41, NULL},
		{"no_mig", NULL, 0, 0, 3e9, 0.97, 0.41, NULL},
		{"forbidden", "none", ERR_NOT_FOUND, 0, NAN, NAN, NAN, "SALT_NVML=none"},
		{"no library", "./no/libnvidia-ml.so.1", ERR_NOT_FOUND, 0, NAN, NAN, NAN,
		    "expected the library libnvidia-ml.so.1 of the NVIDIA driver"},
		{"another library", "libm.so.6", ERR_LIBRARY, 0, NAN, NAN, NAN, "a library without nvmlInit_v2"},
		{"init", NULL, ERR_LIBRARY, 0, NAN, NAN, NAN, "GPU is lost"},
		{"no_gpu", NULL, ERR_NOT_FOUND, 0, NAN, NAN, NAN,
		    "expected the GPU at PCI 0000:65:00.0, found Not Found"},
		{"mig", NULL, ERR_UNSUPPORTED, 0, NAN, NAN, NAN, "MIG"},
		{"memory", NULL, 0, ERR_LIBRARY, NAN, 0.97, 0.41, "expected the memory of the GPU, found GPU is lost"},
		{"rates", NULL, 0, ERR_LIBRARY, 3e9, NAN, NAN,
		    "expected the utilisation of the GPU, found Not Supported"},
	};
	char list[100];

	REQUIRE(argc == 2);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		in_process(rows[i].library != NULL ? rows[i].library : argv[1], rows[i].wrong, "", one, &rows[i]);
	in_process(argv[1], "", "", mapped, NULL);
	snprintf(list, sizeof(list), "%d:3221225472 self:1 2147483646:", (int)getpid());
	in_process(argv[1], "", list, processes, NULL);
	return check_done();
}
