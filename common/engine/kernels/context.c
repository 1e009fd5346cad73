#include "engine/kernels/kernels_internal.h"

#include <cblas.h>
#include <errno.h>
#include <omp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log/log.h"
#include "base/mem/mem.h"

static pthread_once_t openblas_once = PTHREAD_ONCE_INIT;

/*
 * OpenBLAS is only ever called for one thread: the parts of a product are ours (linear.c). Its own team size is one number for
 * the process; set here, before any call, so that no call ever changes it. (The setter also sets OpenMP's, which is put back.)
 */
static void
openblas_start(void)
{
	int threads = omp_get_max_threads();

	openblas_set_num_threads(1);
	omp_set_num_threads(threads);
}

static const struct vec *
pick_vec(void)
{
#ifdef SALT_VEC_X86
	__builtin_cpu_init();
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
	    __builtin_cpu_supports("avx512bw"))
		return &vec_avx512;
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
		return &vec_haswell;
#endif
	return &vec_base;
}

/* What the options amount to here. */
struct choice {
	bool onednn;
	enum dtype dtype;
	char reason[192];
};

static int
choose(const struct kernels_options *o, struct choice *c, struct err_note *note)
{
	bool has_bf16, wants_bf16 = o->dtype == KERNELS_DTYPE_BF16;
	const char *isa = kernels__onednn_isa(&has_bf16);
	char lacks[96];

	if (o->threads < 0 || o->threads > 4096) {
		err_note_set(note, ERR_RANGE, "threads");
		err_note_expected(note, "0 to 4096");
		err_note_found(note, "%d", o->threads);
		return ERR_RANGE;
	}
	if (isa == NULL)
		snprintf(lacks, sizeof(lacks), "this build has no oneDNN");
	else
		snprintf(lacks, sizeof(lacks), "the processor has neither avx512_bf16 nor amx_bf16 (oneDNN finds %s)", isa);
	if (o->backend == KERNELS_BACKEND_ONEDNN && isa == NULL) {
		err_note_set(note, ERR_UNSUPPORTED, "compute.backend");
		err_note_expected(note, "auto or openblas: %s", lacks);
		err_note_found(note, "onednn");
		return ERR_UNSUPPORTED;
	}
	if (o->backend == KERNELS_BACKEND_ONEDNN && wants_bf16 && !has_bf16) {
		err_note_set(note, ERR_UNSUPPORTED, "compute.dtype");
		err_note_expected(note, "fp32, or bf16 on openblas (slow): %s", lacks);
		err_note_found(note, "bf16 on onednn");
		return ERR_UNSUPPORTED;
	}
	c->onednn = o->backend == KERNELS_BACKEND_ONEDNN;
	c->dtype = wants_bf16 ? DTYPE_BF16 : DTYPE_F32;
	if (has_bf16 && o->backend != KERNELS_BACKEND_OPENBLAS && o->dtype != KERNELS_DTYPE_FP32) {
		c->onednn = true;
		c->dtype = DTYPE_BF16;
		snprintf(c->reason, sizeof(c->reason), "the processor multiplies bf16 (%s)", isa);
	} else if (wants_bf16) {
		snprintf(c->reason, sizeof(c->reason), "bf16 by expansion to fp32, slower than fp32: %s", has_bf16 ? "openblas was asked for" : lacks);
	} else if (o->dtype == KERNELS_DTYPE_FP32) {
		snprintf(c->reason, sizeof(c->reason), "fp32 was asked for");
	} else {
		snprintf(c->reason, sizeof(c->reason), "no bf16: %s", has_bf16 ? "openblas was asked for" : lacks);
	}
	return 0;
}

static void
class_of(const struct choice *c, char *buf, size_t size)
{
	snprintf(buf, size, "%s/%s", dtype_name(c->dtype), c->onednn ? "onednn" : "openblas");
}

int
kernels_resolve(const struct kernels_options *options, char *buf, size_t size, struct err_note *note)
{
	struct choice c;
	int rc;

	if ((rc = choose(options, &c, note)) == 0)
		class_of(&c, buf, size);
	return rc;
}

int
kernels_new(struct kernels **out, const struct kernels_options *options, struct err_note *note)
{
	struct kernels *k;
	struct choice c;
	bool bf16;
	char version[24] = "";
	int rc;

	*out = NULL;
	if ((k = calloc(1, sizeof(*k))) == NULL)
		return err_note_set(note, ENOMEM, "kernels");
	if ((rc = choose(options, &c, note)) != 0)
		goto out;
	class_of(&c, k->compute_class, sizeof(k->compute_class));
	if (openblas_get_parallel() != OPENBLAS_OPENMP) {
		rc = err_note_set(note, ERR_LIBRARY, "OpenBLAS");
		err_note_expected(note, "its OpenMP build (libopenblas-openmp-dev)");
		err_note_found(note, "%s", openblas_get_parallel() == OPENBLAS_SEQUENTIAL ? "the sequential build" : "the pthread build");
		goto out;
	}
	pthread_once(&openblas_once, openblas_start);
	k->dtype = c.dtype;
	k->small = KERNELS_SMALL;
	k->threads = options->threads > 0 ? options->threads : omp_get_num_procs();
	k->vec = pick_vec();
	if (c.onednn && (rc = kernels__onednn_new(&k->onednn, c.dtype, k->threads, options->share != NULL ? options->share->onednn : NULL)) != 0) {
		err_note_set(note, rc, "oneDNN");
		goto out;
	}
	if (c.onednn)
		kernels__onednn_version(version, sizeof(version));
	else
		sscanf(openblas_get_config(), "OpenBLAS %23s", version);
	snprintf(k->describe, sizeof(k->describe), "%s %s %.20s %s, %s loops, %d thread%s", c.onednn ? "oneDNN" : "OpenBLAS", version,
	    c.onednn ? kernels__onednn_isa(&bf16) : openblas_get_corename(), dtype_name(k->dtype), k->vec->name, k->threads,
	    k->threads == 1 ? "" : "s");
	snprintf(k->reason, sizeof(k->reason), "%s", c.reason);
	*out = k;
	k = NULL;
out:
	kernels_destroy(&k);
	return rc;
}

void
kernels_destroy(struct kernels **k)
{
	if (*k == NULL)
		return;
	free((*k)->scratch);
	free((*k)->panels);
	kernels__onednn_destroy(&(*k)->onednn);
	free((*k)->rope_table);
	free((*k)->rope_freq);
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

void
kernels_params(struct kernels *k, const void *params, int64_t n, uint64_t generation)
{
	if (k->onednn != NULL)
		kernels__onednn_params(k->onednn, params, (size_t)n * dtype_size(k->dtype), generation);
}

int64_t
kernels__rows(const struct tensor *t)
{
	int64_t n = 1;

	for (int i = 0; i < t->n_dims - 1; i++)
		n *= t->dims[i];
	return n;
}

int64_t
kernels__cols(const struct tensor *t)
{
	return t->dims[t->n_dims - 1];
}

static float *
grown(float **room, size_t *room_bytes, size_t n)
{
	size_t bytes;

	if (!mem_mul(n, sizeof(float), &bytes))
		log_fatal("kernels.memory", "floats=%zu", n);
	if (bytes > *room_bytes) {
		free(*room);
		if ((*room = mem_alloc(bytes, 1)) == NULL)
			log_fatal("kernels.memory", "bytes=%zu", bytes);
		*room_bytes = bytes;
	}
	return *room;
}

float *
kernels__scratch(struct kernels *k, size_t n)
{
	return grown(&k->scratch, &k->scratch_bytes, n);
}

float *
kernels__panels(struct kernels *k, size_t n)
{
	return grown(&k->panels, &k->panels_bytes, n);
}

void
kernels__shape(bool fits, const char *kernel)
{
	if (!fits)
		log_fatal("kernels.shape", "kernel=%s", kernel);
}
