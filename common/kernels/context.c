#include "kernels/internal.h"

#include <cblas.h>
#include <errno.h>
#include <omp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log/log.h"
#include "mem/mem.h"

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

int
kernels_resolve(const struct kernels_options *options, char *buf, size_t size, struct err_note *note)
{
	if (options->threads < 0 || options->threads > 4096) {
		err_note_set(note, ERR_RANGE, "threads");
		err_note_expected(note, "0 to 4096");
		err_note_found(note, "%d", options->threads);
		return ERR_RANGE;
	}
	if (options->backend == KERNELS_BACKEND_ONEDNN) {
		err_note_set(note, ERR_UNSUPPORTED, "compute.backend");
		err_note_expected(note, "auto or openblas: this build has OpenBLAS");
		err_note_found(note, "onednn");
		return ERR_UNSUPPORTED;
	}
	if (options->dtype == KERNELS_DTYPE_BF16) {
		err_note_set(note, ERR_UNSUPPORTED, "compute.dtype");
		err_note_expected(note, "auto or fp32: this build's OpenBLAS backend computes in fp32");
		err_note_found(note, "bf16");
		return ERR_UNSUPPORTED;
	}
	snprintf(buf, size, "fp32/openblas");
	return 0;
}

int
kernels_new(struct kernels **out, const struct kernels_options *options, struct err_note *note)
{
	struct kernels *k;
	char version[24] = "";
	int rc;

	*out = NULL;
	if ((k = calloc(1, sizeof(*k))) == NULL)
		return err_note_set(note, ENOMEM, "kernels");
	if ((rc = kernels_resolve(options, k->compute_class, sizeof(k->compute_class), note)) != 0)
		goto out;
	if (openblas_get_parallel() != OPENBLAS_OPENMP) {
		rc = err_note_set(note, ERR_LIBRARY, "OpenBLAS");
		err_note_expected(note, "its OpenMP build (libopenblas-openmp-dev)");
		err_note_found(note, "%s", openblas_get_parallel() == OPENBLAS_SEQUENTIAL ? "the sequential build" : "the pthread build");
		goto out;
	}
	pthread_once(&openblas_once, openblas_start);
	k->dtype = DTYPE_F32;
	k->small = KERNELS_SMALL;
	k->threads = options->threads > 0 ? options->threads : omp_get_num_procs();
	k->vec = pick_vec();
	sscanf(openblas_get_config(), "OpenBLAS %23s", version);
	snprintf(k->describe, sizeof(k->describe), "OpenBLAS %s %.20s fp32, %s loops, %d thread%s", version,
	    openblas_get_corename(), k->vec->name, k->threads, k->threads == 1 ? "" : "s");
	snprintf(k->reason, sizeof(k->reason), "fp32 on OpenBLAS is what this build has");
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
	(void)k;
	(void)params;
	(void)n;
	(void)generation;
}

void *
kernels_alloc(struct kernels *k, size_t bytes)
{
	(void)k;
	return mem_alloc(bytes, 1);
}

void
kernels_free(struct kernels *k, void *p)
{
	(void)k;
	free(p);
}

void
kernels_zero(struct kernels *k, void *p, size_t bytes)
{
	(void)k;
	if (bytes > 0)
		memset(p, 0, bytes);
}

void
kernels_copy(struct kernels *k, void *to, const void *from, size_t bytes)
{
	(void)k;
	if (bytes > 0)
		memmove(to, from, bytes);
}

void
kernels_upload(struct kernels *k, void *to, const void *host, size_t bytes)
{
	kernels_copy(k, to, host, bytes);
}

void
kernels_download(struct kernels *k, void *host, const void *from, size_t bytes)
{
	kernels_copy(k, host, from, bytes);
}

void
kernels_sync(struct kernels *k)
{
	(void)k;
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

float *
kernels__scratch(struct kernels *k, size_t n)
{
	size_t bytes;

	if (!mem_mul(n, sizeof(float), &bytes))
		log_fatal("kernels.memory", "floats=%zu", n);
	if (bytes > k->scratch_bytes) {
		free(k->scratch);
		if ((k->scratch = mem_alloc(bytes, 1)) == NULL)
			log_fatal("kernels.memory", "bytes=%zu", bytes);
		k->scratch_bytes = bytes;
	}
	return k->scratch;
}

void
kernels__shape(bool fits, const char *kernel)
{
	if (!fits)
		log_fatal("kernels.shape", "kernel=%s", kernel);
}
