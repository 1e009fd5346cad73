/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plugin - the exported function of libsalt_cuda.so, and log_fatal, which calls the program's.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log/log.h"
#include "engine/kernels/kernels_internal.h"

/* declared in cuda.h, which is C++ */
extern const struct kernels_ops kernels__cuda;
int cuda__device(struct kernels_device *device, struct err_note *note);

const struct kernels_plugin *salt_cuda_plugin(const struct kernels_plugin_host *given);

static const struct kernels_plugin_host *host;

const struct kernels_plugin *
salt_cuda_plugin(const struct kernels_plugin_host *given)
{
	static const struct kernels_plugin plugin = {.abi = KERNELS_PLUGIN_ABI, .context_bytes = sizeof(struct kernels),
	    .ops_bytes = sizeof(struct kernels_ops), .ops = &kernels__cuda, .device = cuda__device};

	host = given;
	return &plugin;
}

/* The only function of base/log that the kernels call. */
void
log_fatal(const char *event, const char *fmt, ...)
{
	char fields[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(fields, sizeof(fields), fmt, args);
	va_end(args);
	host->fatal(event, fields);
}
