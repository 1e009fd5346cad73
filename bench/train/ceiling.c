/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/train/ceiling.h"

#ifdef SALT_ONEDNN

#include <dnnl.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/common/bench.h"

static void
must(dnnl_status_t status)
{
	if (status != dnnl_success) {
		fprintf(stderr, "bench_train: oneDNN: status %d\n", (int)status);
		exit(70);
	}
}

#if DNNL_VERSION_MAJOR >= 3
#define MD(md) (md)
#else
#define MD(md) (&(md))
#define dnnl_memory_desc_create_with_strides dnnl_memory_desc_init_by_strides
#define dnnl_memory_desc_create_with_tag dnnl_memory_desc_init_by_tag
#endif

static void
plain(dnnl_memory_desc_t *md, int64_t rows, int64_t cols, dnnl_data_type_t type, bool trans)
{
	const dnnl_dims_t dims = {rows, cols}, strides = {trans ? 1 : cols, trans ? rows : 1};

	must(dnnl_memory_desc_create_with_strides(md, 2, dims, type, strides));
}

static void
any(dnnl_memory_desc_t *md, int64_t rows, int64_t cols)
{
	const dnnl_dims_t dims = {rows, cols};

	must(dnnl_memory_desc_create_with_tag(md, 2, dims, dnnl_bf16, dnnl_format_tag_any));
}

static dnnl_primitive_desc_t
descriptor(dnnl_engine_t engine, dnnl_memory_desc_t *a, dnnl_memory_desc_t *b, dnnl_memory_desc_t *c)
{
	dnnl_primitive_desc_t pd;
#if DNNL_VERSION_MAJOR >= 3
	must(dnnl_matmul_primitive_desc_create(&pd, engine, *a, *b, NULL, *c, NULL));
#else
	dnnl_matmul_desc_t op;

	must(dnnl_matmul_desc_init(&op, a, b, NULL, c));
	must(dnnl_primitive_desc_create(&pd, &op, NULL, engine, NULL));
#endif
	return pd;
}

double
ceiling_bf16_seconds(bool trans_a, int64_t m, int64_t n, int64_t k, int threads)
{
	dnnl_memory_desc_t a, b, c;
	dnnl_memory_t memory[3];
	dnnl_primitive_desc_t pd;
	dnnl_primitive_t product;
	dnnl_engine_t engine;
	dnnl_stream_t stream;
	dnnl_exec_arg_t args[3];
	double seconds = 0;
	int before = omp_get_max_threads();

	omp_set_num_threads(threads);
	must(dnnl_engine_create(&engine, dnnl_cpu, 0));
	must(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags));
	plain(&a, m, k, dnnl_bf16, trans_a);
	if (trans_a)
		plain(&b, k, n, dnnl_bf16, false);
	else
		any(&b, k, n);
	plain(&c, m, n, trans_a ? dnnl_f32 : dnnl_bf16, false);
	pd = descriptor(engine, &a, &b, &c);
	must(dnnl_primitive_create(&product, pd));
	must(dnnl_memory_create(&memory[0], MD(a), engine, DNNL_MEMORY_ALLOCATE));
	must(dnnl_memory_create(&memory[1], dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0), engine, DNNL_MEMORY_ALLOCATE));
	must(dnnl_memory_create(&memory[2], MD(c), engine, DNNL_MEMORY_ALLOCATE));
	args[0] = (dnnl_exec_arg_t){DNNL_ARG_SRC, memory[0]};
	args[1] = (dnnl_exec_arg_t){DNNL_ARG_WEIGHTS, memory[1]};
	args[2] = (dnnl_exec_arg_t){DNNL_ARG_DST, memory[2]};
	for (int i = 0; i < 2; i++) {
		double start = bench_now();

		must(dnnl_primitive_execute(product, stream, 3, args));
		must(dnnl_stream_wait(stream));
		seconds = bench_now() - start;
	}
	for (int i = 0; i < 3; i++)
		dnnl_memory_destroy(memory[i]);
	dnnl_primitive_destroy(product);
	dnnl_primitive_desc_destroy(pd);
#if DNNL_VERSION_MAJOR >= 3
	dnnl_memory_desc_destroy(a);
	dnnl_memory_desc_destroy(b);
	dnnl_memory_desc_destroy(c);
#endif
	dnnl_stream_destroy(stream);
	dnnl_engine_destroy(engine);
	omp_set_num_threads(before);
	return seconds;
}

#else

double
ceiling_bf16_seconds(bool trans_a, int64_t m, int64_t n, int64_t k, int threads)
{
	(void)trans_a;
	(void)m;
	(void)n;
	(void)k;
	(void)threads;
	return -1;
}

#endif
