/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guard - a table of operations in front of a backend's, for tests: kernels_alloc returns addresses that
 * cannot be read or written outside of kernels.
 *
 * One region of address space is reserved. Its first half contains the arrays; a device address is the
 * array's address plus HALF, in the second half, which is never accessible. The functions below subtract HALF
 * and call the backend, so kernels run as usual and give the same bits. Any other access to a device address
 * is a fault: the report names the allocation, prints the call stack and ends the process with status 86.
 * Host memory that is passed as device memory is reported too. No address is used twice.
 */
#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/kernels/kernels_internal.h"

#define HALF ((size_t)1 << 40)
#define PAGE ((size_t)4096)
#define STATUS 86

struct record {
	struct record *next;
	char *begin;			/* device address */
	size_t bytes;
	bool freed;
};

static char *arrays, *device;		/* the two halves */
static size_t used;
static struct record *records;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static bool
on_device(const void *p)
{
	return (const char *)p >= device && (const char *)p < device + HALF;
}

__attribute__((noreturn)) static void
report(const char *what, const void *p)
{
	const struct record *r = records;
	char line[256];
	void *calls[24];
	int n;

	while (r != NULL && !((const char *)p >= r->begin && (const char *)p < r->begin + r->bytes))
		r = r->next;
	if (r != NULL)
		n = snprintf(line, sizeof(line), "guard: %s: byte %zu of an allocation of %zu bytes%s\n", what,
		    (size_t)((const char *)p - r->begin), r->bytes, r->freed ? ", which was freed" : "");
	else
		n = snprintf(line, sizeof(line), "guard: %s: address %p is in no allocation\n", what, p);
	if (write(STDERR_FILENO, line, (size_t)n) == n)
		backtrace_symbols_fd(calls, backtrace(calls, 24), STDERR_FILENO);
	_exit(STATUS);
}

static void
fault(int number, siginfo_t *info, void *context)
{
	(void)context;
	if (on_device(info->si_addr))
		report("device memory accessed outside kernels", info->si_addr);
	if (on_device((char *)info->si_addr + HALF))
		report("a kernel accessed memory that is not allocated", (char *)info->si_addr + HALF);
	/* another fault: the instruction runs again and ends the process */
	signal(number, SIG_DFL);
}

static void
start(void)
{
	struct sigaction action = {.sa_sigaction = fault, .sa_flags = SA_SIGINFO};
	void *calls[1];

	arrays = mmap(NULL, 2 * HALF, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (arrays == MAP_FAILED) {
		perror("guard: no address space");
		exit(STATUS);
	}
	device = arrays + HALF;
	sigaction(SIGSEGV, &action, NULL);
	(void)backtrace(calls, 1);		/* loads its library now, not during a fault */
}

/* Translates a device address to the address of the array. */
static void *
at(const void *p)
{
	if (p == NULL)
		return NULL;
	if (!on_device(p))
		report("host memory passed as device memory", p);
	return (char *)(uintptr_t)p - HALF;
}

static struct tensor
tensor_at(const struct tensor *t)
{
	struct tensor out = *t;

	out.data = at(t->data);
	return out;
}

static struct kernels_heads
heads_at(const struct kernels_heads *h)
{
	struct kernels_heads out = *h;

	out.data = at(h->data);
	return out;
}

static struct kernels__matrix
matrix_at(const struct kernels__matrix *m)
{
	struct kernels__matrix out = *m;

	out.data = at(m->data);
	return out;
}

/* The operands with translated addresses; valid until the end of the block. */
#define T(t) ((t) != NULL ? (struct tensor[]){tensor_at(t)} : NULL)
#define H(h) ((struct kernels_heads[]){heads_at(h)})
#define M(m) ((struct kernels__matrix[]){matrix_at(m)})

/* ---- memory ---- */

static void *
guard_alloc(struct kernels *k, size_t bytes)
{
	struct record *r = NULL;
	size_t pages;

	(void)k;
	if (bytes > HALF - PAGE)
		return NULL;
	pages = bytes / PAGE * PAGE + PAGE;
	pthread_mutex_lock(&lock);
	if (pages <= HALF - used && (r = calloc(1, sizeof(*r))) != NULL) {
		*r = (struct record){.next = records, .begin = device + used, .bytes = bytes};
		if (mprotect(arrays + used, pages, PROT_READ | PROT_WRITE) == 0) {
			used += pages;
			records = r;
		} else {
			free(r);
			r = NULL;
		}
	}
	pthread_mutex_unlock(&lock);
	return r != NULL ? r->begin : NULL;
}

static void
guard_free(struct kernels *k, void *p)
{
	struct record *r;
	size_t pages;

	(void)k;
	pthread_mutex_lock(&lock);
	for (r = records; r != NULL && r->begin != p; r = r->next)
		;
	if (r == NULL || r->freed)
		report("kernels_free of what kernels_alloc did not return, or twice", p);
	r->freed = true;
	pages = r->bytes / PAGE * PAGE + PAGE;
	madvise(at(p), pages, MADV_DONTNEED);
	mprotect(at(p), pages, PROT_NONE);
	pthread_mutex_unlock(&lock);
}

static void
guard_zero(struct kernels *k, void *p, size_t bytes)
{
	k->backend->zero(k, at(p), bytes);
}

static void
guard_transfer(struct kernels *k, enum kernels__transfer kind, void *to, const void *from, size_t bytes)
{
	k->backend->transfer(k, kind, kind == KERNELS__COPY || kind == KERNELS__UPLOAD ? at(to) : to,
	    kind == KERNELS__UPLOAD ? from : at(from), bytes);
}

static void
guard_params(struct kernels *k, const void *params, size_t bytes, uint64_t generation)
{
	if (k->backend->params != NULL)
		k->backend->params(k, at(params), bytes, generation);
}

/* ---- kernels, in the order of struct kernels_ops ---- */

static void
guard_matmul(struct kernels *k, int64_t m, int64_t n, int64_t inner, const struct kernels__matrix *a,
    const struct kernels__matrix *b, const struct kernels__matrix *c, const struct tensor *bias, bool add)
{
	k->backend->matmul(k, m, n, inner, M(a), M(b), M(c), T(bias), add);
}

static void
guard_column_sums(struct kernels *k, float *sums, const struct tensor *x)
{
	k->backend->column_sums(k, at(sums), T(x));
}

static void
guard_embed(struct kernels *k, struct tensor *y, const int32_t *tokens, const struct tensor *wte,
    const struct tensor *wpe, int64_t m, int64_t t, const int32_t *starts)
{
	k->backend->embed(k, T(y), tokens, T(wte), T(wpe), m, t, starts);
}

static void
guard_embed_bwd(struct kernels *k, struct tensor *d_wte, struct tensor *d_wpe, const struct tensor *d_y,
    const int32_t *tokens, int64_t m, int64_t t, const int32_t *starts)
{
	k->backend->embed_bwd(k, T(d_wte), T(d_wpe), T(d_y), tokens, m, t, starts);
}

static void
guard_norm(struct kernels *k, struct tensor *y, float *mean, float *rstd, const struct tensor *x,
    const struct tensor *g, const struct tensor *b, float eps)
{
	k->backend->norm(k, T(y), at(mean), at(rstd), T(x), T(g), T(b), eps);
}

static void
guard_norm_bwd(struct kernels *k, struct tensor *d_x, struct tensor *d_g, struct tensor *d_b, const struct tensor *d_y,
    const struct tensor *x, const struct tensor *g, const float *mean, const float *rstd, bool add)
{
	k->backend->norm_bwd(k, T(d_x), T(d_g), T(d_b), T(d_y), T(x), T(g), at(mean), at(rstd), add);
}

static void
guard_rmsnorm_heads(struct kernels *k, struct kernels_heads *y, float *rstd, const struct kernels_heads *x,
    const struct tensor *g, float eps, int64_t m)
{
	k->backend->rmsnorm_heads(k, H(y), at(rstd), H(x), T(g), eps, m);
}

static void
guard_rmsnorm_heads_bwd(struct kernels *k, struct kernels_heads *d_x, struct tensor *d_g,
    const struct kernels_heads *d_y, const struct kernels_heads *x, const struct tensor *g, const float *rstd,
    int64_t m)
{
	k->backend->rmsnorm_heads_bwd(k, H(d_x), T(d_g), H(d_y), H(x), T(g), at(rstd), m);
}

static void
guard_pointwise(struct kernels *k, enum kernels__pointwise op, struct tensor *const out[2],
    const struct tensor *const in[3], int64_t n)
{
	struct tensor *const to[2] = {T(out[0]), T(out[1])};
	const struct tensor *const from[3] = {T(in[0]), T(in[1]), T(in[2])};

	k->backend->pointwise(k, op, to, from, n);
}

static void
guard_affine(struct kernels *k, struct tensor *y, const struct tensor *x, float factor, float shift)
{
	k->backend->affine(k, T(y), T(x), factor, shift);
}

static void
guard_add_scaled(struct kernels *k, struct tensor *y, const struct tensor *x, const struct tensor *branch, float factor)
{
	k->backend->add_scaled(k, T(y), T(x), T(branch), factor);
}

static void
guard_soft_cap(struct kernels *k, struct tensor *x, float cap)
{
	k->backend->soft_cap(k, T(x), cap);
}

static void
guard_rope(struct kernels *k, struct kernels_heads *x, const float *freq, float magnitude, int64_t b, int64_t t,
    const int32_t *starts, bool inverse)
{
	k->backend->rope(k, H(x), freq, magnitude, b, t, starts, inverse);
}

static void
guard_attention(struct kernels *k, const struct kernels_heads *o, float *lse, const struct kernels_heads *q,
    const struct kernels_heads *key, const struct kernels_heads *value, const struct kernels_attention_form *form,
    int64_t b, int64_t t)
{
	k->backend->attention(k, H(o), at(lse), H(q), H(key), H(value), form, b, t);
}

static void
guard_attention_bwd(struct kernels *k, struct kernels_heads *d_q, struct kernels_heads *d_key,
    struct kernels_heads *d_value, const struct kernels_heads *d_o, const struct kernels_heads *o,
    const float *lse, const struct kernels_heads *q, const struct kernels_heads *key,
    const struct kernels_heads *value, const struct kernels_attention_form *form, int64_t b, int64_t t)
{
	k->backend->attention_bwd(k, H(d_q), H(d_key), H(d_value), H(d_o), H(o), at(lse), H(q), H(key), H(value), form, b, t);
}

static void
guard_output_loss(struct kernels *k, const struct tensor *h, const struct tensor *w_out,
    const struct kernels_output *more, const struct kernels_targets *targets, float grad_scale, struct tensor *d_h, struct tensor *d_w,
    struct kernels_loss_sums *sums)
{
	const struct kernels_output here = {T(more->bias), T(more->d_bias), more->soft_cap, more->overwrite};

	k->backend->output_loss(k, T(h), T(w_out), &here, targets, grad_scale, T(d_h), T(d_w), sums);
}

static void
guard_output_label(struct kernels *k, const struct tensor *h, const struct tensor *w_out,
    const struct kernels_output *more, const struct kernels_label_spec *spec, const int32_t *next, const uint64_t *seqs, int64_t b, int64_t t,
    struct kernels_labels *out)
{
	const struct kernels_output here = {T(more->bias), NULL, more->soft_cap};

	k->backend->output_label(k, T(h), T(w_out), &here, spec, next, seqs, b, t, out);
}

static void
guard_accumulate(struct kernels *k, float *y, const float *x, int64_t n)
{
	k->backend->accumulate(k, at(y), at(x), n);
}

static void
guard_norm_blocks(struct kernels *k, const float *x, int64_t n, double *out)
{
	k->backend->norm_blocks(k, at(x), n, out);
}

static void
guard_adamw(struct kernels *k, float *w, float *m, float *v, const float *grad, void *copy,
    enum dtype copy_dtype, int64_t n, const struct kernels_adamw *a)
{
	k->backend->adamw(k, at(w), at(m), at(v), at(grad), at(copy), copy_dtype, n, a);
}

static void
guard_muon(struct kernels *k, const struct kernels_muon_matrix *list, int64_t n, const struct kernels_muon *a)
{
	struct kernels_muon_matrix *here = calloc((size_t)n + 1, sizeof(*here));

	for (int64_t i = 0; i < n && here != NULL; i++) {
		here[i] = list[i];
		here[i].w = at(list[i].w);
		here[i].m = at(list[i].m);
		here[i].grad = at(list[i].grad);
		here[i].copy = at(list[i].copy);
	}
	k->backend->muon(k, here, n, a);
	free(here);
}

static void
guard_convert(struct kernels *k, void *to, enum dtype to_dtype, const void *from, enum dtype from_dtype, int64_t n)
{
	k->backend->convert(k, at(to), to_dtype, at(from), from_dtype, n);
}

const struct kernels_ops *
kernels__guard(const struct kernels_ops *backend)
{
	static struct kernels_ops ops = {
	    .alloc = guard_alloc,
	    .free = guard_free,
	    .zero = guard_zero,
	    .transfer = guard_transfer,
	    .params = guard_params,
	    .matmul = guard_matmul,
	    .column_sums = guard_column_sums,
	    .embed = guard_embed,
	    .embed_bwd = guard_embed_bwd,
	    .norm = guard_norm,
	    .norm_bwd = guard_norm_bwd,
	    .rmsnorm_heads = guard_rmsnorm_heads,
	    .rmsnorm_heads_bwd = guard_rmsnorm_heads_bwd,
	    .pointwise = guard_pointwise,
	    .affine = guard_affine,
	    .add_scaled = guard_add_scaled,
	    .soft_cap = guard_soft_cap,
	    .rope = guard_rope,
	    .attention = guard_attention,
	    .attention_bwd = guard_attention_bwd,
	    .output_loss = guard_output_loss,
	    .output_label = guard_output_label,
	    .accumulate = guard_accumulate,
	    .norm_blocks = guard_norm_blocks,
	    .adamw = guard_adamw,
	    .muon = guard_muon,
	    .convert = guard_convert,
	};

	pthread_once(&once, start);
	ops.host_alloc = backend->host_alloc;
	ops.host_free = backend->host_free;
	return &ops;
}
