/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plugin - finds, opens and checks the plug-in of the backend cuda, once, at its first use; it stays open.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log/log.h"
#include "base/nvml/nvml.h"
#include "engine/kernels/kernels_internal.h"

#define FILE_NAME "libsalt_cuda.so"
#define VARIABLE "SALT_CUDA_PLUGIN"	/* path of the plug-in, or "none" */
#define DRIVER "libcuda.so.1"
#define OPTION "backend cuda"
#define FIRST_ERROR 192			/* bytes of the dynamic linker's message that are reported */

static struct {
	pthread_mutex_t lock;
	bool tried;
	const struct kernels_plugin *plugin;	/* valid if rc is 0; else see note */
	int rc;
	struct err_note note;
	bool probed, usable;			/* set by kernels__plugin_device */
	struct kernels_device device;
} state = {.lock = PTHREAD_MUTEX_INITIALIZER};

/*
 * The plug-in's log_fatal. It adds the other processes on the GPU to the message: they may hold its memory.
 */
__attribute__((noreturn)) static void
fatal(const char *event, const char *fields)
{
	char users[300] = "", quoted[400];
	struct kernels_device device;

	if (kernels_device(&device, NULL) == 0)
		nvml_users(device.pci_bus_id, users, sizeof(users));
	if (users[0] != '\0')
		log_fatal(event, "%s gpu=%s", fields, log_quote(users + strlen(", "), quoted, sizeof(quoted)));
	log_fatal(event, "%s", fields);
}

static const struct kernels_plugin_host host = {.fatal = fatal};

/* ---- finding the plug-in ---- */

/* The file to open: from SALT_CUDA_PLUGIN, or beside the program, or in its installation directory. */
static int
find(char *path, size_t size, struct err_note *note)
{
	const char *named = getenv(VARIABLE);
	char program[4096] = "", *slash, installed[4300];
	ssize_t n;

	if (named != NULL && strcmp(named, "none") == 0)
		return err_expect(note, ERR_CONFIG, OPTION, "the plug-in " FILE_NAME, VARIABLE "=none, which forbids it");
	if (named != NULL && named[0] != '\0') {
		/* dlopen would search for a name without / */
		snprintf(path, size, "%s%s", strchr(named, '/') != NULL ? "" : "./", named);
		return access(path, F_OK) == 0 ? 0 :
		    err_expect(note, ERR_CONFIG, OPTION, "the plug-in " FILE_NAME " where " VARIABLE " says, or another backend", "no file %.200s", named);
	}
	if ((n = readlink("/proc/self/exe", program, sizeof(program) - 1)) > 0)
		program[n] = '\0';
	if ((slash = strrchr(program, '/')) != NULL)
		*slash = '\0';
	snprintf(path, size, "%s/%s", program, FILE_NAME);
	if (access(path, F_OK) == 0)
		return 0;
	snprintf(installed, sizeof(installed), "%s/%s", program, SALT_PLUGIN_DIR);
	snprintf(path, size, "%s/%s", installed, FILE_NAME);
	if (access(path, F_OK) == 0)
		return 0;
	return err_expect(note, ERR_CONFIG, OPTION, "the plug-in " FILE_NAME ": build it with CMake where nvcc is found, or name it in "
	    VARIABLE ", or take another backend", "none in %.120s or %.120s", program, installed);
}

/* ---- checking the plug-in ---- */

#define ENTRY(name) {offsetof(struct kernels_ops, name), #name}

/* Every function of the table, except those that a backend may leave NULL. */
static const struct {
	size_t at;
	const char *name;
} needed[] = {
	ENTRY(bf16_units), ENTRY(open), ENTRY(close), ENTRY(alloc), ENTRY(free), ENTRY(host_alloc), ENTRY(host_free), ENTRY(zero), ENTRY(transfer),
	ENTRY(sync), ENTRY(event_new), ENTRY(event_destroy), ENTRY(event_record), ENTRY(event_done), ENTRY(event_wait), ENTRY(matmul),
	ENTRY(column_sums), ENTRY(embed), ENTRY(embed_bwd), ENTRY(norm), ENTRY(norm_bwd), ENTRY(rmsnorm_heads), ENTRY(rmsnorm_heads_bwd),
	ENTRY(pointwise), ENTRY(affine), ENTRY(add_scaled), ENTRY(soft_cap), ENTRY(rope), ENTRY(attention), ENTRY(attention_bwd),
	ENTRY(output_loss), ENTRY(output_label), ENTRY(accumulate), ENTRY(norm_blocks), ENTRY(adamw), ENTRY(muon), ENTRY(convert),
};

_Static_assert(sizeof(struct kernels_ops) == (sizeof(needed) / sizeof(needed[0]) + 3) * sizeof(void (*)(void)),
    "a function of the table is neither needed nor host_pointer, params or peers");

static int
check(const struct kernels_plugin *p, const char *path, struct err_note *note)
{
	char lacking[160] = "";
	size_t n = 0;

	if (p == NULL || p->abi != KERNELS_PLUGIN_ABI)
		return err_expect(note, ERR_CONFIG, "%s", "interface %d, which this program has: build and install both from one source", "interface %u",
		    path, KERNELS_PLUGIN_ABI, p != NULL ? p->abi : 0);
	if (p->context_bytes != sizeof(struct kernels) || p->ops_bytes != sizeof(struct kernels_ops))
		return err_expect(note, ERR_CONFIG, "%s", "structs of %zu and %zu bytes, as in this program: build and install both from one source",
		    "%u and %u", path, sizeof(struct kernels), sizeof(struct kernels_ops), p->context_bytes, p->ops_bytes);
	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
		void (*function)(void);

		memcpy(&function, (const char *)p->ops + needed[i].at, sizeof(function));
		if (function == NULL && n < sizeof(lacking))
			n += (size_t)snprintf(lacking + n, sizeof(lacking) - n, "%s%s", n > 0 ? ", " : "", needed[i].name);
	}
	if (n > 0)
		return err_expect(note, ERR_CONFIG, "%s", "all kernels, or another backend", "a plug-in without %s", path, lacking);
	return 0;
}

/* Call with the lock held. */
static int
load(const struct kernels_plugin **out, struct err_note *note)
{
	const struct kernels_plugin *(*entry)(const struct kernels_plugin_host *);
	char path[4400];
	void *library, *symbol;
	int rc;

	if ((rc = find(path, sizeof(path), note)) != 0)
		return rc;
	if ((library = dlopen(path, RTLD_NOW | RTLD_LOCAL)) == NULL)
		return err_expect(note, ERR_CONFIG, "%s", "a plug-in that the dynamic linker can load, with cuBLASLt of its CUDA", "%.*s", path, FIRST_ERROR,
		    dlerror());
	if ((symbol = dlsym(library, KERNELS_PLUGIN_ENTRY)) == NULL) {
		dlclose(library);
		return err_expect(note, ERR_CONFIG, "%s", "a plug-in of saltfleet", "a library without " KERNELS_PLUGIN_ENTRY, path);
	}
	memcpy(&entry, &symbol, sizeof(entry));
	*out = entry(&host);
	return check(*out, path, note);
}

/* Call with the lock held. */
static int
load_once(void)
{
	if (!state.tried) {
		state.tried = true;
		state.rc = load(&state.plugin, &state.note);
	}
	return state.rc;
}

int
kernels__plugin(const struct kernels_plugin **plugin, struct err_note *note)
{
	int rc;

	pthread_mutex_lock(&state.lock);
	if ((rc = load_once()) == 0)
		*plugin = state.plugin;
	else if (note != NULL)
		*note = state.note;
	pthread_mutex_unlock(&state.lock);
	return rc;
}

/*
 * Without a driver the plug-in is not opened, because it loads libraries of hundreds of megabytes; it is
 * opened if SALT_CUDA_PLUGIN names it.
 */
static bool
driver_or_named(void)
{
	const char *named = getenv(VARIABLE);
	void *driver;

	if (named != NULL && named[0] != '\0')
		return strcmp(named, "none") != 0;
	if ((driver = dlopen(DRIVER, RTLD_LAZY | RTLD_LOCAL)) == NULL)
		return false;
	dlclose(driver);
	return true;
}

/* Call with the lock held. */
static void
probe(void)
{
	struct err_note note = {.name = ""};
	char path[4400], why[1300], quoted[1400];
	int rc;

	if (!driver_or_named() || find(path, sizeof(path), &note) != 0)
		return;
	if ((rc = load_once()) != 0)
		note = state.note;
	else if ((rc = state.plugin->device(&state.device, &note)) == 0)
		state.usable = true;
	if (rc != 0)
		log_warn("kernels.no_gpu", "why=%s hint=\"this process computes on the CPU\"",
		    log_quote(err_note_str(&note, rc, why, sizeof(why)), quoted, sizeof(quoted)));
}

bool
kernels__plugin_device(char *device, size_t size)
{
	bool usable;

	pthread_mutex_lock(&state.lock);
	if (!state.probed) {
		state.probed = true;
		probe();
	}
	if ((usable = state.usable))
		snprintf(device, size, "%s", state.device.name);
	pthread_mutex_unlock(&state.lock);
	return usable;
}

int
kernels_device(struct kernels_device *device, struct err_note *note)
{
	const struct kernels_plugin *plugin;
	int rc = kernels__plugin(&plugin, note);

	return rc != 0 ? rc : plugin->device(device, note);
}
