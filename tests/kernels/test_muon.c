/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compares kernels_muon with the plain iteration in fp64 (reference.c): tall, wide and square shapes, one
 * strip and several, matrices inside wider ones, gradients of low rank (directions without gradient, and
 * rounding errors in them, are amplified by 3.4445^5 = 485). One matrix or many and one thread or three must
 * give the same bits.
 *
 * It runs in fp32, and in bf16 if the machine has units for it. PyTorch's own iteration in bf16 differs from
 * fp64 by 0.014 to 0.022 of the largest element at 256 x 256 and 256 x 1,024, full rank; here 0.05 is
 * allowed, as matrices are small. In bf16 directions without gradient consist of rounding errors with any
 * algorithm. So for low rank only the size of the update is compared, which no iteration of PSD matrices
 * takes beyond 1.21 in any direction.
 */
#include "fixture.h"
#include "reference.h"

#define MAX_THREADS 3

static struct kernels *contexts[MAX_THREADS];
static const struct kernels_muon args = {.lr = 0.5f, .momentum = 0.95f, .decay = 0.1f, .grad_scale = 0.3f};
static double worst, worst_low;		/* largest differences: full rank, low rank */
static bool bf16;			/* the kernels handles compute in bf16 */

/* A matrix and the arrays that contain it, n elements each. */
struct one {
	struct kernels_muon_matrix m;
	int64_t n;
	/* values before the step; values after it, by the reference */
	float *w0, *m0, *want, *moved;
	const char *what;
};

static struct one
make(const char *what, int64_t rows, int64_t cols, int64_t ld, int64_t group, int64_t group_stride, int64_t first, int64_t rank)
{
	struct one o = {.what = what, .n = first + (rows / group - 1) * group_stride + (group - 1) * ld + cols};
	float *grad = noise(o.n, 1), *left = noise(rows * rank, 1), *right = noise(rank * cols, 1);

	o.w0 = noise(o.n, 0.1f);
	o.m0 = room(o.n);
	for (int64_t r = 0; r < rows && rank > 0; r++)		/* the momentum has the same rank */
		for (int64_t c = 0; c < cols; c++) {
			int64_t at = first + r / group * group_stride + r % group * ld + c;

			grad[at] = 0;
			for (int64_t i = 0; i < rank; i++)
				grad[at] += left[r * rank + i] * right[i * cols + c];
		}
	if (rank == 0)
		for (int64_t i = 0; i < o.n; i++)
			o.m0[i] = normal(0.3f);
	o.m = (struct kernels_muon_matrix){.w = room(o.n) + first, .m = room(o.n) + first, .grad = grad + first, .rows = rows, .cols = cols,
	    .ld = ld, .group = group, .group_stride = group_stride, .scale = 0.2f * sqrtf((float)(rows > cols ? rows : cols))};
	o.want = copy_of(o.w0, o.n);
	o.moved = copy_of(o.m0, o.n);
	struct kernels_muon_matrix ref = o.m;

	ref.w = o.want + first;
	ref.m = o.moved + first;
	kernels_muon_ref(&ref, &args);
	o.m.w -= first;
	o.m.m -= first;
	memcpy(o.m.w, o.w0, (size_t)o.n * sizeof(float));
	memcpy(o.m.m, o.m0, (size_t)o.n * sizeof(float));
	o.m.w += first;
	o.m.m += first;
	return o;
}

static void
again(struct one *o, int64_t first)
{
	memcpy(o->m.w - first, o->w0, (size_t)o->n * sizeof(float));
	memcpy(o->m.m - first, o->m0, (size_t)o->n * sizeof(float));
}

/* Root mean square of the singular values of the update. */
static double
size_of(const struct one *o, int64_t first)
{
	double sum = 0, step = (double)args.lr * (double)o->m.scale;

	for (int64_t r = 0; r < o->m.rows; r++)
		for (int64_t c = 0; c < o->m.cols; c++) {
			int64_t at = r / o->m.group * o->m.group_stride + r % o->m.group * o->m.ld + c;
			double x = (o->w0[first + at] * (1 - (double)args.lr * (double)args.decay) - o->m.w[at]) / step;

			sum += x * x;
		}
	return sqrt(sum / (double)(o->m.rows < o->m.cols ? o->m.rows : o->m.cols));
}

static void
against_reference(const char *what, int64_t rows, int64_t cols, int64_t ld, int64_t group, int64_t group_stride, int64_t first,
    int64_t rank)
{
	struct one o = make(what, rows, cols, ld, group, group_stride, first, rank);
	float *w = o.m.w - first, *m = o.m.m - first, *bits = NULL;
	uint16_t *copy = calloc((size_t)o.n, sizeof(*copy)), *narrow = calloc((size_t)o.n, sizeof(*narrow));
	struct kernels_muon with_copy = args;
	double largest = 0, *met = rank > 0 ? &worst_low : &worst, allowed = bf16 ? 0.05 : rank > 0 ? 1e-3 : 1e-4;
	const bool rounding = bf16 && rank > 0;

	REQUIRE(copy != NULL && narrow != NULL);
	for (int threads = 1; threads <= FIXTURE_TEAMS; threads++) {
		again(&o, first);
		kernels_muon(contexts[threads - 1], &o.m, 1, &args);
		if (bits == NULL)
			bits = copy_of(w, o.n);
		check_same(what, w, bits, o.n);
	}
	check_close(what, m, o.moved, o.n, 1e-6);
	/* differences are relative to the largest update */
	for (int64_t i = 0; i < o.n; i++)
		largest = fmax(largest, fabs((double)o.want[i] - (double)o.w0[i]));
	if (rounding)
		CHECK_ROW(what, size_of(&o, first) < 1.25);
	for (int64_t i = 0; i < o.n && !rounding; i++)
		*met = fmax(*met, fabs((double)w[i] - (double)o.want[i]) / largest);
	for (int64_t i = 0; i < o.n && !rounding; i++)
		if (fabs((double)w[i] - (double)o.want[i]) > allowed * largest) {
			fprintf(stderr, "%s: [%lld] %.9g, not %.9g\n", what, (long long)i, (double)w[i], (double)o.want[i]);
			CHECK_ROW(what, !"close");
			break;
		}
	again(&o, first);
	with_copy.copy_dtype = DTYPE_BF16;
	o.m.copy = copy + first;
	kernels_muon(contexts[1], &o.m, 1, &with_copy);
	check_same("muon with a copy", w, bits, o.n);
	kernels_convert(contexts[0], narrow, DTYPE_BF16, w, DTYPE_F32, o.n);
	for (int64_t i = 0; i < rows * cols; i++) {
		int64_t at = first + i / cols / group * group_stride + i / cols % group * ld + i % cols;

		if (copy[at] != narrow[at]) {
			CHECK_ROW(what, !"the copy is the rounded weight");
			break;
		}
	}
	free(copy);
	free(narrow);
	fixture_close(what);
}

/* In a list each matrix gets the same bits as alone, whether threads process whole matrices or strips. */
static void
many_at_once(void)
{
	static const int64_t sizes[][2] = {{5, 7}, {130, 40}, {40, 260}, {1, 9}, {140, 140}, {33, 33}};
	enum { N = sizeof(sizes) / sizeof(sizes[0]) };
	struct kernels_muon_matrix list[N];
	struct one o[N];
	float *alone[N];

	for (int i = 0; i < N; i++) {
		o[i] = make("many", sizes[i][0], sizes[i][1], sizes[i][1], sizes[i][0], sizes[i][0] * sizes[i][1], 0, 0);
		kernels_muon(contexts[2], &o[i].m, 1, &args);
		alone[i] = copy_of(o[i].m.w, o[i].n);
		list[i] = o[i].m;
	}
	for (int threads = 1; threads <= FIXTURE_TEAMS; threads++) {
		for (int i = 0; i < N; i++)
			again(&o[i], 0);
		kernels_muon(contexts[threads - 1], list, N, &args);
		for (int i = 0; i < N; i++)
			check_same("muon, many matrices", list[i].w, alone[i], o[i].n);
	}
	fixture_close("many");
}

/* Without gradient and momentum there is only decay. */
static void
nothing(void)
{
	float *w = noise(12, 1), *m = room(12), *g = room(12), *want = copy_of(w, 12);
	struct kernels_muon_matrix x = {.w = w, .m = m, .grad = g, .rows = 3, .cols = 4, .ld = 4, .group = 3, .group_stride = 12, .scale = 1};

	kernels_muon(contexts[0], &x, 1, &args);
	for (int i = 0; i < 12; i++)
		want[i] *= 0.95f;
	check_close("muon of nothing", w, want, 12, 1e-6);
	fixture_close("nothing");
}

static void
all(const char *what)
{
	worst = worst_low = 0;
	against_reference("1 x 1", 1, 1, 1, 1, 1, 0, 0);
	against_reference("3 x 5", 3, 5, 5, 3, 15, 0, 0);
	against_reference("7 x 2", 7, 2, 2, 7, 14, 0, 0);
	against_reference("130 x 67", 130, 67, 67, 130, 130 * 67, 0, 0);
	against_reference("67 x 259", 67, 259, 259, 67, 67 * 259, 0, 0);
	if (!FIXTURE_MIRROR) {
		against_reference("270 x 150", 270, 150, 150, 270, 270 * 150, 0, 0);
		against_reference("280 x 270", 280, 270, 270, 280, 280 * 270, 0, 0);
		against_reference("131 x 1050", 131, 1050, 1050, 131, 131 * 1050, 0, 0);
	}
	against_reference("rank 3 of 65", 65, 80, 80, 65, 65 * 80, 0, 3);
	against_reference("rank 3 of 65, wide", 65, 200, 200, 65, 65 * 200, 0, 3);
	against_reference("middle columns of 3 C", 33, 33, 99, 33, 33 * 99, 33, 0);
	against_reference("every third group of rows", 30, 40, 40, 5, 3 * 5 * 40, 5 * 40, 0);
	many_at_once();
	nothing();
	fprintf(stderr, "%s: largest difference %.2g of the largest update; %.2g where the gradient has low rank\n", what, worst, worst_low);
	for (int i = 0; i < MAX_THREADS; i++)
		kernels_destroy(&contexts[i]);
}

int
main(void)
{
	struct err_note note = {.name = ""};

	fixture_start();
	for (int i = 0; i < MAX_THREADS; i++)
		contexts[i] = fixture_kernels(i + 1);
	all("fp32");
	bf16 = true;
	for (int i = 0; i < MAX_THREADS; i++) {
		const struct kernels_options o = {.dtype = KERNELS_DTYPE_BF16, .backend = KERNELS_BACKEND_ONEDNN, .threads = i + 1};

		if (!FIXTURE_MIRROR && kernels_new(&contexts[i], &o, &note) == ERR_UNSUPPORTED) {
			kernels_destroy(&contexts[i]);
			fprintf(stderr, "skipped: bf16: needs %s\n", note.expected);
			return check_done();
		}
		if (FIXTURE_MIRROR)
			contexts[i] = fixture_context(&o);
		REQUIRE(contexts[i] != NULL);
	}
	all("bf16");
	return check_done();
}
