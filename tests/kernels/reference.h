/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reference - a second implementation of each kernel for tests: scalar, one loop per sum, fp64 inside, plain
 * arrays in host memory, without a kernels handle. Shapes, aliasing, "adds" and "overwrites" as in kernels.h;
 * b, d_b, wpe and d_wpe may be NULL.
 */
#ifndef SALT_TESTS_KERNELS_REFERENCE_H
#define SALT_TESTS_KERNELS_REFERENCE_H

#include "engine/kernels/kernels.h"

void kernels_linear_ref(float *y, const float *x, const float *w, const float *b, int64_t m, int64_t k, int64_t n,
    enum kernels_layout layout, bool add);
void kernels_linear_bwd_x_ref(float *d_x, const float *d_y, const float *w, int64_t m, int64_t k, int64_t n,
    enum kernels_layout layout, bool add);
void kernels_linear_bwd_w_ref(float *d_w, float *d_b, const float *d_y, const float *x, int64_t m, int64_t k, int64_t n,
    enum kernels_layout layout);

void kernels_embed_ref(float *y, const int32_t *tokens, const float *wte, const float *wpe, int64_t b, int64_t t, int64_t c,
    const int32_t *starts);
void kernels_embed_bwd_ref(float *d_wte, float *d_wpe, const float *d_y, const int32_t *tokens, int64_t b, int64_t t, int64_t c,
    const int32_t *starts);

void kernels_layernorm_ref(float *y, float *mean, float *rstd, const float *x, const float *g, const float *b, float eps, int64_t m,
    int64_t c);
void kernels_layernorm_bwd_ref(float *d_x, float *d_g, float *d_b, const float *d_y, const float *x, const float *g,
    const float *mean, const float *rstd, bool add, int64_t m, int64_t c);
void kernels_rmsnorm_ref(float *y, float *rstd, const float *x, const float *g, float eps, int64_t m, int64_t c);
void kernels_rmsnorm_bwd_ref(float *d_x, float *d_g, const float *d_y, const float *x, const float *g, const float *rstd, bool add,
    int64_t m, int64_t c);

void kernels_add_ref(float *y, const float *x, const float *r, int64_t n);
void kernels_gelu_ref(float *y, const float *x, int64_t n);
void kernels_gelu_bwd_ref(float *d_x, const float *d_y, const float *x, int64_t n);
void kernels_gelu_erf_ref(float *y, const float *x, int64_t n);
void kernels_gelu_erf_bwd_ref(float *d_x, const float *d_y, const float *x, int64_t n);
void kernels_swiglu_ref(float *y, const float *gate, const float *up, int64_t n);
void kernels_swiglu_bwd_ref(float *d_gate, float *d_up, const float *d_y, const float *gate, const float *up, int64_t n);
void kernels_relu_ref(float *y, const float *x, int64_t n, bool squared);
void kernels_relu_bwd_ref(float *d_x, const float *d_y, const float *x, int64_t n, bool squared);
void kernels_geglu_ref(float *y, const float *gate, const float *up, int64_t n);
void kernels_geglu_bwd_ref(float *d_gate, float *d_up, const float *d_y, const float *gate, const float *up, int64_t n);
void kernels_rmsnorm_heads_ref(struct kernels_heads *y, float *rstd, const struct kernels_heads *x, const float *g, float eps, int64_t m);
void kernels_rmsnorm_heads_bwd_ref(struct kernels_heads *d_x, float *d_g, const struct kernels_heads *d_y, const struct kernels_heads *x,
    const float *g, const float *rstd, int64_t m);
void kernels_rope_ref(struct kernels_heads *x, const float *freq, int64_t b, int64_t t, const int32_t *starts,
    bool inverse);

void kernels_attention_ref(float *o, float *lse, const struct kernels_heads *q, const struct kernels_heads *key,
    const struct kernels_heads *value, const struct kernels_attention_form *form, int64_t b, int64_t t);
void kernels_attention_bwd_ref(struct kernels_heads *d_q, struct kernels_heads *d_key, struct kernels_heads *d_value,
    const float *d_o, const struct kernels_heads *q, const struct kernels_heads *key, const struct kernels_heads *value,
    const struct kernels_attention_form *form, int64_t b, int64_t t);

/* The distillation weight of row m, with token_weight applied. */
double kernels_token_weight_ref(const float *h, const float *w_out, const struct kernels_targets *targets, int64_t m, int64_t c, int64_t v);
/* d_h NULL: evaluation. Sets sums->correct and finite as the kernel does. */
void kernels_output_loss_ref(const float *h, const float *w_out, const struct kernels_targets *targets, float grad_scale, float *d_h,
    float *d_w, struct kernels_loss_sums *sums, int64_t c, int64_t v);
void kernels_output_label_ref(const float *h, const float *w_out, const struct kernels_label_spec *spec, const int32_t *next,
    const uint64_t *seqs, int64_t b, int64_t t, int64_t c, int64_t v, struct kernels_labels *out);

void kernels_norm_blocks_ref(const float *x, int64_t n, double *out);
void kernels_adamw_ref(float *w, float *m, float *v, const float *grad, int64_t n, const struct kernels_adamw *a);
/* The five Newton-Schulz iterations with X itself, without the kernel's shortcut over the smaller side. */
void kernels_muon_ref(const struct kernels_muon_matrix *x, const struct kernels_muon *a);

#endif
