/* SPDX-License-Identifier: Apache-2.0 */
/*
 * context - selects backend and dtype of a kernels handle; calls that need no checks: memory, events,
 * parameters.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log/log.h"
#include "engine/kernels/cuda/limits.h"
#include "engine/kernels/kernels_internal.h"
#include "engine/kernels/peers.h"

/* cuda is not in the table: it is opened when it is needed. */
static const struct kernels_ops *const backends[KERNELS_BACKEND_CUDA + 1] = {
	[KERNELS_BACKEND_OPENBLAS] = &kernels__openblas,
#ifdef SALT_KERNELS_ONEDNN
	[KERNELS_BACKEND_ONEDNN] = &kernels__onednn,
#endif
};

/* The selected backend and dtype, and what this machine has for bf16. */
struct choice {
	enum kernels_backend backend;
	enum dtype dtype;
	bool has_bf16;
	char units[96];
	char reason[192];
	char compute_class[32];
};

/* For an explicit backend cuda (device NULL), or for auto if a device was found. */
static void
choose_cuda(const struct kernels_options *o, const char *device, struct choice *c)
{
	*c = (struct choice){.backend = KERNELS_BACKEND_CUDA, .dtype = o->dtype == KERNELS_DTYPE_FP32 ? DTYPE_F32 : DTYPE_BF16, .has_bf16 = true};
	if (device != NULL)
		snprintf(c->reason, sizeof(c->reason), "GPU found: %s", device);
	else
		snprintf(c->reason, sizeof(c->reason), "cuda was requested");
	snprintf(c->compute_class, sizeof(c->compute_class), "%s/cuda", dtype_name(c->dtype));
}

static void
choose(const struct kernels_options *o, struct choice *c)
{
	const struct kernels_ops *onednn = backends[KERNELS_BACKEND_ONEDNN];
	bool wants_bf16 = o->dtype == KERNELS_DTYPE_BF16;
	const char *lacks = c->units;
	char device[64];

	if (o->backend == KERNELS_BACKEND_CUDA) {
		choose_cuda(o, NULL, c);
		return;
	}
	if (o->backend == KERNELS_BACKEND_AUTO && kernels__plugin_device(device, sizeof(device))) {
		choose_cuda(o, device, c);
		return;
	}
	*c = (struct choice){.backend = o->backend,
	    .dtype = wants_bf16 ? DTYPE_BF16 : DTYPE_F32,
	    .units = "this build has no oneDNN"};
	if (onednn != NULL)
		c->has_bf16 = onednn->bf16_units(c->units, sizeof(c->units));
	if (c->has_bf16)
		lacks = "openblas was requested";
	if (o->dtype != KERNELS_DTYPE_FP32 && o->backend != KERNELS_BACKEND_OPENBLAS && c->has_bf16) {
		c->backend = KERNELS_BACKEND_ONEDNN;
		c->dtype = DTYPE_BF16;
		snprintf(c->reason, sizeof(c->reason), "the processor multiplies bf16 (%s)", c->units);
	} else if (wants_bf16) {
		snprintf(c->reason, sizeof(c->reason), "bf16 by expansion to fp32, slower than fp32: %s", lacks);
	} else if (o->dtype == KERNELS_DTYPE_FP32) {
		snprintf(c->reason, sizeof(c->reason), "fp32 was requested");
	} else {
		snprintf(c->reason, sizeof(c->reason), "no bf16: %s", lacks);
	}
	if (c->backend == KERNELS_BACKEND_AUTO)
		c->backend = KERNELS_BACKEND_OPENBLAS;
	snprintf(c->compute_class, sizeof(c->compute_class), "%s/%s", dtype_name(c->dtype),
	    c->backend == KERNELS_BACKEND_ONEDNN ? "onednn" : "openblas");
}

static int
check_threads(const struct kernels_options *o, struct err_note *note)
{
	if (o->threads < 0 || o->threads > 4096)
		return err_expect(note, ERR_RANGE, "threads", "0 to 4096", "%d", o->threads);
	return 0;
}

int
kernels_resolve(const struct kernels_options *options, char *buf, size_t size, struct err_note *note)
{
	struct choice c;
	int rc;

	if ((rc = check_threads(options, note)) != 0)
		return rc;
	choose(options, &c);
	snprintf(buf, size, "%s", c.compute_class);
	return 0;
}

/*
 * Sets *ops to the backend's table; ERR_UNSUPPORTED or the plug-in's error if this build or machine lacks it.
 */
static int
find_backend(const struct choice *c, const struct kernels_ops **ops, struct err_note *note)
{
	const struct kernels_plugin *plugin;
	int rc;

	if (c->backend == KERNELS_BACKEND_CUDA) {
		if ((rc = kernels__plugin(&plugin, note)) == 0)
			*ops = plugin->ops;
		return rc;
	}
	if ((*ops = backends[c->backend]) == NULL)
		return err_expect(note, ERR_UNSUPPORTED, "compute.backend", "auto or openblas: %s", "onednn", c->units);
	if (c->backend == KERNELS_BACKEND_ONEDNN && c->dtype == DTYPE_BF16 && !c->has_bf16)
		return err_expect(note, ERR_UNSUPPORTED, "compute.dtype",
		    "fp32, or bf16 on openblas (slow): %s", "bf16 on onednn", c->units);
	return 0;
}

int
kernels_new(struct kernels **out, const struct kernels_options *options, struct err_note *note)
{
	const struct kernels_ops *ops;
	struct kernels *k;
	struct choice c;
	int rc;

	*out = NULL;
	if ((rc = check_threads(options, note)) != 0)
		return rc;
	choose(options, &c);
	if ((rc = find_backend(&c, &ops, note)) != 0)
		return rc;
	if ((k = calloc(1, sizeof(*k))) == NULL)
		return err_note_set(note, ENOMEM, "kernels");
	k->ops = k->backend = ops;
#ifdef SALT_GUARD
	if (c.backend != KERNELS_BACKEND_CUDA)		/* cuda's memory is not host memory anyway */
		k->ops = kernels__guard(k->backend);
#endif
	k->dtype = c.dtype;
	snprintf(k->compute_class, sizeof(k->compute_class), "%s", c.compute_class);
	snprintf(k->reason, sizeof(k->reason), "%s", c.reason);
	if ((rc = k->backend->open(k, options, note)) != 0)
		kernels_destroy(&k);
	*out = k;
	return rc;
}

void
kernels_destroy(struct kernels **k)
{
	if (*k == NULL)
		return;
	kernels_peers_close(*k);
	(*k)->backend->close(*k);
	free(*k);
	*k = NULL;
}

enum dtype
kernels_dtype(const struct kernels *k)
{
	return k->dtype;
}

int
kernels_threads(const struct kernels *k)
{
	return k->threads;
}

const char *
kernels_compute_class(const struct kernels *k)
{
	return k->compute_class;
}

const char *
kernels_describe(const struct kernels *k)
{
	return k->describe;
}

const char *
kernels_reason(const struct kernels *k)
{
	return k->reason;
}

const char *
kernels_device_versions(const struct kernels *k)
{
	return k->device;
}

bool
kernels_on_device(const struct kernels *k, struct kernels_device *device)
{
	return k->device[0] != '\0' && kernels_device(device, NULL) == 0;
}

size_t
kernels_gpu_bytes(enum dtype dtype, int64_t rows, int64_t vocab, enum kernels_gpu_use use)
{
	size_t logits = (size_t)(cuda_chunk_rows(vocab, rows) * cuda_row_floats(vocab)), beside = sizeof(float);

	if (use == KERNELS_GPU_TRAINS)
		beside = dtype == DTYPE_F32 ? 0 : dtype_size(dtype);
	else if (use == KERNELS_GPU_LABELS_DENSE)
		beside = 2 * sizeof(float);
	return (size_t)CUDA_WORKSPACE + logits * (sizeof(float) + beside);
}

void
kernels_params(struct kernels *k, const void *params, int64_t n, uint64_t generation)
{
	if (k->ops->params != NULL)
		k->ops->params(k, params, (size_t)n * dtype_size(k->dtype), generation);
}

void
kernels__shape(bool fits, const char *kernel)
{
	if (!fits)
		log_fatal("kernels.shape", "kernel=%s", kernel);
}

/* ---- memory ---- */

void *
kernels_alloc(struct kernels *k, size_t bytes)
{
	return k->ops->alloc(k, bytes);
}

void
kernels_free(struct kernels *k, void *p)
{
	if (p != NULL)
		k->ops->free(k, p);
}

void *
kernels_host_alloc(struct kernels *k, size_t bytes)
{
	return k->ops->host_alloc(k, bytes);
}

void
kernels_host_free(struct kernels *k, void *p)
{
	if (p != NULL)
		k->ops->host_free(k, p);
}

void
kernels_zero(struct kernels *k, void *p, size_t bytes)
{
	k->ops->zero(k, p, bytes);
}

void
kernels_copy(struct kernels *k, void *to, const void *from, size_t bytes)
{
	k->ops->transfer(k, KERNELS__COPY, to, from, bytes);
}

void
kernels_upload(struct kernels *k, void *to, const void *host, size_t bytes)
{
	k->ops->transfer(k, KERNELS__UPLOAD, to, host, bytes);
}

void
kernels_download(struct kernels *k, void *host, const void *from, size_t bytes)
{
	k->ops->transfer(k, KERNELS__DOWNLOAD, host, from, bytes);
}

void
kernels_download_start(struct kernels *k, void *host, const void *from, size_t bytes)
{
	k->ops->transfer(k, KERNELS__DOWNLOAD_START, host, from, bytes);
}

void
kernels_sync(struct kernels *k)
{
	if (k->ops->sync != NULL)
		k->ops->sync(k);
}

void *
kernels_host_pointer(struct kernels *k, void *p)
{
	return k->ops->host_pointer != NULL ? k->ops->host_pointer(k, p) : NULL;
}

/* ---- events ---- */

struct kernels_event {
	void *own;			/* the backend's event; NULL if calls are complete when they return */
};

struct kernels_event *
kernels_event_new(struct kernels *k)
{
	struct kernels_event *e = calloc(1, sizeof(*e));

	if (e != NULL && k->ops->event_new != NULL && k->ops->event_new(k, &e->own) != 0) {
		free(e);
		return NULL;
	}
	return e;
}

void
kernels_event_destroy(struct kernels *k, struct kernels_event **e)
{
	if (*e != NULL && (*e)->own != NULL)
		k->ops->event_destroy(k, (*e)->own);
	free(*e);
	*e = NULL;
}

void
kernels_event_record(struct kernels *k, struct kernels_event *e)
{
	if (e->own != NULL)
		k->ops->event_record(k, e->own);
}

bool
kernels_event_done(struct kernels *k, const struct kernels_event *e)
{
	return e->own == NULL || k->ops->event_done(k, e->own);
}

void
kernels_event_wait(struct kernels *k, const struct kernels_event *e)
{
	if (e->own != NULL)
		k->ops->event_wait(k, e->own);
}
