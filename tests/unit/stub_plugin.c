/* SPDX-License-Identifier: Apache-2.0 */
/* A plug-in without a device, for test_plugin.c. STUB_PLUGIN: the fault. Without STUB_ENTRY no exports. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kernels/kernels_internal.h"

#ifdef STUB_ENTRY
const struct kernels_plugin *salt_cuda_plugin(const struct kernels_plugin_host *host);

static const struct kernels_plugin_host *program;
static const char *wrong = "";

static void
nothing(void)
{
	program->fatal("stub.called", "function=\"of the table\"");
}

static int
stub_open(struct kernels *k, const struct kernels_options *options, struct err_note *note)
{
	(void)options;
	(void)note;
	k->threads = 1;
	snprintf(k->describe, sizeof(k->describe), "a stub");
	snprintf(k->device, sizeof(k->device), "sm_00");
	return 0;
}

static void
stub_close(struct kernels *k)
{
	(void)k;
}

static int
stub_device(struct kernels_device *device, struct err_note *note)
{
	if (strcmp(wrong, "no_device") == 0) {
		snprintf(note->found, sizeof(note->found), "no stub");
		return ERR_CONFIG;
	}
	*device = (struct kernels_device){.name = "Stub 9000", .arch = "sm_00", .memory_bytes = 2, .free_bytes = 1};
	return 0;
}

const struct kernels_plugin *
salt_cuda_plugin(const struct kernels_plugin_host *host)
{
	static struct kernels_plugin plugin = {.abi = KERNELS_PLUGIN_ABI, .context_bytes = sizeof(struct kernels),
	    .ops_bytes = sizeof(struct kernels_ops), .device = stub_device};
	static struct kernels_ops ops;
	void (*function)(void) = nothing;

	program = host;
	if (getenv("STUB_PLUGIN") != NULL)
		wrong = getenv("STUB_PLUGIN");
	if (strcmp(wrong, "nothing") == 0)
		return NULL;
	for (size_t at = 0; at < sizeof(ops); at += sizeof(function))
		memcpy((char *)&ops + at, &function, sizeof(function));
	ops.open = stub_open;
	ops.close = stub_close;
	ops.params = NULL;
	ops.host_pointer = NULL;
	if (strcmp(wrong, "table") == 0) {
		ops.attention = NULL;
		ops.muon = NULL;
	}
	plugin.ops = &ops;
	plugin.abi += strcmp(wrong, "abi") == 0;
	plugin.context_bytes += strcmp(wrong, "context") == 0;
	plugin.ops_bytes += strcmp(wrong, "ops") == 0;
	return &plugin;
}
#else
int stub_without_entry;
#endif
