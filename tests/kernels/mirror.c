/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table of operations in front of the CUDA kernels'. The operands of a call are ranges of host memory;
 * ranges that overlap (q, k and v of one array) are merged. Each range gets device memory of exactly its
 * size, so that an access outside of an operand is outside of an allocation.
 */
#include "mirror.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef MIRROR_PLUGIN
extern const struct kernels_ops kernels__cuda;		/* common/engine/kernels/cuda/cuda.h, which is C++ */
#endif

#define MAX_PARTS 32

static struct part {
	char *begin, *end, *device;
} parts[MAX_PARTS];
static int n_parts;

static void
add(const void *p, int64_t bytes)
{
	struct part new = {(char *)(uintptr_t)p, (char *)(uintptr_t)p + bytes, NULL};

	if (p == NULL || bytes <= 0)
		return;
	for (int i = 0; i < n_parts; i++) {
		if (new.begin >= parts[i].end || parts[i].begin >= new.end)
			continue;
		new.begin = new.begin < parts[i].begin ? new.begin : parts[i].begin;
		new.end = new.end > parts[i].end ? new.end : parts[i].end;
		parts[i--] = parts[--n_parts];
	}
	if (n_parts == MAX_PARTS)
		abort();
	parts[n_parts++] = new;
}

static void
add_tensor(const struct tensor *t)
{
	if (t != NULL)
		add(t->data, tensor_count(t) * (int64_t)dtype_size(t->dtype));
}

static void
add_heads(const struct kernels_heads *h, int64_t m)
{
	add(h->data, ((m - 1) * h->stride + (h->n_heads - 1) * kernels__head_stride(h) + h->head_dim) * (int64_t)dtype_size(h->dtype));
}

static void
add_matrix(const struct kernels__matrix *x, int64_t rows, int64_t cols)
{
	add(x->data, ((x->trans ? cols : rows) * x->ld - x->ld + (x->trans ? rows : cols)) * (int64_t)dtype_size(x->dtype));
}

static void
send(struct kernels *k)
{
	for (int i = 0; i < n_parts; i++) {
		size_t bytes = (size_t)(parts[i].end - parts[i].begin);

		if ((parts[i].device = k->backend->alloc(k, bytes)) == NULL)
			abort();
		k->backend->transfer(k, KERNELS__UPLOAD, parts[i].device, parts[i].begin, bytes);
	}
}

static void
receive(struct kernels *k)
{
	for (int i = 0; i < n_parts; i++) {
		k->backend->transfer(k, KERNELS__DOWNLOAD, parts[i].begin, parts[i].device, (size_t)(parts[i].end - parts[i].begin));
		k->backend->free(k, parts[i].device);
	}
	n_parts = 0;
}

static void *
at(const void *p)
{
	for (int i = 0; i < n_parts; i++)
		if ((const char *)p >= parts[i].begin && (const char *)p < parts[i].end)
			return parts[i].device + ((const char *)p - parts[i].begin);
	return NULL;
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

#define T(t) ((t) != NULL ? (struct tensor[]){tensor_at(t)} : NULL)
#define H(h) ((struct kernels_heads[]){heads_at(h)})
#define M(m) ((struct kernels__matrix[]){matrix_at(m)})
#define F32(n) ((n) * (int64_t)sizeof(float))

static void *
mirror_alloc(struct kernels *k, size_t bytes)
{
	(void)k;
	return calloc(1, bytes + 1);
}

static void
mirror_free(struct kernels *k, void *p)
{
	(void)k;
	free(p);
}

static void
mirror_zero(struct kernels *k, void *p, size_t bytes)
{
	(void)k;
	memset(p, 0, bytes);
}

static void
mirror_transfer(struct kernels *k, enum kernels__transfer kind, void *to, const void *from, size_t bytes)
{
	(void)k;
	(void)kind;
	memmove(to, from, bytes);
}

static void *
mirror_host_pointer(struct kernels *k, void *p)
{
	(void)k;
	return p;
}

static void
mirror_matmul(struct kernels *k, int64_t m, int64_t n, int64_t inner, const struct kernels__matrix *a, const struct kernels__matrix *b,
    const struct kernels__matrix *c, const struct tensor *bias, bool plus)
{
	add_matrix(a, m, inner);
	add_matrix(b, inner, n);
	add_matrix(c, m, n);
	add_tensor(bias);
	send(k);
	k->backend->matmul(k, m, n, inner, M(a), M(b), M(c), T(bias), plus);
	receive(k);
}

static void
mirror_column_sums(struct kernels *k, float *sums, const struct tensor *x)
{
	add(sums, F32(kernels__cols(x)));
	add_tensor(x);
	send(k);
	k->backend->column_sums(k, at(sums), T(x));
	receive(k);
}

static void
mirror_embed(struct kernels *k, struct tensor *y, const int32_t *tokens, const struct tensor *wte, const struct tensor *wpe, int64_t m,
    int64_t t, const int32_t *starts)
{
	add_tensor(y);
	add_tensor(wte);
	add_tensor(wpe);
	send(k);
	k->backend->embed(k, T(y), tokens, T(wte), T(wpe), m, t, starts);
	receive(k);
}

static void
mirror_embed_bwd(struct kernels *k, struct tensor *d_wte, struct tensor *d_wpe, const struct tensor *d_y, const int32_t *tokens, int64_t m,
    int64_t t, const int32_t *starts)
{
	add_tensor(d_wte);
	add_tensor(d_wpe);
	add_tensor(d_y);
	send(k);
	k->backend->embed_bwd(k, T(d_wte), T(d_wpe), T(d_y), tokens, m, t, starts);
	receive(k);
}

static void
mirror_norm(struct kernels *k, struct tensor *y, float *mean, float *rstd, const struct tensor *x, const struct tensor *g,
    const struct tensor *b, float eps)
{
	add_tensor(y);
	add(mean, F32(kernels__rows(x)));
	add(rstd, F32(kernels__rows(x)));
	add_tensor(x);
	add_tensor(g);
	add_tensor(b);
	send(k);
	k->backend->norm(k, T(y), at(mean), at(rstd), T(x), T(g), T(b), eps);
	receive(k);
}

static void
mirror_norm_bwd(struct kernels *k, struct tensor *d_x, struct tensor *d_g, struct tensor *d_b, const struct tensor *d_y,
    const struct tensor *x, const struct tensor *g, const float *mean, const float *rstd, bool plus)
{
	add_tensor(d_x);
	add_tensor(d_g);
	add_tensor(d_b);
	add_tensor(d_y);
	add_tensor(x);
	add_tensor(g);
	add(mean, F32(kernels__rows(x)));
	add(rstd, F32(kernels__rows(x)));
	send(k);
	k->backend->norm_bwd(k, T(d_x), T(d_g), T(d_b), T(d_y), T(x), T(g), at(mean), at(rstd), plus);
	receive(k);
}

static void
mirror_rmsnorm_heads(struct kernels *k, struct kernels_heads *y, float *rstd, const struct kernels_heads *x, const struct tensor *g,
    float eps, int64_t m)
{
	add_heads(y, m);
	add_heads(x, m);
	add(rstd, F32(m * x->n_heads));
	add_tensor(g);
	send(k);
	k->backend->rmsnorm_heads(k, H(y), at(rstd), H(x), T(g), eps, m);
	receive(k);
}

static void
mirror_rmsnorm_heads_bwd(struct kernels *k, struct kernels_heads *d_x, struct tensor *d_g, const struct kernels_heads *d_y,
    const struct kernels_heads *x, const struct tensor *g, const float *rstd, int64_t m)
{
	add_heads(d_x, m);
	add_heads(d_y, m);
	add_heads(x, m);
	add_tensor(d_g);
	add_tensor(g);
	add(rstd, F32(m * x->n_heads));
	send(k);
	k->backend->rmsnorm_heads_bwd(k, H(d_x), T(d_g), H(d_y), H(x), T(g), at(rstd), m);
	receive(k);
}

static void
mirror_pointwise(struct kernels *k, enum kernels__pointwise op, struct tensor *const out[2], const struct tensor *const in[3], int64_t n)
{
	for (int i = 0; i < 2; i++)
		add_tensor(out[i]);
	for (int i = 0; i < 3; i++)
		add_tensor(in[i]);
	send(k);
	k->backend->pointwise(k, op, (struct tensor *const[]){T(out[0]), T(out[1])},
	    (const struct tensor *const[]){T(in[0]), T(in[1]), T(in[2])}, n);
	receive(k);
}

static void
mirror_affine(struct kernels *k, struct tensor *y, const struct tensor *x, float factor, float shift)
{
	add_tensor(y);
	add_tensor(x);
	send(k);
	k->backend->affine(k, T(y), T(x), factor, shift);
	receive(k);
}

static void
mirror_add_scaled(struct kernels *k, struct tensor *y, const struct tensor *x, const struct tensor *branch, float factor)
{
	add_tensor(y);
	add_tensor(x);
	add_tensor(branch);
	send(k);
	k->backend->add_scaled(k, T(y), T(x), T(branch), factor);
	receive(k);
}

static void
mirror_soft_cap(struct kernels *k, struct tensor *x, float cap)
{
	add_tensor(x);
	send(k);
	k->backend->soft_cap(k, T(x), cap);
	receive(k);
}

static void
mirror_rope(struct kernels *k, struct kernels_heads *x, const float *freq, float magnitude, int64_t b, int64_t t, const int32_t *starts,
    bool inverse)
{
	add_heads(x, b * t);
	send(k);
	k->backend->rope(k, H(x), freq, magnitude, b, t, starts, inverse);
	receive(k);
}

static void
mirror_attention(struct kernels *k, const struct kernels_heads *o, float *lse, const struct kernels_heads *q, const struct kernels_heads *key,
    const struct kernels_heads *value, const struct kernels_attention_form *form, int64_t b, int64_t t)
{
	add_heads(o, b * t);
	add_heads(q, b * t);
	add_heads(key, b * t);
	add_heads(value, b * t);
	add(lse, F32(b * q->n_heads * t));
	send(k);
	k->backend->attention(k, H(o), at(lse), H(q), H(key), H(value), form, b, t);
	receive(k);
}

static void
mirror_attention_bwd(struct kernels *k, struct kernels_heads *d_q, struct kernels_heads *d_key, struct kernels_heads *d_value,
    const struct kernels_heads *d_o, const struct kernels_heads *o, const float *lse, const struct kernels_heads *q,
    const struct kernels_heads *key, const struct kernels_heads *value, const struct kernels_attention_form *form, int64_t b, int64_t t)
{
	const struct kernels_heads *all[] = {d_q, d_key, d_value, d_o, o, q, key, value};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		add_heads(all[i], b * t);
	add(lse, F32(b * q->n_heads * t));
	send(k);
	k->backend->attention_bwd(k, H(d_q), H(d_key), H(d_value), H(d_o), H(o), at(lse), H(q), H(key), H(value), form, b, t);
	receive(k);
}

static void
mirror_output_loss(struct kernels *k, const struct tensor *h, const struct tensor *w_out, const struct kernels_output *more,
    const struct kernels_targets *targets, float grad_scale, struct tensor *d_h, struct tensor *d_w, struct kernels_loss_sums *sums)
{
	add_tensor(h);
	add_tensor(w_out);
	add_tensor(more->bias);
	add_tensor(more->d_bias);
	add_tensor(d_h);
	add_tensor(d_w);
	send(k);
	k->backend->output_loss(k, T(h), T(w_out), &(struct kernels_output){T(more->bias), T(more->d_bias), more->soft_cap, more->overwrite}, targets,
	    grad_scale, T(d_h), T(d_w), sums);
	receive(k);
}

static void
mirror_output_label(struct kernels *k, const struct tensor *h, const struct tensor *w_out, const struct kernels_output *more,
    const struct kernels_label_spec *spec, const int32_t *next, const uint64_t *seqs, int64_t b, int64_t t, struct kernels_labels *out)
{
	add_tensor(h);
	add_tensor(w_out);
	add_tensor(more->bias);
	send(k);
	k->backend->output_label(k, T(h), T(w_out), &(struct kernels_output){T(more->bias), NULL, more->soft_cap, false}, spec, next,
	    seqs, b, t, out);
	receive(k);
}

static void
mirror_accumulate(struct kernels *k, float *y, const float *x, int64_t n)
{
	add(y, F32(n));
	add(x, F32(n));
	send(k);
	k->backend->accumulate(k, at(y), at(x), n);
	receive(k);
}

static void
mirror_norm_blocks(struct kernels *k, const float *x, int64_t n, double *out)
{
	add(x, F32(n));
	send(k);
	k->backend->norm_blocks(k, at(x), n, out);
	receive(k);
}

static void
mirror_adamw(struct kernels *k, float *w, float *m, float *v, const float *grad, void *copy, enum dtype copy_dtype, int64_t n,
    const struct kernels_adamw *a)
{
	add(w, F32(n));
	add(m, F32(n));
	add(v, F32(n));
	add(grad, F32(n));
	add(copy, n * (int64_t)dtype_size(copy_dtype));
	send(k);
	k->backend->adamw(k, at(w), at(m), at(v), at(grad), at(copy), copy_dtype, n, a);
	receive(k);
}

static void
mirror_muon(struct kernels *k, const struct kernels_muon_matrix *list, int64_t n, const struct kernels_muon *a)
{
	struct kernels_muon_matrix *here = calloc((size_t)n, sizeof(*here));

	if (here == NULL)
		abort();
	for (int64_t i = 0; i < n; i++) {
		const struct kernels_muon_matrix *m = &list[i];
		int64_t size = (m->rows / m->group - 1) * m->group_stride + (m->group - 1) * m->ld + m->cols;

		add(m->w, F32(size));
		add(m->m, F32(size));
		add(m->grad, F32(size));
		if (m->copy != NULL)
			add(m->copy, size * (int64_t)dtype_size(a->copy_dtype));
	}
	send(k);
	for (int64_t i = 0; i < n; i++) {
		here[i] = list[i];
		here[i].w = at(list[i].w);
		here[i].m = at(list[i].m);
		here[i].grad = at(list[i].grad);
		here[i].copy = at(list[i].copy);
	}
	k->backend->muon(k, here, n, a);
	receive(k);
	free(here);
}

static void
mirror_convert(struct kernels *k, void *to, enum dtype to_dtype, const void *from, enum dtype from_dtype, int64_t n)
{
	add(to, n * (int64_t)dtype_size(to_dtype));
	add(from, n * (int64_t)dtype_size(from_dtype));
	send(k);
	k->backend->convert(k, at(to), to_dtype, at(from), from_dtype, n);
	receive(k);
}

static const struct kernels_ops mirror_ops = {
    .alloc = mirror_alloc,
    .free = mirror_free,
    .host_alloc = mirror_alloc,
    .host_free = mirror_free,
    .zero = mirror_zero,
    .host_pointer = mirror_host_pointer,
    .transfer = mirror_transfer,
    .matmul = mirror_matmul,
    .column_sums = mirror_column_sums,
    .embed = mirror_embed,
    .embed_bwd = mirror_embed_bwd,
    .norm = mirror_norm,
    .norm_bwd = mirror_norm_bwd,
    .rmsnorm_heads = mirror_rmsnorm_heads,
    .rmsnorm_heads_bwd = mirror_rmsnorm_heads_bwd,
    .pointwise = mirror_pointwise,
    .affine = mirror_affine,
    .add_scaled = mirror_add_scaled,
    .soft_cap = mirror_soft_cap,
    .rope = mirror_rope,
    .attention = mirror_attention,
    .attention_bwd = mirror_attention_bwd,
    .output_loss = mirror_output_loss,
    .output_label = mirror_output_label,
    .accumulate = mirror_accumulate,
    .norm_blocks = mirror_norm_blocks,
    .adamw = mirror_adamw,
    .muon = mirror_muon,
    .convert = mirror_convert,
};

struct kernels *
mirror_new(enum dtype dtype)
{
	struct kernels *k = calloc(1, sizeof(*k));
	struct err_note note = {0};
	char text[512];
	int rc;

	if (k == NULL)
		abort();
#ifdef MIRROR_PLUGIN
	const struct kernels_plugin *plugin;

	if ((rc = kernels__plugin(&plugin, &note)) != 0) {
		fprintf(stderr, "%s\n", err_note_str(&note, rc, text, sizeof(text)));
		exit(78);
	}
	k->backend = plugin->ops;
#else
	k->backend = &kernels__cuda;
#endif
	k->ops = &mirror_ops;
	k->dtype = dtype;
	if ((rc = k->backend->open(k, &(struct kernels_options){0}, &note)) != 0) {
		fprintf(stderr, "%s\n", err_note_str(&note, rc, text, sizeof(text)));
		exit(70);
	}
	return k;
}
