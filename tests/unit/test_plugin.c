/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loader of the backend cuda, with stubs (stub_plugin.c): its messages for a missing plug-in, another
 * file, a plug-in of another build, one with missing functions, a missing device; and the choice of auto. A
 * plug-in is opened once per process, so each case runs in a child process. Arguments: the stub, the stub
 * without the entry point.
 */
#include <stdbool.h>
#include <sys/wait.h>

#include "check.h"
#include "engine/kernels/kernels.h"

static char stub[4096], no_entry[4096];

struct outcome {
	int rc, device_rc;
	/* of the error, or class, reason and description of the handle */
	char text[1300];
	struct kernels_device device;
};

static void
run(enum kernels_backend backend, enum kernels_dtype dtype, struct outcome *out)
{
	const struct kernels_options options = {.backend = backend, .dtype = dtype, .threads = 1};
	struct err_note note = {.name = ""};
	struct kernels *k;

	memset(out, 0, sizeof(*out));
	if ((out->rc = kernels_new(&k, &options, &note)) != 0)
		err_note_str(&note, out->rc, out->text, sizeof(out->text));
	else
		snprintf(out->text, sizeof(out->text), "%s; %s; %s; %s", kernels_compute_class(k), kernels_reason(k), kernels_describe(k),
		    kernels_device_versions(k));
	kernels_destroy(&k);
	out->device_rc = kernels_device(&out->device, &note);
}

/* Makes a kernels handle in a child with SALT_CUDA_PLUGIN=plugin and STUB_PLUGIN=wrong; NULL: not set. */
static struct outcome
in_process(const char *plugin, const char *wrong, enum kernels_backend backend, enum kernels_dtype dtype)
{
	struct outcome out = {.rc = -1};
	int ends[2], status;
	pid_t child = -1;

	REQUIRE(pipe(ends) == 0 && (child = fork()) >= 0);
	if (child == 0) {
		if (plugin != NULL)
			setenv("SALT_CUDA_PLUGIN", plugin, 1);
		else
			unsetenv("SALT_CUDA_PLUGIN");
		setenv("STUB_PLUGIN", wrong != NULL ? wrong : "", 1);
		run(backend, dtype, &out);
		_exit(write(ends[1], &out, sizeof(out)) == sizeof(out) ? 0 : 1);
	}
	close(ends[1]);
	CHECK(read(ends[0], &out, sizeof(out)) == sizeof(out));
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	close(ends[0]);
	return out;
}

static void
errors(void)
{
	const struct {
		const char *what, *plugin, *wrong, *says[3];
	} rows[] = {
		{"nowhere", NULL, NULL, {"backend cuda: expected the plug-in libsalt_cuda.so: build it", "SALT_CUDA_PLUGIN", "/saltfleet"}},
		{"forbidden", "none", NULL, {"backend cuda", "SALT_CUDA_PLUGIN=none", "forbids"}},
		{"no such file", check_missing(), NULL, {"where SALT_CUDA_PLUGIN says", "no file", check_missing()}},
		{"no library", "README.md", NULL, {"README.md: expected", "dynamic linker", "invalid ELF"}},
		{"no entry", no_entry, NULL, {no_entry, "a plug-in of saltfleet", "salt_cuda_plugin"}},
		{"no table", stub, "nothing", {stub, "expected interface 2", "found interface 0"}},
		{"another interface", stub, "abi", {"expected interface 2", "from one source", "found interface 3"}},
		{"another context", stub, "context", {"structs of", "from one source", "found"}},
		{"another table", stub, "ops", {"structs of", "from one source", "found"}},
		{"a table with holes", stub, "table", {stub, "expected all kernels", "without attention, muon"}},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct outcome o = in_process(rows[i].plugin, rows[i].wrong, KERNELS_BACKEND_CUDA, KERNELS_DTYPE_AUTO);

		CHECK_ROW(rows[i].what, o.rc == ERR_CONFIG && err_exit_code(o.rc) == 78 && o.device_rc == ERR_CONFIG);
		for (int s = 0; s < 3; s++)
			CHECK_ROW(o.text, strstr(o.text, rows[i].says[s]) != NULL);
		o = in_process(rows[i].plugin, rows[i].wrong, KERNELS_BACKEND_AUTO, KERNELS_DTYPE_FP32);
		CHECK_ROW(rows[i].what,
		    o.rc == 0 && strncmp(o.text, "fp32/openblas; fp32 was requested; ", 35) == 0);
	}
}

static void
choices(void)
{
	const struct {
		const char *what, *wrong;
		enum kernels_backend backend;
		enum kernels_dtype dtype;
		const char *text;		/* NULL: a CPU backend */
	} rows[] = {
		{"requested", NULL, KERNELS_BACKEND_CUDA, KERNELS_DTYPE_AUTO,
		    "bf16/cuda; cuda was requested; a stub; sm_00"},
		{"fp32", NULL, KERNELS_BACKEND_CUDA, KERNELS_DTYPE_FP32,
		    "fp32/cuda; cuda was requested; a stub; sm_00"},
		{"auto", NULL, KERNELS_BACKEND_AUTO, KERNELS_DTYPE_AUTO,
		    "bf16/cuda; GPU found: Stub 9000; a stub; sm_00"},
		{"auto, fp32", NULL, KERNELS_BACKEND_AUTO, KERNELS_DTYPE_FP32,
		    "fp32/cuda; GPU found: Stub 9000; a stub; sm_00"},
		{"auto without a device", "no_device", KERNELS_BACKEND_AUTO, KERNELS_DTYPE_AUTO, NULL},
		{"openblas", NULL, KERNELS_BACKEND_OPENBLAS, KERNELS_DTYPE_FP32, NULL},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct outcome o = in_process(stub, rows[i].wrong, rows[i].backend, rows[i].dtype);

		CHECK_ROW(rows[i].what, o.rc == 0);
		if (rows[i].text != NULL)
			CHECK_STR(o.text, rows[i].text);
		else
			CHECK_ROW(o.text, strstr(o.text, "cuda") == NULL);
		CHECK_ROW(rows[i].what, rows[i].wrong != NULL ? o.device_rc == ERR_CONFIG :
		    o.device_rc == 0 && strcmp(o.device.name, "Stub 9000") == 0 && o.device.memory_bytes == 2);
	}
}

/* The compute class on hosts without plug-in and device, which selectord needs for its teachers. */
static void
names(void)
{
	struct err_note note;
	char class[32];

	setenv("SALT_CUDA_PLUGIN", "none", 1);
	CHECK(kernels_resolve(&(struct kernels_options){.backend = KERNELS_BACKEND_CUDA}, class, sizeof(class), &note) == 0);
	CHECK_STR(class, "bf16/cuda");
	CHECK(kernels_resolve(&(struct kernels_options){.backend = KERNELS_BACKEND_CUDA, .dtype = KERNELS_DTYPE_FP32}, class, sizeof(class), &note) == 0);
	CHECK_STR(class, "fp32/cuda");
	CHECK(kernels_resolve(&(struct kernels_options){.dtype = KERNELS_DTYPE_FP32}, class, sizeof(class), &note) == 0);
	CHECK_STR(class, "fp32/openblas");
}

int
main(int argc, char **argv)
{
	REQUIRE(argc == 3 && realpath(argv[1], stub) != NULL && realpath(argv[2], no_entry) != NULL);
	errors();
	choices();
	names();
	return check_done();
}
