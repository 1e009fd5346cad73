/* SPDX-License-Identifier: Apache-2.0 */
/*
 * muon - Newton-Schulz on the smaller side of a matrix (kernels.h has the formula).
 *
 * With s the smaller and l the larger side, a segment of n of the five iterations takes G = X X^T, s^2 l
 * multiply-adds / 2; 4 n - 3 products of s^3 / 2 for Q, the product of the polynomials; and X = Q X, s^2 l.
 * Of a symmetric product only the lower triangle is computed.
 *
 *   fp32   one segment of five: 17 s^3 + 3 s^2 l FLOPs; the plain iteration takes 10 s^3 + 20 s^2 l
 *   bf16   Rounding G to 2^-9 changes it by more than its small eigenvalues, and their errors grow twelvefold
 *          from G to P G P. Rounding the elements of X keeps its small singular values. So G is recomputed
 *          from X: before every iteration if the matrix is about square, 5 s^3 + 15 s^2 l, else after the
 *          second one, 14 s^3 + 6 s^2 l
 *
 * Threads share out whole matrices if the working memory of all threads fits, else the parts of each product.
 * Parts depend on the shape alone, so bits depend neither on the number of threads nor on this choice.
 */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "engine/kernels/cpu/cpu.h"

#define ITERATIONS 5
#define LINE 16			/* floats of a cache line */
#define PART (128 * 1024)	/* floats of a part of Q X */
#define CHUNK 1024		/* elements of U that are rounded at a time */
#define ROOM_BYTES ((size_t)1 << 30)	/* for all threads together, unless one thread alone needs more */

static const float coefficients[3] = {3.4445f, -4.7750f, 2.0315f};

/* Division of products: a symmetric one into strips of whole rows, Q X into parts of rows x cols. */
struct cut {
	int64_t strip, rows, cols;
};
static const struct cut cut_f32 = {128, 128, PART / 128}, cut_bf16 = {96, 256, PART / 256};

/* Working memory of one matrix; factors are fp32, or bf16 if the backend multiplies it. */
struct room {
	void *x, *next;			/* [rows, cols]: X of this segment; bf16 only: X of the next one */
	void *g, *p, *q, *r;		/* [s, s] each */
	double *sums;			/* [rows] sums of squares */
	float *parts;			/* [threads, a part and the scratch of its product] */
};

struct work {
	struct kernels *k;
	const struct cpu__bf16 *bf16;	/* NULL: fp32 */
	const struct kernels_muon_matrix *m;
	const struct kernels_muon *a;
	struct cut cut;
	struct room room;
	int64_t s;
	size_t part_floats, scratch_floats;
	int threads;			/* number of threads that share the parts */
	int thread;			/* this thread, if it works alone */
	float scale;			/* X is scale times the stored values */
};

static int64_t
smaller(int64_t rows, int64_t cols)
{
	return rows < cols ? rows : cols;
}

/* Rounds up to a multiple of 16 floats: every array begins at a multiple of 64 bytes. */
static size_t
padded(int64_t n)
{
	return ((size_t)n + 15) / 16 * 16;
}

/* Floats of the largest part of Q X, or strip. */
static size_t
part_room(int64_t rows, int64_t cols)
{
	return (size_t)(smaller(rows, cols) > PART / 128 ? 128 * padded(smaller(rows, cols)) : PART);
}

/* Floats that n factors take. */
static size_t
factors(int64_t n, bool bf16)
{
	return padded(bf16 ? (n + 1) / 2 : n);
}

/* scratch: floats that a product needs besides its result. */
static size_t
room_floats(int64_t rows, int64_t cols, int threads, bool bf16, size_t scratch)
{
	int64_t s = smaller(rows, cols);

	return (bf16 ? 2 : 1) * factors(rows * cols, bf16) + 4 * factors(s * s, bf16) + 2 * padded(rows) +
	    (size_t)threads * (part_room(rows, cols) + scratch);
}

static void
room_lay(struct work *w, float *at)
{
	bool bf16 = w->bf16 != NULL;
	size_t whole = factors(w->m->rows * w->m->cols, bf16), square = factors(w->s * w->s, bf16);

	w->room.x = at;
	w->room.next = at + whole;
	at += (bf16 ? 2 : 1) * whole;
	w->room.g = at;
	w->room.p = at + square;
	w->room.q = at + 2 * square;
	w->room.r = at + 3 * square;
	at += 4 * square;
	w->room.sums = (double *)(void *)at;
	w->room.parts = at + 2 * padded(w->m->rows);
}

/* Index of element (r, 0). */
static int64_t
row_at(const struct kernels_muon_matrix *m, int64_t r)
{
	return r / m->group * m->group_stride + r % m->group * m->ld;
}

static void *
factor(const struct work *w, const void *x, int64_t i)
{
	return kernels__element(x, w->bf16 != NULL ? DTYPE_BF16 : DTYPE_F32, i);
}

/* Stores n factors. */
static void
store(const struct work *w, void *to, const float *from, int64_t n)
{
	if (w->bf16 != NULL)
		w->k->vec->narrow(to, from, n);
	else
		memcpy(to, from, (size_t)n * sizeof(float));
}

static float *
part_of(const struct work *w)
{
	return w->room.parts + (size_t)(w->threads > 1 ? omp_get_thread_num() : 0) * w->part_floats;
}

/* c = alpha op(a) op(b), with p's shape and no gaps; add: adds to c (fp32 only). */
static void
multiply(const struct work *w, const struct cpu__product *p, float alpha, const void *a, const void *b, bool add, float *c)
{
	if (w->bf16 == NULL)
		cpu__sgemm(p->trans_a, p->trans_b, p->m, p->n, p->k, alpha, a, p->lda, b, p->ldb, add ? 1 : 0, c, p->n);
	else
		w->bf16->run(w->k, p, a, b, c, c + (w->part_floats - w->scratch_floats), w->threads > 1 ? omp_get_thread_num() : w->thread);
}

/* Updates the momentum and sets X_0 = U / |U|. */
static void
start(struct work *w)
{
	const struct kernels_muon_matrix *m = w->m;
	const struct kernels_muon *a = w->a;
	const struct vec *vec = w->k->vec;
	double sum = 0, norm;

#pragma omp parallel for num_threads(w->threads) schedule(static) if (w->threads > 1)
	for (int64_t r = 0; r < m->rows; r++) {
		int64_t chunk = w->bf16 != NULL ? CHUNK : m->cols;

		w->room.sums[r] = 0;
		for (int64_t c = 0; c < m->cols; c += chunk) {
			int64_t at = row_at(m, r) + c, n = cpu__min(chunk, m->cols - c);
			void *x = factor(w, w->room.x, r * m->cols + c);
			float *u = w->bf16 != NULL ? part_of(w) : x;

			vec->momentum(u, m->m + at, m->grad + at, n, a->momentum, (float)(1 - (double)a->momentum), a->grad_scale);
			w->room.sums[r] += vec->sum_squares(u, n);
			if (w->bf16 != NULL)
				store(w, x, u, n);
		}
	}
	for (int64_t r = 0; r < m->rows; r++)
		sum += w->room.sums[r];
	norm = sqrt(sum);
	w->scale = (float)(1 / (norm > 1e-7 ? norm : 1e-7));
	if (w->bf16 != NULL)
		return;
#pragma omp parallel for num_threads(w->threads) schedule(static) if (w->threads > 1)
	for (int64_t r = 0; r < m->rows; r++)
		vec->scale((float *)w->room.x + r * m->cols, w->scale, m->cols);
	w->scale = 1;
}

/* ---- symmetric products, strip by strip ---- */

/* Mirrors the strip at the diagonal: its elements become the elements above the diagonal. */
#define MIRROR(name, type) \
	static void name(type *c, int64_t s, int64_t r0, int64_t r1) \
	{ \
		for (int64_t block = 0; block < r1; block += LINE) \
			for (int64_t j = block; j < cpu__min(r1, block + LINE); j++) \
				for (int64_t i = j < r0 ? r0 : j + 1; i < r1; i++) \
					c[j * s + i] = c[i * s + j]; \
	}
MIRROR(mirror_f32, float)
MIRROR(mirror_bf16, uint16_t)

/* Stores rows [r0, r1) up to column r1, and their mirror image. */
static void
store_strip(const struct work *w, void *c, int64_t r0, int64_t r1, const float *part)
{
	for (int64_t r = r0; r < r1; r++)
		store(w, factor(w, c, r * w->s), part + (r - r0) * r1, r1);
	if (w->bf16 != NULL)
		mirror_bf16(c, w->s, r0, r1);
	else
		mirror_f32(c, w->s, r0, r1);
}

static int64_t
strip_end(const struct work *w, int64_t r0)
{
	return cpu__min(w->s, r0 + w->cut.strip);
}

static struct cpu__product
gram_strip(const struct work *w, int64_t r0, int64_t r1)
{
	bool tall = w->m->rows > w->m->cols;

	return (struct cpu__product){.trans_a = tall, .trans_b = !tall, .m = r1 - r0, .n = r1, .k = tall ? w->m->rows : w->m->cols,
	    .lda = w->m->cols, .ldb = w->m->cols};
}

/* B is symmetric, so it may be declared transposed, which is faster in oneDNN. */
static struct cpu__product
square_strip(const struct work *w, int64_t r0, int64_t r1)
{
	return (struct cpu__product){.trans_b = w->bf16 != NULL, .m = r1 - r0, .n = r1, .k = w->s, .lda = w->s, .ldb = w->s};
}

/* G = X X^T, or X^T X if X has more rows than columns. */
static void
gram(const struct work *w)
{
	int64_t strips = (w->s + w->cut.strip - 1) / w->cut.strip;
	bool tall = w->m->rows > w->m->cols;

#pragma omp parallel for num_threads(w->threads) schedule(dynamic) if (w->threads > 1)
	for (int64_t i = strips - 1; i >= 0; i--) {
		int64_t r0 = i * w->cut.strip, r1 = strip_end(w, r0);
		const struct cpu__product p = gram_strip(w, r0, r1);
		float *part = part_of(w);

		multiply(w, &p, 1, factor(w, w->room.x, tall ? r0 : r0 * w->m->cols), w->room.x, false, part);
		if (w->scale != 1)
			w->k->vec->scale(part, w->scale * w->scale, p.m * p.n);
		store_strip(w, w->room.g, r0, r1, part);
	}
}

/*
 * C = alpha A B + beta A + diagonal I, all symmetric [s, s]; A and B must commute. C must be neither A nor B.
 */
static void
product(const struct work *w, void *c, float alpha, const void *a, const void *b, float beta, float diagonal)
{
	const struct vec *vec = w->k->vec;
	int64_t strips = (w->s + w->cut.strip - 1) / w->cut.strip;

#pragma omp parallel for num_threads(w->threads) schedule(dynamic) if (w->threads > 1)
	for (int64_t i = strips - 1; i >= 0; i--) {
		int64_t r0 = i * w->cut.strip, r1 = strip_end(w, r0);
		const struct cpu__product p = square_strip(w, r0, r1);
		float *part = part_of(w), wide[CHUNK];

		for (int64_t r = r0; r < r1 && beta != 0 && w->bf16 == NULL; r++) {
			float *row = part + (r - r0) * r1;

			memcpy(row, factor(w, a, r * w->s), (size_t)r1 * sizeof(float));
			vec->scale(row, beta, r1);
			row[r] += diagonal;
		}
		multiply(w, &p, alpha, factor(w, a, r0 * w->s), b, beta != 0, part);
		if (w->bf16 != NULL && alpha != 1)
			vec->scale(part, alpha, p.m * p.n);
		for (int64_t r = r0; r < r1 && beta != 0 && w->bf16 != NULL; r++) {
			float *row = part + (r - r0) * r1;

			for (int64_t c0 = 0; c0 < r1; c0 += CHUNK) {
				vec->widen(wide, factor(w, a, r * w->s + c0), cpu__min(CHUNK, r1 - c0));
				vec->axpy(row + c0, beta, wide, cpu__min(CHUNK, r1 - c0));
			}
			row[r] += diagonal;
		}
		store_strip(w, c, r0, r1, part);
	}
}

/* Returns Q such that n iterations of X are Q X (or X Q), with X as it is stored. */
static const void *
polynomials(const struct work *w, int n)
{
	void *g = w->room.g, *q = w->room.q, *spare = w->room.r;

	gram(w);
	for (int i = 0; i < n; i++) {
		void *p = i == 0 ? q : w->room.p, *swap = q;
		float last = i + 1 == n ? w->scale : 1, poly = i == 0 ? last : 1;

		product(w, p, poly * coefficients[2], g, g, poly * coefficients[1], poly * coefficients[0]);
		if (i + 1 < n) {		/* G = P G P */
			product(w, spare, 1, p, g, 0, 0);
			product(w, g, 1, spare, p, 0, 0);
		}
		if (i == 0)
			continue;
		product(w, spare, last, p, q, 0, 0);
		q = spare;
		spare = swap;
	}
	return q;
}

/* ---- Q X ---- */

/* A part of the product, at (row, col). */
struct place {
	int64_t row, col;
	struct cpu__product p;
};

static int64_t
places(const struct work *w)
{
	return (w->m->rows + w->cut.rows - 1) / w->cut.rows * ((w->m->cols + w->cut.cols - 1) / w->cut.cols);
}

static struct place
place_of(const struct work *w, int64_t i)
{
	int64_t across = (w->m->cols + w->cut.cols - 1) / w->cut.cols, row = i / across * w->cut.rows, col = i % across * w->cut.cols;
	bool tall = w->m->rows > w->m->cols;

	return (struct place){row, col, {.m = cpu__min(w->cut.rows, w->m->rows - row), .n = cpu__min(w->cut.cols, w->m->cols - col), .k = w->s,
	    .lda = tall ? w->m->cols : w->s, .ldb = tall ? w->s : w->m->cols}};
}

/* W = (1 - lr decay) W - lr scale x, and its copy. */
static void
update(const struct work *w, const struct place *here, const float *x)
{
	const struct kernels_muon_matrix *m = w->m;
	const struct kernels_muon *a = w->a;
	const struct vec *vec = w->k->vec;
	float shrink = (float)(1 - (double)a->lr * (double)a->decay), step = (float)(-(double)a->lr * (double)m->scale);
	int64_t n = here->p.n;

	for (int64_t r = 0; r < here->p.m; r++) {
		int64_t at = row_at(m, here->row + r) + here->col;

		vec->scale(m->w + at, shrink, n);
		vec->axpy(m->w + at, step, x + r * n, n);
		if (m->copy != NULL && a->copy_dtype == DTYPE_BF16)
			vec->narrow((uint16_t *)m->copy + at, m->w + at, n);
		else if (m->copy != NULL)
			memcpy((float *)m->copy + at, m->w + at, (size_t)n * sizeof(float));
	}
}

/* X = Q X; after the last segment the result updates the weights instead. */
static void
apply(struct work *w, const void *q, bool last)
{
	bool tall = w->m->rows > w->m->cols;
	void *x = w->room.x;

#pragma omp parallel for num_threads(w->threads) schedule(dynamic) if (w->threads > 1)
	for (int64_t i = 0; i < places(w); i++) {
		struct place here = place_of(w, i);
		float *part = part_of(w);

		multiply(w, &here.p, 1, tall ? factor(w, x, here.row * w->m->cols) : factor(w, q, here.row * w->s),
		    tall ? factor(w, q, here.col) : factor(w, x, here.col), false, part);
		if (last)
			update(w, &here, part);
		for (int64_t r = 0; r < here.p.m && !last; r++)
			store(w, factor(w, w->room.next, (here.row + r) * w->m->cols + here.col), part + r * here.p.n, here.p.n);
	}
	w->room.x = w->room.next;
	w->room.next = x;
	w->scale = 1;
}

/* Number of iterations in the segment that follows the first `done` ones. */
static int
segment(const struct work *w, int done)
{
	int64_t l = w->m->rows + w->m->cols - w->s;

	if (w->bf16 == NULL)
		return ITERATIONS;
	return 2 * l < 3 * w->s ? 1 : done == 0 ? 2 : ITERATIONS - done;
}

static void
one(const struct work *all, const struct kernels_muon_matrix *m, float *memory, int thread)
{
	struct work w = *all;
	int n;

	w.m = m;
	w.s = smaller(m->rows, m->cols);
	w.part_floats = part_room(m->rows, m->cols) + w.scratch_floats;
	w.thread = thread;
	room_lay(&w, memory);
	start(&w);
	for (int done = 0; done < ITERATIONS; done += n) {
		n = segment(&w, done);
		apply(&w, polynomials(&w, n), done + n == ITERATIONS);
	}
}

/* Prepares the products of a matrix; returns the bytes that they need at most. */
static size_t
prepare(struct work *w, const struct kernels_muon_matrix *m)
{
	size_t most = 0, bytes;

	w->m = m;
	w->s = smaller(m->rows, m->cols);
	for (int64_t r0 = 0; r0 < w->s; r0 += w->cut.strip)
		for (int i = 0; i < 2; i++) {
			struct cpu__product p = i == 0 ? gram_strip(w, r0, strip_end(w, r0)) : square_strip(w, r0, strip_end(w, r0));

			bytes = w->bf16->prepare(w->k, &p);
			most = bytes > most ? bytes : most;
		}
	for (int64_t i = 0; i < places(w); i++) {
		struct place here = place_of(w, i);

		bytes = w->bf16->prepare(w->k, &here.p);
		most = bytes > most ? bytes : most;
	}
	return most;
}

/* True if the threads take whole matrices. */
static bool
side_by_side(size_t floats, int threads)
{
	return (size_t)threads * floats * sizeof(float) <= ROOM_BYTES;
}

size_t
kernels_muon_bytes(int64_t rows, int64_t cols, int threads)
{
	size_t floats = room_floats(rows, cols, 1, false, 0);

	return sizeof(float) * (side_by_side(floats, threads) ? (size_t)threads * floats : room_floats(rows, cols, threads, false, 0));
}

void
cpu__muon_with(struct kernels *k, const struct cpu__bf16 *bf16, const struct kernels_muon_matrix *list, int64_t n, const struct kernels_muon *a)
{
	struct work w = {.k = k, .bf16 = bf16, .a = a, .cut = bf16 != NULL ? cut_bf16 : cut_f32};
	size_t floats = 0, together = 0, scratch = 0;
	bool apart;
	float *memory;

	for (int64_t i = 0; i < n && bf16 != NULL; i++) {
		size_t bytes = prepare(&w, &list[i]);

		scratch = bytes > scratch ? bytes : scratch;
	}
	w.scratch_floats = (scratch + 63) / 64 * 16;
	for (int64_t i = 0; i < n; i++) {
		size_t one_thread = room_floats(list[i].rows, list[i].cols, 1, bf16 != NULL, w.scratch_floats);
		size_t all = room_floats(list[i].rows, list[i].cols, k->threads, bf16 != NULL, w.scratch_floats);

		floats = one_thread > floats ? one_thread : floats;
		together = all > together ? all : together;
	}
	apart = n > 1 && side_by_side(floats, k->threads);
	w.threads = apart ? 1 : k->threads;
	memory = cpu__panels(k, apart ? (size_t)k->threads * floats : together);
#pragma omp parallel for num_threads(k->threads) schedule(dynamic) if (apart && k->threads > 1)
	for (int64_t i = 0; i < n; i++)
		one(&w, &list[i], memory + (apart ? (size_t)omp_get_thread_num() * floats : 0), apart ? omp_get_thread_num() : 0);
}

void
cpu__muon(struct kernels *k, const struct kernels_muon_matrix *list, int64_t n, const struct kernels_muon *a)
{
	cpu__muon_with(k, NULL, list, n, a);
}
