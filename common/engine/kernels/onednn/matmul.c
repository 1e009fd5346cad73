/* SPDX-License-Identifier: Apache-2.0 */
/*
 * matmul - products of matrices by oneDNN (its API: primitive.c).
 *
 * oneDNN always runs on one thread. C is divided into parts by the shape alone (struct cut), and the handle's
 * threads take parts. So bits do not depend on the number of threads; they may depend on m, through the shape
 * of the last part.
 *
 * A part is whole rows of C if possible, because oneDNN is fast only if rows of C have no gaps: with a
 * stride it uses slower code, with repacked weights even a plain loop that is a thousand times slower. If
 * C is too wide, or a deep product has too few rows for enough parts, a part is COLUMNS wide; it is computed
 * without gaps in the thread's buffer and then copied.
 *
 * Forward weights inside a range of kernels_params are kept repacked from their second use with the same
 * values on, in panels as wide as a part and in oneDNN's preferred format. In bf16 the B of every other
 * product of some size is repacked for that product: otherwise each part would repack it, and with a
 * transposed A oneDNN 2.6 would not use the matrix units. A's rows are copied part by part if they have gaps
 * or A is transposed.
 */
#include "engine/kernels/onednn/onednn.h"

#include <stdlib.h>
#include <string.h>

#include <omp.h>
#include <pthread.h>

#include "base/log/log.h"

#define ROWS ONEDNN__ROWS
#define COLUMNS 256
/* Products wider or deeper than this are divided into COLUMNS too. */
#define WIDE 4096
#define DEEP 8192
/* Operands of backward are repacked in strips of at most this many rows, which stay in the caches. */
#define STRIP 4096
/* The format BA16a64b2a: blocks of 32 rows x 64 columns, two rows interleaved, padded with zeros. */
#define BLOCK_ROWS 32
#define BLOCK_COLUMNS 64
/* Smaller operands are not repacked, because it does not pay. */
#define PACK_SIDE 64
#define MAX_RANGES 16

/* One repacked weight. */
struct pack {
	const void *data;
	int64_t n, k, ld;
	bool trans, fresh;
	bool seen;			/* used since its values last changed */
	char *panels;			/* NULL until its second use with the same values */
	size_t panel_bytes;		/* size of a full panel; the last one may use less */
};

struct range {
	const char *begin, *end;
	uint64_t generation;
};

/* Repacked weights, of one handle or shared by several. */
struct packs {
	pthread_mutex_t lock;
	struct range ranges[MAX_RANGES];
	int n_ranges, next_range;
	struct pack *all;
	int n;
};

/* Division of C: parts of rows x cols; the last ones may be smaller. */
struct cut {
	int64_t rows, cols, parts_m, parts_n;
};

bool
onednn__blocked(struct onednn *o, int64_t n, int64_t k)
{
	return onednn__reorder(o, n, k, n, false)->blocked;
}

/* ---- repacked weights ---- */

static void
pack_drop(struct packs *p, int i)
{
	if (p->all[i].panels != NULL)
		cpu__free(NULL, p->all[i].panels);
	p->all[i] = p->all[--p->n];
}

struct packs *
onednn__packs_new(void)
{
	struct packs *p = calloc(1, sizeof(*p));

	if (p != NULL)
		pthread_mutex_init(&p->lock, NULL);
	return p;
}

void
onednn__packs_destroy(struct packs **packs)
{
	struct packs *p = *packs;

	while (p->n > 0)
		pack_drop(p, p->n - 1);
	free(p->all);
	pthread_mutex_destroy(&p->lock);
	free(p);
	*packs = NULL;
}

static bool
inside(const struct range *r, const void *data)
{
	return (const char *)data >= r->begin && (const char *)data < r->end;
}

void
onednn__params(struct kernels *k, const void *params, size_t bytes, uint64_t generation)
{
	struct packs *p = onednn__of(k)->packs;
	struct range fresh = {params, (const char *)params + bytes, generation};
	int at = -1;

	pthread_mutex_lock(&p->lock);
	for (int i = 0; i < p->n_ranges; i++) {
		struct range *r = &p->ranges[i];

		if (r->begin == fresh.begin && r->end == fresh.end && r->generation == generation)
			goto out;
		if (r->begin < fresh.end && fresh.begin < r->end) {
			/* The same array with new values keeps its memory; else the weights there are gone */
			bool same = r->begin == fresh.begin && r->end == fresh.end;

			for (int j = p->n - 1; j >= 0; j--) {
				if (!inside(r, p->all[j].data))
					continue;
				if (same)
					p->all[j].fresh = p->all[j].seen = false;
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
onednn__stale(struct onednn *o)
{
	pthread_mutex_lock(&o->packs->lock);
	for (int i = 0; i < o->packs->n; i++)
		o->packs->all[i].fresh = o->packs->all[i].seen = false;
	pthread_mutex_unlock(&o->packs->lock);
}

/* Rows per part: near ROWS (half for small m), if possible such that two threads get equally many parts. */
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

/* Writes one block of b [k, n]: rows from k0 on and columns from n0 on. */
static void
pack_block(const struct vec *vec, const struct kernels__matrix *b, int64_t k0, int64_t k, int64_t n0, int64_t n, uint32_t *to)
{
	int64_t rows = cpu__min(k - k0, BLOCK_ROWS), cols = cpu__min(n - n0, BLOCK_COLUMNS), ld = b->ld;
	const uint16_t *from = (const uint16_t *)b->data + (b->trans ? n0 * ld + k0 : k0 * ld + n0);
	uint16_t whole[BLOCK_ROWS * BLOCK_COLUMNS];

	if (rows < BLOCK_ROWS || cols < BLOCK_COLUMNS) {
		int64_t lines = b->trans ? cols : rows, line = b->trans ? rows : cols, gap = b->trans ? BLOCK_ROWS : BLOCK_COLUMNS;

		memset(whole, 0, sizeof(whole));
		for (int64_t i = 0; i < lines; i++)
			memcpy(whole + i * gap, from + i * ld, (size_t)line * sizeof(*whole));
		from = whole;
		ld = gap;
	}
	if (b->trans)
		vec->transpose(to, BLOCK_COLUMNS, from, ld, BLOCK_COLUMNS, BLOCK_ROWS / 2);
	else
		for (int64_t i = 0; i < BLOCK_ROWS / 2; i++)
			vec->pairs(to + i * BLOCK_COLUMNS, from + 2 * i * ld, from + (2 * i + 1) * ld, BLOCK_COLUMNS);
}

void
onednn__pack(const struct vec *vec, const struct kernels__matrix *b, int64_t k, int64_t n, uint16_t *to)
{
	for (int64_t n0 = 0; n0 < n; n0 += BLOCK_COLUMNS)
		for (int64_t k0 = 0; k0 < k; k0 += BLOCK_ROWS, to += BLOCK_ROWS * BLOCK_COLUMNS)
			pack_block(vec, b, k0, k, n0, n, (uint32_t *)(void *)to);
}

/* Writes all panels of b [k, n] in that format, on the handle's threads. */
static void
pack_blocks(struct kernels *ctx, const struct kernels__matrix *b, int64_t n, int64_t k, const struct cut *cut, char *to, size_t panel_bytes)
{
	int64_t deep = (k + BLOCK_ROWS - 1) / BLOCK_ROWS, wide = (n + BLOCK_COLUMNS - 1) / BLOCK_COLUMNS;

#pragma omp parallel for num_threads(ctx->threads) schedule(static) if (ctx->threads > 1 && n * k > ctx->small)
	for (int64_t i = 0; i < wide * deep; i++) {
		int64_t n0 = i / deep * BLOCK_COLUMNS, panel = n0 / cut->cols, block = (n0 - panel * cut->cols) / BLOCK_COLUMNS * deep + i % deep;

		pack_block(ctx->vec, b, i % deep * BLOCK_ROWS, k, n0, n,
		    (uint32_t *)(void *)(to + (size_t)panel * panel_bytes) + block * (BLOCK_ROWS / 2 * BLOCK_COLUMNS));
	}
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

/*
 * The repacked panels of b, made now if needed. NULL if b is not a parameter; also NULL with `once` at the
 * first use of these values. once: the caller does not know of a second use.
 */
static const char *
packed(struct kernels *ctx, const struct kernels__matrix *b, int64_t n, int64_t k, const struct cut *cut, bool once, size_t *panel_bytes)
{
	struct onednn *o = onednn__of(ctx);
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
	last = onednn__reorder(o, n - (panels - 1) * cut->cols, k, b->ld, b->trans);
	full = panels > 1 ? onednn__reorder(o, cut->cols, k, b->ld, b->trans) : last;
	if ((w = pack_find(p, b, n, k)) == NULL) {
		size_t bytes = (full->to_bytes > last->to_bytes ? full->to_bytes : last->to_bytes) + 63;

		if ((w = realloc(p->all, (size_t)(p->n + 1) * sizeof(*w))) == NULL)
			log_fatal("kernels.memory", "what=\"repacked weights\"");
		p->all = w;
		w = &p->all[p->n++];
		*w = (struct pack){.data = b->data, .n = n, .k = k, .ld = b->ld, .trans = b->trans, .panel_bytes = bytes / 64 * 64};
	}
	if (w->panels == NULL) {
		bool wait = once && !w->seen;

		w->seen = true;
		if (wait)
			goto out;
		if ((w->panels = cpu__alloc(ctx, (size_t)panels * w->panel_bytes)) == NULL)
			log_fatal("kernels.memory", "what=\"repacked weights\" bytes=%zu", (size_t)panels * w->panel_bytes);
	}
	if (!w->fresh && full->blocked && last->blocked) {
		pack_blocks(ctx, b, n, k, cut, w->panels, w->panel_bytes);
	} else if (!w->fresh) {
#pragma omp parallel for num_threads(ctx->threads) schedule(static) if (ctx->threads > 1 && panels > 1 && n * k > ctx->small)
		for (int64_t i = 0; i < panels; i++) {
			struct reorder *r = i + 1 < panels ? full : last;
			const struct argument args[] = {
				{DNNL_ARG_FROM, &r->from, kernels__element(b->data, b->dtype, i * cut->cols * (b->trans ? b->ld : 1))},
				{DNNL_ARG_TO, &r->to, w->panels + (size_t)i * w->panel_bytes},
			};

			onednn__run(o, r->run, omp_get_thread_num(), args, 2);
		}
	}
	w->fresh = true;
	*panel_bytes = w->panel_bytes;
	out = w->panels;
out:
	pthread_mutex_unlock(&p->lock);
	return out;
}

/* ---- the product ---- */

/* Copies rows x cols of sums, without gaps, to C; adds bias and the former C in fp32, rounds once. */
static void
part_store(const struct kernels *ctx, float *sums, int64_t rows, int64_t cols, const struct kernels__matrix *c, int64_t row, int64_t col,
    const struct tensor *bias, bool add)
{
	float shift[COLUMNS], room[COLUMNS];
	const float *b = bias != NULL ? cpu__read(ctx, bias->data, bias->dtype, col, cols, shift) : NULL;

	for (int64_t i = 0; i < rows; i++) {
		float *from = sums + i * cols;
		int64_t at = (row + i) * c->ld + col;

		if (b != NULL)
			ctx->vec->add(from, from, b, cols);
		if (add)
			ctx->vec->add(from, from, cpu__read(ctx, c->data, c->dtype, at, cols, room), cols);
		if (c->dtype == DTYPE_F32)
			memcpy((float *)c->data + at, from, (size_t)cols * sizeof(float));
		else
			ctx->vec->narrow((uint16_t *)c->data + at, from, cols);
	}
}

/* The shape of part (last_m, last_n) of a product; the caller sets the other fields. */
static struct shape
part_shape(const struct onednn *o, const struct cut *cut, bool last_m, bool last_n, int64_t m, int64_t n, int64_t k)
{
	struct shape s;

	memset(&s, 0, sizeof(s));		/* includes padding: shapes are compared by memcmp */
	s.m = last_m ? m - (cut->parts_m - 1) * cut->rows : cut->rows;
	s.n = last_n ? n - (cut->parts_n - 1) * cut->cols : cut->cols;
	s.k = k;
	s.dtype = (int32_t)o->dtype;
	return s;
}

void
onednn__rows(const struct vec *vec, const struct kernels__matrix *a, int64_t row, int64_t rows, int64_t depth, uint16_t *to, int64_t ld)
{
	const uint16_t *from = (const uint16_t *)a->data + (a->trans ? row : row * a->ld);
	uint32_t lines[BLOCK_ROWS / 2 * ROWS];
	uint16_t zeros[ROWS] = {0};

	for (int64_t i = 0; i < rows && !a->trans; i++) {
		memcpy(to + i * ld, from + i * a->ld, (size_t)depth * sizeof(*to));
		memset(to + i * ld + depth, 0, (size_t)(ld - depth) * sizeof(*to));
	}
	for (int64_t first = 0; first < rows && a->trans; first += ROWS, from += ROWS, to += ROWS * ld) {
		int64_t n = cpu__min(rows - first, ROWS);

		for (int64_t at = 0; at < ld; at += BLOCK_ROWS) {
			for (int64_t i = 0; i < BLOCK_ROWS / 2; i++) {
				int64_t k = at + 2 * i;

				vec->pairs(lines + i * ROWS, k < depth ? from + k * a->ld : zeros, k + 1 < depth ? from + (k + 1) * a->ld : zeros, n);
			}
			vec->transpose((uint32_t *)(void *)(to + at), ld / 2, (const uint16_t *)(const void *)lines, 2 * ROWS, BLOCK_ROWS / 2, n);
		}
	}
}

/*
 * The product with B in panels, or as it is stored if panels is NULL. gather: parts copy their rows of A
 * first, because oneDNN accepts panels only with an A that has no gaps.
 */
static void
multiply(struct kernels *ctx, int64_t m, int64_t n, int64_t k, const struct kernels__matrix *a, bool gather, const struct kernels__matrix *b,
    const struct kernels__matrix *c, const struct tensor *bias, bool add, const struct cut *by, const char *panels, size_t panel_bytes)
{
	struct onednn *o = onednn__of(ctx);
	const struct cut cut = *by;
	const bool moved = cut.parts_n > 1, biased = bias != NULL;
	const int64_t pm = cut.parts_m, pn = cut.parts_n, ld = gather ? (k + BLOCK_ROWS - 1) / BLOCK_ROWS * BLOCK_ROWS : a->ld;
	struct primitive *p[2][2] = {{NULL}};
	size_t scratch = 0, sums_bytes, room;
	char *rooms;

	for (int last_m = 0; last_m < 2; last_m++) {
		for (int last_n = 0; last_n < 2; last_n++) {
			struct shape s;

			if ((!last_m && pm == 1) || (!last_n && pn == 1))
				continue;
			s = part_shape(o, &cut, last_m, last_n, m, n, gather ? ld : k);
			s.lda = ld;
			s.trans_a = a->trans && !gather;
			s.ldb = panels != NULL ? 0 : b->ld;
			s.trans_b = panels != NULL ? 0 : b->trans;
			s.packed = panels != NULL;
			s.ldc = s.n;
			s.dtype_c = moved ? DTYPE_F32 : (int32_t)c->dtype;
			s.bias = !moved && biased;
			s.add = !moved && add;
			p[last_m][last_n] = onednn__primitive(ctx, &s);
			if (p[last_m][last_n]->scratch_bytes > scratch)
				scratch = p[last_m][last_n]->scratch_bytes;
		}
	}
	scratch = (scratch + 63) / 64 * 64;
	sums_bytes = moved ? ((size_t)(cut.rows * cut.cols) * sizeof(float) + 63) / 64 * 64 : 0;
	room = scratch + sums_bytes + (gather ? (size_t)(cut.rows * ld) * sizeof(uint16_t) : 0);
	rooms = (char *)cpu__panels(ctx, ((size_t)ctx->threads * room + 64) / sizeof(float));
#pragma omp parallel for num_threads(ctx->threads) schedule(dynamic) if (ctx->threads > 1 && pm * pn > 1)
	for (int64_t part = 0; part < pm * pn; part++) {
		int64_t i = part % pm, j = part / pm, row = i * cut.rows, col = j * cut.cols;
		const struct primitive *here = p[i + 1 == pm][j + 1 == pn];
		int thread = omp_get_thread_num(), n_args = 4;
		char *mine = rooms + (size_t)thread * room;
		float *sums = (float *)(void *)(mine + scratch);
		void *from = gather ? mine + scratch + sums_bytes : kernels__element(a->data, a->dtype, a->trans ? row : row * a->ld);
		struct argument args[5] = {
			{DNNL_ARG_SRC, &here->a, onednn__source(here, from, mine)},
			{DNNL_ARG_WEIGHTS, &here->b, panels != NULL ? (void *)(uintptr_t)(panels + (size_t)j * panel_bytes) :
			    kernels__element(b->data, b->dtype, b->trans ? col * b->ld : col)},
			{DNNL_ARG_DST, &here->c, moved ? (void *)sums : kernels__element(c->data, c->dtype, row * c->ld + col)},
			{DNNL_ARG_SCRATCHPAD, &here->scratch, mine},
		};

		if (gather)
			onednn__rows(ctx->vec, a, row, here->shape.m, k, from, ld);
		if (here->shape.bias)
			args[n_args++] = (struct argument){DNNL_ARG_BIAS, &here->bias, kernels__element(bias->data, bias->dtype, col)};
		onednn__run(o, here->run, thread, args, n_args);
		if (moved)
			part_store(ctx, sums, here->shape.m, here->shape.n, c, row, col, bias, add);
	}
}

/*
 * The product with B repacked for this call, in strips of the inner dimension. Sums of several strips are
 * added in fp32: in C, or, if C is bf16, in memory after the panels.
 */
static void
multiply_strips(struct kernels *ctx, int64_t m, int64_t n, int64_t k, const struct kernels__matrix *a, const struct kernels__matrix *b,
    const struct kernels__matrix *c, const struct tensor *bias, bool add, const struct cut *cut)
{
	const int64_t strips = (k + STRIP - 1) / STRIP, depth = ((k + strips - 1) / strips + BLOCK_ROWS - 1) / BLOCK_ROWS * BLOCK_ROWS;
	const size_t panel_bytes = (size_t)((cut->cols + BLOCK_COLUMNS - 1) / BLOCK_COLUMNS * BLOCK_COLUMNS * depth) * sizeof(uint16_t);
	const bool apart = strips > 1 && c->dtype != DTYPE_F32;
	char *panels = (char *)cpu__packed(ctx, (size_t)cut->parts_n * panel_bytes / sizeof(float) + (apart ? (size_t)(m * n) : 0));
	float *sums = (float *)(void *)(panels + (size_t)cut->parts_n * panel_bytes);
	const struct kernels__matrix to = apart ? (struct kernels__matrix){.data = sums, .dtype = DTYPE_F32, .ld = n} : *c;

	for (int64_t at = 0; at < k; at += depth) {
		int64_t len = cpu__min(depth, k - at);
		struct kernels__matrix left = *a, right = *b;

		left.data = kernels__element(a->data, a->dtype, a->trans ? at * a->ld : at);
		right.data = kernels__element(b->data, b->dtype, b->trans ? at : at * b->ld);
		pack_blocks(ctx, &right, n, len, cut, panels, panel_bytes);
		multiply(ctx, m, n, len, &left, a->trans || a->ld != len, &right, &to, at == 0 && !apart ? bias : NULL, at > 0 || (add && !apart),
		    cut, panels, panel_bytes);
	}
	if (!apart)
		return;
#pragma omp parallel for num_threads(ctx->threads) schedule(static) if (ctx->threads > 1 && m * n > ctx->small)
	for (int64_t i = 0; i < m; i++)
		for (int64_t col = 0; col < n; col += COLUMNS)
			part_store(ctx, sums + i * n + col, 1, cpu__min(COLUMNS, n - col), c, i, col, bias, add);
}

/* True if oneDNN's preferred format for all panels of this product is the one that pack_blocks writes. */
static bool
blocked(struct onednn *o, int64_t n, int64_t k, const struct cut *cut)
{
	return (cut->parts_n == 1 || onednn__blocked(o, cut->cols, k)) && onednn__blocked(o, n - (cut->parts_n - 1) * cut->cols, k);
}

void
onednn__matmul(struct kernels *ctx, int64_t m, int64_t n, int64_t k, const struct kernels__matrix *a,
    const struct kernels__matrix *b, const struct kernels__matrix *c, const struct tensor *bias, bool add)
{
	struct onednn *o = onednn__of(ctx);
	const struct cut cut = cut_of(m, n, k), shallow = cut_of(m, n, cpu__min(k, STRIP));
	int threads = omp_get_max_threads();
	const char *panels = NULL;
	size_t panel_bytes = 0;
	bool strips = false;

	if (m == 0 || n == 0)
		return;
	kernels__shape(c->ld == n, "matmul: gaps between rows");
	/* oneDNN compiles a primitive for the current number of threads. */
	omp_set_num_threads(1);
	if (ctx->dtype == DTYPE_BF16 && m >= PACK_SIDE && n >= PACK_SIDE && k >= PACK_SIDE)
		strips = blocked(o, n, cpu__min(k, STRIP), &shallow);
	if (b->keep)
		panels = packed(ctx, b, n, k, &cut, strips && k <= STRIP && !b->again, &panel_bytes);
	if (strips && panels == NULL)
		multiply_strips(ctx, m, n, k, a, b, c, bias, add, &shallow);
	else
		multiply(ctx, m, n, k, a, false, b, c, bias, add, &cut, panels, panel_bytes);
	omp_set_num_threads(threads);
}

/* ---- small products on one thread ---- */

const struct primitive *
onednn__tile(struct kernels *ctx, int64_t m, int64_t n, int64_t k, const struct kernels__matrix *a,
    const struct kernels__matrix *b, const struct kernels__matrix *c, bool add)
{
	struct onednn *o = onednn__of(ctx);
	int threads = omp_get_max_threads();
	const struct primitive *p;
	struct shape s;

	memset(&s, 0, sizeof(s));
	s.m = m;
	s.n = n;
	s.k = k;
	s.lda = a->ld;
	s.ldb = b->keep ? 0 : b->ld;
	s.ldc = c->ld;
	s.trans_a = a->trans;
	s.trans_b = b->trans;
	s.packed = b->keep;
	s.dtype = (int32_t)o->dtype;
	s.dtype_c = (int32_t)c->dtype;
	s.add = add;
	omp_set_num_threads(1);
	p = onednn__primitive(ctx, &s);
	omp_set_num_threads(threads);
	return p;
}

static void
tile_run(const struct kernels *ctx, const struct primitive *p, const void *a, const void *b, void *c, void *room, int thread)
{
	const struct argument args[] = {
		{DNNL_ARG_SRC, &p->a, onednn__source(p, a, room)},
		{DNNL_ARG_WEIGHTS, &p->b, (void *)(uintptr_t)b},
		{DNNL_ARG_DST, &p->c, c},
		{DNNL_ARG_SCRATCHPAD, &p->scratch, room},
	};

	onednn__run(onednn__of(ctx), p->run, thread, args, 4);
}

void
onednn__tile_run(const struct kernels *ctx, const struct primitive *p, const void *a, const void *b, void *c, void *room)
{
	tile_run(ctx, p, a, b, c, room, omp_get_thread_num());
}

static const struct primitive *
product_of(struct kernels *k, const struct cpu__product *p)
{
	const struct kernels__matrix a = {.ld = p->lda, .trans = p->trans_a}, b = {.ld = p->ldb, .trans = p->trans_b};
	const struct kernels__matrix c = {.dtype = DTYPE_F32, .ld = p->n};

	return onednn__tile(k, p->m, p->n, p->k, &a, &b, &c, false);
}

static size_t
product_prepare(struct kernels *k, const struct cpu__product *p)
{
	return product_of(k, p)->scratch_bytes;
}

static void
product_run(struct kernels *k, const struct cpu__product *p, const void *a, const void *b, float *c, void *scratch, int thread)
{
	tile_run(k, product_of(k, p), a, b, c, scratch, thread);
}

const struct cpu__bf16 onednn__bf16 = {.prepare = product_prepare, .run = product_run};
