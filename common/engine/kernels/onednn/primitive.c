/* SPDX-License-Identifier: Apache-2.0 */
/*
 * primitive - oneDNN's C API: descriptors, primitives and reorders by shape, execution, and the backend's
 * table.
 *
 * oneDNN 2 makes a primitive descriptor from an operation descriptor, oneDNN 3 in one call; the functions up
 * to matmul_descriptor hide this difference.
 */
#include "engine/kernels/onednn/onednn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <omp.h>

#include "base/log/log.h"

static void
must(dnnl_status_t status, const char *what)
{
	if (status != dnnl_success)
		log_fatal("kernels.onednn", "what=\"%s\" status=%d", what, (int)status);
}

static dnnl_data_type_t
type_of(enum dtype dtype)
{
	return dtype == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32;
}

/* ---- descriptors, in both versions ---- */

static void
layout_strided(struct layout *l, int64_t rows, int64_t cols, enum dtype dtype, int64_t row_stride, int64_t col_stride)
{
	const dnnl_dims_t dims = {rows, cols}, strides = {row_stride, col_stride};

#if DNNL_VERSION_MAJOR >= 3
	must(dnnl_memory_desc_create_with_strides(&l->md, 2, dims, type_of(dtype), strides), "memory descriptor");
#else
	must(dnnl_memory_desc_init_by_strides(&l->md, 2, dims, type_of(dtype), strides), "memory descriptor");
#endif
}

static void
layout_tag(struct layout *l, int64_t rows, int64_t cols, enum dtype dtype, dnnl_format_tag_t tag)
{
	const dnnl_dims_t dims = {rows, cols};

#if DNNL_VERSION_MAJOR >= 3
	must(dnnl_memory_desc_create_with_tag(&l->md, 2, dims, type_of(dtype), tag), "memory descriptor");
#else
	must(dnnl_memory_desc_init_by_tag(&l->md, 2, dims, type_of(dtype), tag), "memory descriptor");
#endif
}

/*
 * Makes memory objects, which onednn__run points at the data of each call. Making one takes two allocations,
 * which is too slow for each product.
 */
static void
layout_prepare(struct layout *l, const struct onednn *o)
{
	if ((l->memories = calloc((size_t)o->n_streams, sizeof(*l->memories))) == NULL)
		log_fatal("kernels.memory", "what=onednn");
	for (int i = 0; i < o->n_streams; i++)
		must(dnnl_memory_create(&l->memories[i], LAYOUT_PTR(l), o->engine, DNNL_MEMORY_NONE), "memory");
}

static void
layout_drop(struct layout *l, const struct onednn *o)
{
	for (int i = 0; l->memories != NULL && i < o->n_streams; i++)
		dnnl_memory_destroy(l->memories[i]);
	free(l->memories);
	l->memories = NULL;
#if DNNL_VERSION_MAJOR >= 3
	if (l->md != NULL)
		dnnl_memory_desc_destroy(l->md);
	l->md = NULL;
#endif
}

static void
layout_query(struct layout *l, dnnl_primitive_desc_t pd, dnnl_query_t what)
{
#if DNNL_VERSION_MAJOR >= 3
	must(dnnl_memory_desc_clone(&l->md, dnnl_primitive_desc_query_md(pd, what, 0)), "query");
#else
	l->md = *dnnl_primitive_desc_query_md(pd, what, 0);
#endif
}

static dnnl_status_t
matmul_descriptor(dnnl_primitive_desc_t *pd, dnnl_engine_t engine, const struct layout *a, const struct layout *b,
    const struct layout *bias, const struct layout *c, bool add)
{
	dnnl_primitive_attr_t attr;
	dnnl_post_ops_t ops;
	dnnl_status_t status;

	must(dnnl_primitive_attr_create(&attr), "attributes");
	must(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user), "scratchpad mode");
	if (add) {
		must(dnnl_post_ops_create(&ops), "post-ops");
#if DNNL_VERSION_MAJOR >= 3
		must(dnnl_post_ops_append_sum(ops, 1, 0, dnnl_data_type_undef), "sum");
#else
		must(dnnl_post_ops_append_sum(ops, 1), "sum");
#endif
		must(dnnl_primitive_attr_set_post_ops(attr, ops), "post-ops");
		dnnl_post_ops_destroy(ops);
	}
#if DNNL_VERSION_MAJOR >= 3
	status = dnnl_matmul_primitive_desc_create(
	    pd, engine, a->md, b->md, bias != NULL ? bias->md : NULL, c->md, attr);
#else
	{
		dnnl_matmul_desc_t op;

		if ((status = dnnl_matmul_desc_init(
			 &op, &a->md, &b->md, bias != NULL ? &bias->md : NULL, &c->md)) == dnnl_success)
			status = dnnl_primitive_desc_create(pd, &op, attr, engine, NULL);
	}
#endif
	dnnl_primitive_attr_destroy(attr);
	return status;
}

/* ---- primitives, kept by shape ---- */

static bool
copies_column(const struct shape *s)
{
	return DNNL_VERSION_MAJOR >= 3 && s->m == 1 && s->trans_a && s->lda != 1;
}

void *
onednn__source(const struct primitive *p, const void *a, void *scratch)
{
	char *column = (char *)scratch + p->column_at;

	if (p->column_size == 0)
		return (void *)(uintptr_t)a;
	for (int64_t i = 0; i < p->shape.k; i++)
		memcpy(column + (size_t)i * p->column_size,
		    (const char *)a + (size_t)(i * p->shape.lda) * p->column_size, p->column_size);
	return column;
}

static void
shape_layouts(const struct shape *s, struct layout *a, struct layout *b, struct layout *c, struct layout *bias)
{
	if (copies_column(s))
		layout_strided(a, 1, s->k, (enum dtype)s->dtype, s->k, 1);
	else
		layout_strided(a, s->m, s->k, (enum dtype)s->dtype, s->trans_a ? 1 : s->lda, s->trans_a ? s->lda : 1);
	if (s->packed)
		layout_tag(b, s->k, s->n, (enum dtype)s->dtype, dnnl_format_tag_any);
	else
		layout_strided(b, s->k, s->n, (enum dtype)s->dtype, s->trans_b ? 1 : s->ldb, s->trans_b ? s->ldb : 1);
	layout_strided(c, s->m, s->n, (enum dtype)s->dtype_c, s->ldc, 1);
	if (s->bias)
		layout_strided(bias, 1, s->n, (enum dtype)s->dtype, s->n, 1);
}

/*
 * oneDNN's preferred format of a panel [k, n] of weights, for a full part, so that it does not depend on m.
 */
static void
packed_layout(struct onednn *o, int64_t n, int64_t k, struct layout *out)
{
	const struct shape s = {.m = ONEDNN__ROWS,
	    .n = n,
	    .k = k,
	    .lda = k,
	    .ldc = n,
	    .dtype = o->dtype,
	    .dtype_c = o->dtype,
	    .packed = true};
	struct layout a = {0}, b = {0}, c = {0};
	dnnl_primitive_desc_t pd;

	shape_layouts(&s, &a, &b, &c, NULL);
	must(matmul_descriptor(&pd, o->engine, &a, &b, NULL, &c, false), "matmul");
	layout_query(out, pd, dnnl_query_weights_md);
	dnnl_primitive_desc_destroy(pd);
	layout_drop(&a, o);
	layout_drop(&b, o);
	layout_drop(&c, o);
}

struct primitive *
onednn__primitive(struct kernels *k, const struct shape *s)
{
	struct onednn *o = onednn__of(k);
	dnnl_primitive_desc_t pd;
	const char *name = "";
	struct primitive *p;

	SLIST_FOREACH(p, &o->primitives, next)
		if (memcmp(&p->shape, s, sizeof(*s)) == 0)
			return p;
	if ((p = calloc(1, sizeof(*p))) == NULL)
		log_fatal("kernels.memory", "what=onednn");
	p->shape = *s;
	shape_layouts(s, &p->a, &p->b, &p->c, &p->bias);
	if (s->packed) {
		layout_drop(&p->b, o);
		packed_layout(o, s->n, s->k, &p->b);
	}
	must(matmul_descriptor(&pd, o->engine, &p->a, &p->b, s->bias ? &p->bias : NULL, &p->c, s->add), "matmul");
	must(dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, (void *)&name), "implementation");
	if (strncmp(name, "ref", 3) == 0) {
		k->n_slow++;
		log_warn("kernels.slow", "what=matmul m=%lld n=%lld k=%lld implementation=%s",
		    (long long)s->m, (long long)s->n, (long long)s->k, name);
	}
	layout_query(&p->scratch, pd, dnnl_query_scratchpad_md);
	p->scratch_bytes = dnnl_memory_desc_get_size(LAYOUT_PTR(&p->scratch));
	if (copies_column(s)) {
		p->column_at = (p->scratch_bytes + 63) / 64 * 64;
		p->column_size = dtype_size((enum dtype)s->dtype);
		p->scratch_bytes = p->column_at + (size_t)s->k * p->column_size;
	}
	must(dnnl_primitive_create(&p->run, pd), "primitive");
	dnnl_primitive_desc_destroy(pd);
	for (struct layout *const *l = (struct layout *const[]){&p->a, &p->b, &p->c, &p->scratch, s->bias ? &p->bias : NULL, NULL}; *l != NULL; l++)
		layout_prepare(*l, o);
	SLIST_INSERT_HEAD(&o->primitives, p, next);
	return p;
}

struct reorder *
onednn__reorder(struct onednn *o, int64_t n, int64_t k, int64_t ld, bool trans)
{
	struct layout blocked = {0};
	dnnl_primitive_desc_t pd;
	struct reorder *r;

	SLIST_FOREACH(r, &o->reorders, next)
		if (r->n == n && r->k == k && r->ld == ld && (r->trans != 0) == trans)
			return r;
	if ((r = calloc(1, sizeof(*r))) == NULL)
		log_fatal("kernels.memory", "what=onednn");
	*r = (struct reorder){.n = n, .k = k, .ld = ld, .trans = trans};
	layout_strided(&r->from, k, n, o->dtype, trans ? 1 : ld, trans ? ld : 1);
	packed_layout(o, n, k, &r->to);
	r->to_bytes = dnnl_memory_desc_get_size(LAYOUT_PTR(&r->to));
	layout_tag(&blocked, k, n, o->dtype, dnnl_BA16a64b2a);
	r->blocked = o->dtype == DTYPE_BF16 && dnnl_memory_desc_equal(LAYOUT_PTR(&blocked), LAYOUT_PTR(&r->to));
	layout_drop(&blocked, o);
	must(dnnl_reorder_primitive_desc_create(
		 &pd, LAYOUT_PTR(&r->from), o->engine, LAYOUT_PTR(&r->to), o->engine, NULL),
	    "reorder");
	must(dnnl_primitive_create(&r->run, pd), "reorder");
	dnnl_primitive_desc_destroy(pd);
	layout_prepare(&r->from, o);
	layout_prepare(&r->to, o);
	SLIST_INSERT_HEAD(&o->reorders, r, next);
	return r;
}

/* ---- execution, on the calling thread ---- */

void
onednn__run(struct onednn *o, dnnl_primitive_t primitive, int thread, const struct argument *args, int n)
{
	dnnl_exec_arg_t list[6];
	int threads = omp_get_max_threads();

	for (int i = 0; i < n; i++) {
		list[i] = (dnnl_exec_arg_t){args[i].index, args[i].layout->memories[thread]};
		must(dnnl_memory_set_data_handle(list[i].memory, args[i].data), "memory");
	}
	if (threads != 1)
		omp_set_num_threads(1);
	must(dnnl_primitive_execute(primitive, o->streams[thread], n, list), "execute");
	must(dnnl_stream_wait(o->streams[thread]), "wait");
	if (threads != 1)
		omp_set_num_threads(threads);
}

/* ---- opening and closing a kernels handle ---- */

/* The instruction set for which oneDNN generates code on this processor. */
static const char *
isa_name(bool *bf16)
{
	dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();

	*bf16 = (isa & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
	if ((isa & dnnl_cpu_isa_avx512_core_amx) == dnnl_cpu_isa_avx512_core_amx)
		return "amx";
	if (*bf16)
		return "avx512_bf16";
	if ((isa & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core)
		return "avx512";
	return (isa & dnnl_cpu_isa_avx2) == dnnl_cpu_isa_avx2 ? "avx2" : "sse41";
}

static bool
bf16_units(char *units, size_t size)
{
	bool has;
	const char *isa = isa_name(&has);

	if (has)
		snprintf(units, size, "%s", isa);
	else
		snprintf(units, size, "the processor has neither avx512_bf16 nor amx_bf16 (oneDNN finds %s)", isa);
	return has;
}

static void
onednn_close(struct kernels *k)
{
	struct onednn *o = onednn__of(k);
	struct primitive *p;
	struct reorder *r;

	cpu__close(k);
	if (o == NULL)
		return;
	while ((p = SLIST_FIRST(&o->primitives)) != NULL) {
		SLIST_REMOVE_HEAD(&o->primitives, next);
		dnnl_primitive_destroy(p->run);
		layout_drop(&p->a, o);
		layout_drop(&p->b, o);
		layout_drop(&p->c, o);
		layout_drop(&p->bias, o);
		layout_drop(&p->scratch, o);
		free(p);
	}
	while ((r = SLIST_FIRST(&o->reorders)) != NULL) {
		SLIST_REMOVE_HEAD(&o->reorders, next);
		dnnl_primitive_destroy(r->run);
		layout_drop(&r->from, o);
		layout_drop(&r->to, o);
		free(r);
	}
	if (o->owns_packs && o->packs != NULL)
		onednn__packs_destroy(&o->packs);
	for (int i = 0; i < o->n_streams; i++)
		dnnl_stream_destroy(o->streams[i]);
	free(o->streams);
	dnnl_engine_destroy(o->engine);
	free(o);
}

static int
onednn_open(struct kernels *k, const struct kernels_options *options, struct err_note *note)
{
	const dnnl_version_t *v = dnnl_version();
	struct onednn *o;
	char version[24];
	bool bf16;
	int rc;

	if ((rc = cpu__open(k, options, note)) != 0)
		return rc;
	if ((k->own = o = calloc(1, sizeof(*o))) == NULL)
		return err_note_set(note, ENOMEM, "oneDNN");
	o->dtype = k->dtype;
	must(dnnl_engine_create(&o->engine, dnnl_cpu, 0), "engine");
	if ((o->streams = calloc((size_t)k->threads, sizeof(*o->streams))) == NULL)
		return err_note_set(note, ENOMEM, "oneDNN");
	for (; o->n_streams < k->threads; o->n_streams++)
		must(dnnl_stream_create(&o->streams[o->n_streams], o->engine, dnnl_stream_default_flags), "stream");
	o->owns_packs = options->share == NULL;
	if ((o->packs = o->owns_packs ? onednn__packs_new() : onednn__of(options->share)->packs) == NULL)
		return err_note_set(note, ENOMEM, "oneDNN");
	snprintf(version, sizeof(version), "%d.%d.%d", v->major, v->minor, v->patch);
	cpu__describe(k, "oneDNN", version, isa_name(&bf16));
	return 0;
}

static void
onednn_adamw(struct kernels *k, float *w, float *m, float *v, const float *grad, void *copy,
    enum dtype copy_dtype, int64_t n, const struct kernels_adamw *a)
{
	onednn__stale(onednn__of(k));
	cpu__adamw(k, w, m, v, grad, copy, copy_dtype, n, a);
}

static void
onednn_muon(struct kernels *k, const struct kernels_muon_matrix *list, int64_t n, const struct kernels_muon *a)
{
	onednn__stale(onednn__of(k));
	cpu__muon_with(k, k->dtype == DTYPE_BF16 ? &onednn__bf16 : NULL, list, n, a);
}

const struct kernels_ops kernels__onednn = {
	CPU__OPS,
	.bf16_units = bf16_units,
	.open = onednn_open,
	.close = onednn_close,
	.params = onednn__params,
	.matmul = onednn__matmul,
	.attention = onednn__attention,
	.attention_bwd = onednn__attention_bwd,
	.adamw = onednn_adamw,
	.muon = onednn_muon,
};
