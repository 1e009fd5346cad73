/*
 * linear_onednn - products of matrices by oneDNN; the only file that knows it. Optional: without oneDNN no_onednn.c stands in its place.
 *
 * oneDNN never runs a team of its own: C is cut into parts by the shape alone (struct cut), and the context's threads take parts,
 * each a primitive made for and run on one thread. So bits do not depend on the number of threads; they may depend on m, through the shape of
 * the last part.
 * A part is whole rows of C where it can be, because oneDNN's fast products want C without gaps between its rows: handed a stride they
 * fall back to others, and with repacked weights to a plain loop a thousand times as slow. Where C is too wide, or too few rows would make
 * too few parts of a deep product, a part is COLUMNS wide, computed without gaps in the thread's own room and moved to its place.
 * Weights of forward inside a range told by kernels_params are kept repacked, a panel of a part's width at a time, in the format that oneDNN
 * asks for. Backward takes them as they lie: a second form would cost 2 more bytes a parameter, and is worth little (performance.md).
 * oneDNN 2 makes a primitive descriptor from an operation descriptor, oneDNN 3 in one call; the functions up to made() hide that.
 */
#include "kernels/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dnnl.h>
#include <omp.h>
#include <pthread.h>

#include "log/log.h"
#include "mem/mem.h"

#define ROWS 128
#define COLUMNS 256
/* Products wider or deeper than this are cut into COLUMNS too. */
#define WIDE 4096
#define DEEP 8192
#define MAX_RANGES 16

#if DNNL_VERSION_MAJOR >= 3
#define MD_PARAM const_dnnl_memory_desc_t
struct layout {
	dnnl_memory_desc_t md;
};
#define LAYOUT_PTR(l) ((l)->md)
#else
#define MD_PARAM const dnnl_memory_desc_t *
struct layout {
	dnnl_memory_desc_t md;
};
#define LAYOUT_PTR(l) (&(l)->md)
#endif

/* Everything that a part's primitive depends on. Zeroed before it is filled, so that memcmp compares it. */
struct shape {
	int64_t m, n, k, lda, ldb, ldc;
	int32_t trans_a, trans_b, dtype, dtype_c, bias, add, packed;
	int32_t unused;
};

struct primitive {
	struct shape shape;
	dnnl_primitive_t run;
	struct layout a, b, c, bias, scratch;
	size_t scratch_bytes;
};

struct reorder {
	int64_t n, k, ld;
	int32_t trans, unused;
	dnnl_primitive_t run;
	struct layout from, to;
	size_t to_bytes;
};

/* One weight repacked. */
struct pack {
	const void *data;
	int64_t n, k, ld;
	bool trans, fresh;
	char *panels;
	size_t panel_bytes;		/* of a full panel; the last may use less */
};

struct range {
	const char *begin, *end;
	uint64_t generation;
};

/* Repacked weights, of one context or shared by several. */
struct packs {
	pthread_mutex_t lock;
	struct range ranges[MAX_RANGES];
	int n_ranges, next_range;
	struct pack *all;
	int n, room;
};

/* How C is cut: parts of rows x cols, the last ones smaller. */
struct cut {
	int64_t rows, cols, parts_m, parts_n;
};

struct kernels__onednn {
	enum dtype dtype;
	dnnl_engine_t engine;
	dnnl_stream_t *streams;		/* one for each thread */
	int n_streams;
	struct primitive **primitives;
	int n_primitives;
	struct reorder **reorders;
	int n_reorders;
	int n_slow;			/* primitives for which oneDNN has only its plain loops */
	struct packs *packs;
	bool owns_packs;
};

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
layout_any(struct layout *l, int64_t rows, int64_t cols, enum dtype dtype)
{
	const dnnl_dims_t dims = {rows, cols};

#if DNNL_VERSION_MAJOR >= 3
	must(dnnl_memory_desc_create_with_tag(&l->md, 2, dims, type_of(dtype), dnnl_format_tag_any), "memory descriptor");
#else
	must(dnnl_memory_desc_init_by_tag(&l->md, 2, dims, type_of(dtype), dnnl_format_tag_any), "memory descriptor");
#endif
}

static void
layout_drop(struct layout *l)
{
#if DNNL_VERSION_MAJOR >= 3
	if (l->md != NULL)
		dnnl_memory_desc_destroy(l->md);
	l->md = NULL;
#else
	(void)l;
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
	status = dnnl_matmul_primitive_desc_create(pd, engine, a->md, b->md, bias != NULL ? bias->md : NULL, c->md, attr);
#else
	{
		dnnl_matmul_desc_t op;

		if ((status = dnnl_matmul_desc_init(&op, &a->md, &b->md, bias != NULL ? &bias->md : NULL, &c->md)) == dnnl_success)
			status = dnnl_primitive_desc_create(pd, &op, attr, engine, NULL);
	}
#endif
	dnnl_primitive_attr_destroy(attr);
	return status;
}

/* ---- primitives, kept by shape ---- */

static void
shape_layouts(const struct shape *s, struct layout *a, struct layout *b, struct layout *c, struct layout *bias)
{
	layout_strided(a, s->m, s->k, (enum dtype)s->dtype, s->trans_a ? 1 : s->lda, s->trans_a ? s->lda : 1);
	if (s->packed)
		layout_any(b, s->k, s->n, (enum dtype)s->dtype);
	else
		layout_strided(b, s->k, s->n, (enum dtype)s->dtype, s->trans_b ? 1 : s->ldb, s->trans_b ? s->ldb : 1);
	layout_strided(c, s->m, s->n, (enum dtype)s->dtype_c, s->ldc, 1);
	if (s->bias)
		layout_strided(bias, 1, s->n, (enum dtype)s->dtype, s->n, 1);
}

/* The format in which oneDNN wants a panel [k, n] of weights: that of a full part, so that it is one for all m. */
static void
packed_layout(struct kernels__onednn *o, int64_t n, int64_t k, struct layout *out)
{
	const struct shape s = {.m = ROWS, .n = n, .k = k, .lda = k, .ldc = n, .dtype = o->dtype, .dtype_c = o->dtype, .packed = true};
	struct layout a = {0}, b = {0}, c = {0};
	dnnl_primitive_desc_t pd;

	shape_layouts(&s, &a, &b, &c, NULL);
	must(matmul_descriptor(&pd, o->engine, &a, &b, NULL, &c, false), "matmul");
	layout_query(out, pd, dnnl_query_weights_md);
	dnnl_primitive_desc_destroy(pd);
	layout_drop(&a);
	layout_drop(&b);
	layout_drop(&c);
}

static void *
grow(void *all, int n, size_t size)
{
	void *p = realloc(all, (size_t)(n + 1) * size);

	if (p == NULL)
		log_fatal("kernels.memory", "what=onednn");
	return p;
}

static struct primitive *
primitive_for(struct kernels__onednn *o, const struct shape *s)
{
	dnnl_primitive_desc_t pd;
	const char *name = "";
	struct primitive *p;

	for (int i = 0; i < o->n_primitives; i++)
		if (memcmp(&o->primitives[i]->shape, s, sizeof(*s)) == 0)
			return o->primitives[i];
	if ((p = calloc(1, sizeof(*p))) == NULL)
		log_fatal("kernels.memory", "what=onednn");
	p->shape = *s;
	shape_layouts(s, &p->a, &p->b, &p->c, &p->bias);
	if (s->packed) {
		layout_drop(&p->b);
		packed_layout(o, s->n, s->k, &p->b);
	}
	must(matmul_descriptor(&pd, o->engine, &p->a, &p->b, s->bias ? &p->bias : NULL, &p->c, s->add), "matmul");
	must(dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, (void *)&name), "implementation");
	if (strncmp(name, "ref", 3) == 0) {
		o->n_slow++;
		log_warn("kernels.slow", "what=matmul m=%lld n=%lld k=%lld implementation=%s", (long long)s->m, (long long)s->n, (long long)s->k, name);
	}
	layout_query(&p->scratch, pd, dnnl_query_scratchpad_md);
	p->scratch_bytes = dnnl_memory_desc_get_size(LAYOUT_PTR(&p->scratch));
	must(dnnl_primitive_create(&p->run, pd), "primitive");
	dnnl_primitive_desc_destroy(pd);
	o->primitives = grow(o->primitives, o->n_primitives, sizeof(*o->primitives));
	o->primitives[o->n_primitives++] = p;
	return p;
}

static struct reorder *
reorder_for(struct kernels__onednn *o, int64_t n, int64_t k, int64_t ld, bool trans)
{
	dnnl_primitive_desc_t pd;
	struct reorder *r;

	for (int i = 0; i < o->n_reorders; i++) {
		r = o->reorders[i];
		if (r->n == n && r->k == k && r->ld == ld && (r->trans != 0) == trans)
			return r;
	}
	if ((r = calloc(1, sizeof(*r))) == NULL)
		log_fatal("kernels.memory", "what=onednn");
	*r = (struct reorder){.n = n, .k = k, .ld = ld, .trans = trans};
	layout_strided(&r->from, k, n, o->dtype, trans ? 1 : ld, trans ? ld : 1);
	packed_layout(o, n, k, &r->to);
	r->to_bytes = dnnl_memory_desc_get_size(LAYOUT_PTR(&r->to));
	must(dnnl_reorder_primitive_desc_create(&pd, LAYOUT_PTR(&r->from), o->engine, LAYOUT_PTR(&r->to), o->engine, NULL), "reorder");
	must(dnnl_primitive_create(&r->run, pd), "reorder");
	dnnl_primitive_desc_destroy(pd);
	o->reorders = grow(o->reorders, o->n_reorders, sizeof(*o->reorders));
	o->reorders[o->n_reorders++] = r;
	return r;
}

/* ---- running one, on the calling thread ---- */

struct argument {
	int index;
	const struct layout *layout;
	void *data;
};

static void
run(struct kernels__onednn *o, dnnl_primitive_t primitive, dnnl_stream_t stream, const struct argument *args, int n)
{
	dnnl_exec_arg_t list[6];
	int threads = omp_get_max_threads();

	for (int i = 0; i < n; i++) {
		list[i].arg = args[i].index;
		must(dnnl_memory_create(&list[i].memory, LAYOUT_PTR(args[i].layout), o->engine, args[i].data), "memory");
	}
	if (threads != 1)
		omp_set_num_threads(1);
	must(dnnl_primitive_execute(primitive, stream, n, list), "execute");
	must(dnnl_stream_wait(stream), "wait");
	if (threads != 1)
		omp_set_num_threads(threads);
	for (int i = 0; i < n; i++)
		dnnl_memory_destroy(list[i].memory);
}

/* ---- repacked weights ---- */

static void
pack_drop(struct packs *p, int i)
{
	free(p->all[i].panels);
	p->all[i] = p->all[--p->n];
}

static bool
inside(const struct range *r, const void *data)
{
	return (const char *)data >= r->begin && (const char *)data < r->end;
}

void
kernels__onednn_params(struct kernels__onednn *o, const void *params, size_t bytes, uint64_t generation)
{
	struct packs *p = o->packs;
	struct range fresh = {params, (const char *)params + bytes, generation};
	int at = -1;

	pthread_mutex_lock(&p->lock);
	for (int i = 0; i < p->n_ranges; i++) {
		struct range *r = &p->ranges[i];

		if (r->begin == fresh.begin && r->end == fresh.end && r->generation == generation)
			goto out;
		if (r->begin < fresh.end && fresh.begin < r->end) {
			/* The same array with new values keeps its memory; what else lay there is gone. */
			bool same = r->begin == fresh.begin && r->end == fresh.end;

			for (int j = p->n - 1; j >= 0; j--) {
				if (!inside(r, p->all[j].data))
					continue;
				if (same)
					p->all[j].fresh = false;
				else
					pack_drop(p, j);
			}
			if (at >= 0 && !same) {
				*r = p->ranges[--p->n_ranges];
				i--;
				continue;
			}
			at = i;
		}
	}
	if (at < 0 && p->n_ranges < MAX_RANGES)
		at = p->n_ranges++;
	if (at < 0) {
		at = p->next_range++ % MAX_RANGES;
		for (int j = p->n - 1; j >= 0; j--)
			if (inside(&p->ranges[at], p->all[j].data))
				pack_drop(p, j);
	}
	p->ranges[at] = fresh;
out:
	pthread_mutex_unlock(&p->lock);
}

void
kernels__onednn_stale(struct kernels__onednn *o)
{
	pthread_mutex_lock(&o->packs->lock);
	for (int i = 0; i < o->packs->n; i++)
		o->packs->all[i].fresh = false;
	pthread_mutex_unlock(&o->packs->lock);
}

/* Rows of a part: as near to ROWS as gives all threads of a small team the same, else ROWS; fewer where there would be few parts. */
static int64_t
cut_rows(int64_t m)
{
	int64_t most = m < 8 * ROWS ? ROWS / 2 : ROWS;

	for (int64_t rows = most; rows >= most / 2; rows -= 16)
		if (m % (2 * rows) == 0)
			return rows;
	return most;
}

static struct cut
cut_of(int64_t m, int64_t n, int64_t k)
{
	struct cut c = {.rows = cut_rows(m), .cols = n > WIDE || k > DEEP ? COLUMNS : n};

	c.parts_m = (m + c.rows - 1) / c.rows;
	c.parts_n = (n + c.cols - 1) / c.cols;
	return c;
}

static struct pack *
pack_find(struct packs *p, const struct kernels__matrix *b, int64_t n, int64_t k)
{
	for (int i = 0; i < p->n; i++) {
		struct pack *w = &p->all[i];

		if (w->data == b->data && w->n == n && w->k == k && w->ld == b->ld && w->trans == b->trans)
			return w;
	}
	return NULL;
}

/* Panels of b, repacked now if they are not; NULL: not a parameter. */
static const char *
packed(struct kernels *ctx, const struct kernels__matrix *b, int64_t n, int64_t k, const struct cut *cut, size_t *panel_bytes)
{
	struct kernels__onednn *o = ctx->onednn;
	int64_t panels = cut->parts_n;
	struct packs *p = o->packs;
	struct reorder *full = NULL, *last;
	const char *out = NULL;
	struct pack *w;
	bool known = false;

	pthread_mutex_lock(&p->lock);
	for (int i = 0; i < p->n_ranges; i++)
		known = known || inside(&p->ranges[i], b->data);
	if (!known)
		goto out;
	last = reorder_for(o, n - (panels - 1) * cut->cols, k, b->ld, b->trans);
	full = panels > 1 ? reorder_for(o, cut->cols, k, b->ld, b->trans) : last;
	if ((w = pack_find(p, b, n, k)) == NULL) {
		size_t bytes = (full->to_bytes > last->to_bytes ? full->to_bytes : last->to_bytes) + 63;

		p->all = grow(p->all, p->n, sizeof(*p->all));
		w = &p->all[p->n++];
		*w = (struct pack){.data = b->data, .n = n, .k = k, .ld = b->ld, .trans = b->trans, .panel_bytes = bytes / 64 * 64};
		if ((w->panels = mem_alloc((size_t)panels, w->panel_bytes)) == NULL)
			log_fatal("kernels.memory", "what=\"repacked weights\" bytes=%zu", (size_t)panels * w->panel_bytes);
	}
	if (!w->fresh) {
#pragma omp parallel for num_threads(ctx->threads) schedule(static) if (ctx->threads > 1 && panels > 1 && n * k > ctx->small)
		for (int64_t i = 0; i < panels; i++) {
			struct reorder *r = i + 1 < panels ? full : last;
			const struct argument args[] = {
				{DNNL_ARG_FROM, &r->from, kernels__element(b->data, b->dtype, i * cut->cols * (b->trans ? b->ld : 1))},
				{DNNL_ARG_TO, &r->to, w->panels + (size_t)i * w->panel_bytes},
			};

			run(o, r->run, o->streams[omp_get_thread_num()], args, 2);
		}
		w->fresh = true;
	}
	*panel_bytes = w->panel_bytes;
	out = w->panels;
out:
	pthread_mutex_unlock(&p->lock);
	return out;
}

/* ---- the product ---- */

/* rows x cols of sums, without gaps, to their place in C: bias and what C holds are added in fp32, and the result is rounded once. */
static void
part_store(const struct kernels *ctx, float *sums, int64_t rows, int64_t cols, const struct kernels__matrix *c, int64_t row, int64_t col,
    const struct tensor *bias, bool add)
{
	float shift[COLUMNS], room[COLUMNS];
	const float *b = bias != NULL && bias->data != NULL ? kernels__read(ctx, bias->data, bias->dtype, col, cols, shift) : NULL;

	for (int64_t i = 0; i < rows; i++) {
		float *from = sums + i * cols;
		int64_t at = (row + i) * c->ld + col;

		if (b != NULL)
			ctx->vec->add(from, from, b, cols);
		if (add)
			ctx->vec->add(from, from, kernels__read(ctx, c->data, c->dtype, at, cols, room), cols);
		if (c->dtype == DTYPE_F32)
			memcpy((float *)c->data + at, from, (size_t)cols * sizeof(float));
		else
			ctx->vec->narrow((uint16_t *)c->data + at, from, cols);
	}
}

/* Size of part (last_m, last_n) of a product; the rest of its shape is the caller's. */
static struct shape
part_shape(const struct kernels__onednn *o, const struct cut *cut, bool last_m, bool last_n, int64_t m, int64_t n, int64_t k)
{
	struct shape s;

	memset(&s, 0, sizeof(s));		/* padding too: shapes are compared by memcmp */
	s.m = last_m ? m - (cut->parts_m - 1) * cut->rows : cut->rows;
	s.n = last_n ? n - (cut->parts_n - 1) * cut->cols : cut->cols;
	s.k = k;
	s.dtype = (int32_t)o->dtype;
	return s;
}

void
kernels__onednn_matmul(struct kernels *ctx, int64_t m, int64_t n, int64_t k, const struct kernels__matrix *a,
    const struct kernels__matrix *b, const struct kernels__matrix *c, const struct tensor *bias, bool add)
{
	struct kernels__onednn *o = ctx->onednn;
	const struct cut cut = cut_of(m, n, k);
	const bool moved = cut.parts_n > 1, biased = bias != NULL && bias->data != NULL;
	const int64_t pm = cut.parts_m, pn = cut.parts_n;
	struct primitive *p[2][2] = {{NULL}};
	size_t panel_bytes = 0, scratch = 0, room;
	int threads = omp_get_max_threads();
	const char *panels;
	char *rooms;

	if (m == 0 || n == 0)
		return;
	kernels__shape(c->ld == n, "matmul: gaps between rows");
	/* What oneDNN makes now is made for one thread. */
	omp_set_num_threads(1);
	panels = b->keep ? packed(ctx, b, n, k, &cut, &panel_bytes) : NULL;
	for (int last_m = 0; last_m < 2; last_m++) {
		for (int last_n = 0; last_n < 2; last_n++) {
			struct shape s;

			if ((!last_m && pm == 1) || (!last_n && pn == 1))
				continue;
			s = part_shape(o, &cut, last_m, last_n, m, n, k);
			s.lda = a->ld;
			s.trans_a = a->trans;
			s.ldb = panels != NULL ? 0 : b->ld;
			s.trans_b = panels != NULL ? 0 : b->trans;
			s.packed = panels != NULL;
			s.ldc = s.n;
			s.dtype_c = moved ? DTYPE_F32 : (int32_t)c->dtype;
			s.bias = !moved && biased;
			s.add = !moved && add;
			p[last_m][last_n] = primitive_for(o, &s);
			if (p[last_m][last_n]->scratch_bytes > scratch)
				scratch = p[last_m][last_n]->scratch_bytes;
		}
	}
	omp_set_num_threads(threads);
	scratch = (scratch + 63) / 64 * 64;
	room = scratch + (moved ? (size_t)(cut.rows * cut.cols) * sizeof(float) : 0);
	rooms = (char *)kernels__panels(ctx, ((size_t)ctx->threads * room + 64) / sizeof(float));
#pragma omp parallel for num_threads(ctx->threads) schedule(dynamic) if (ctx->threads > 1 && pm * pn > 1)
	for (int64_t part = 0; part < pm * pn; part++) {
		int64_t i = part % pm, j = part / pm, row = i * cut.rows, col = j * cut.cols;
		const struct primitive *here = p[i + 1 == pm][j + 1 == pn];
		int thread = omp_get_thread_num(), n_args = 4;
		char *mine = rooms + (size_t)thread * room;
		float *sums = (float *)(void *)(mine + scratch);
		struct argument args[5] = {
			{DNNL_ARG_SRC, &here->a, kernels__element(a->data, a->dtype, a->trans ? row : row * a->ld)},
			{DNNL_ARG_WEIGHTS, &here->b, panels != NULL ? (void *)(uintptr_t)(panels + (size_t)j * panel_bytes) :
			    kernels__element(b->data, b->dtype, b->trans ? col * b->ld : col)},
			{DNNL_ARG_DST, &here->c, moved ? (void *)sums : kernels__element(c->data, c->dtype, row * c->ld + col)},
			{DNNL_ARG_SCRATCHPAD, &here->scratch, mine},
		};

		if (here->shape.bias)
			args[n_args++] = (struct argument){DNNL_ARG_BIAS, &here->bias, kernels__element(bias->data, bias->dtype, col)};
		run(o, here->run, o->streams[thread], args, n_args);
		if (moved)
			part_store(ctx, sums, here->shape.m, here->shape.n, c, row, col, bias, add);
	}
}

/* ---- small products on one thread ---- */

const struct kernels__tile *
kernels__onednn_tile(struct kernels *ctx, int64_t m, int64_t n, int64_t k, const struct kernels__matrix *a,
    const struct kernels__matrix *b, const struct kernels__matrix *c, bool add)
{
	struct kernels__onednn *o = ctx->onednn;
	int threads = omp_get_max_threads();
	const struct primitive *p;
	struct shape s;

	memset(&s, 0, sizeof(s));
	s.m = m;
	s.n = n;
	s.k = k;
	s.lda = a->ld;
	s.ldb = b->ld;
	s.ldc = c->ld;
	s.trans_a = a->trans;
	s.trans_b = b->trans;
	s.dtype = (int32_t)o->dtype;
	s.dtype_c = (int32_t)c->dtype;
	s.add = add;
	omp_set_num_threads(1);
	p = primitive_for(o, &s);
	omp_set_num_threads(threads);
	return (const struct kernels__tile *)p;
}

size_t
kernels__onednn_tile_room(const struct kernels__tile *tile)
{
	return ((const struct primitive *)tile)->scratch_bytes;
}

void
kernels__onednn_tile_run(const struct kernels *ctx, const struct kernels__tile *tile, const void *a, const void *b, void *c, void *room)
{
	const struct primitive *p = (const struct primitive *)tile;
	const struct argument args[] = {
		{DNNL_ARG_SRC, &p->a, (void *)(uintptr_t)a},
		{DNNL_ARG_WEIGHTS, &p->b, (void *)(uintptr_t)b},
		{DNNL_ARG_DST, &p->c, c},
		{DNNL_ARG_SCRATCHPAD, &p->scratch, room},
	};

	run(ctx->onednn, p->run, ctx->onednn->streams[omp_get_thread_num()], args, 4);
}

/* ---- a context's part ---- */

int
kernels__onednn_new(struct kernels__onednn **out, enum dtype dtype, int threads, struct kernels__onednn *share)
{
	struct kernels__onednn *o = calloc(1, sizeof(*o));

	*out = NULL;
	if (o == NULL)
		return ENOMEM;
	o->dtype = dtype;
	must(dnnl_engine_create(&o->engine, dnnl_cpu, 0), "engine");
	if ((o->streams = calloc((size_t)threads, sizeof(*o->streams))) == NULL)
		goto fail;
	for (; o->n_streams < threads; o->n_streams++)
		must(dnnl_stream_create(&o->streams[o->n_streams], o->engine, dnnl_stream_default_flags), "stream");
	if (share != NULL) {
		o->packs = share->packs;
	} else {
		if ((o->packs = calloc(1, sizeof(*o->packs))) == NULL)
			goto fail;
		o->owns_packs = true;
		pthread_mutex_init(&o->packs->lock, NULL);
	}
	*out = o;
	return 0;
fail:
	kernels__onednn_destroy(&o);
	return ENOMEM;
}

void
kernels__onednn_destroy(struct kernels__onednn **onednn)
{
	struct kernels__onednn *o = *onednn;

	if (o == NULL)
		return;
	for (int i = 0; i < o->n_primitives; i++) {
		struct primitive *p = o->primitives[i];

		dnnl_primitive_destroy(p->run);
		layout_drop(&p->a);
		layout_drop(&p->b);
		layout_drop(&p->c);
		layout_drop(&p->bias);
		layout_drop(&p->scratch);
		free(p);
	}
	for (int i = 0; i < o->n_reorders; i++) {
		dnnl_primitive_destroy(o->reorders[i]->run);
		layout_drop(&o->reorders[i]->from);
		layout_drop(&o->reorders[i]->to);
		free(o->reorders[i]);
	}
	if (o->owns_packs) {
		while (o->packs->n > 0)
			pack_drop(o->packs, o->packs->n - 1);
		free(o->packs->all);
		pthread_mutex_destroy(&o->packs->lock);
		free(o->packs);
	}
	for (int i = 0; i < o->n_streams; i++)
		dnnl_stream_destroy(o->streams[i]);
	free(o->streams);
	free(o->primitives);
	free(o->reorders);
	dnnl_engine_destroy(o->engine);
	free(o);
	*onednn = NULL;
}

int
kernels__onednn_slow(const struct kernels__onednn *o)
{
	return o->n_slow;
}

void
kernels__onednn_version(char *buf, size_t size)
{
	const dnnl_version_t *v = dnnl_version();

	snprintf(buf, size, "%d.%d.%d", v->major, v->minor, v->patch);
}

const char *
kernels__onednn_isa(bool *bf16)
{
	dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();

	*bf16 = (isa & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
	if ((isa & dnnl_cpu_isa_avx512_core_amx) == dnnl_cpu_isa_avx512_core_amx)
		return "amx";
	if (*bf16)
		return "avx512_bf16";
	if ((isa & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core)
		return "avx512";
	if ((isa & dnnl_cpu_isa_avx2) == dnnl_cpu_isa_avx2)
		return "avx2";
	return "sse41";
}
