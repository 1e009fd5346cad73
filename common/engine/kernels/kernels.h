/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernels - all arithmetic on tensor data, behind one context. Letters as in tensor/tensor.h.
 *
 * Rules for every kernel:
 *  - The context is the first argument. Tensor data is device memory: only kernels/ dereferences it, and on a
 *    GPU a call may return before its work is done (kernels_sync and kernels_download wait). Arguments marked
 *    "host" are host memory.
 *  - Callers guarantee the shapes. A wrong shape is a bug and ends the process (log_fatal).
 *  - Deterministic: the same inputs and shapes give the same bits for any number of threads. Reductions over
 *    rows go in fixed blocks that depend on the shape only; there are no atomics on floats. Bits do depend on
 *    the processor (OpenBLAS's kernels, fused multiply-add) and on the backend.
 *  - d_x kernels that say "adds" accumulate; the others overwrite.
 *  - dtype: activations, their gradients and parameters have the context's compute dtype, fp32 or bf16.
 *    Statistics (mean, rstd, lse, losses) and gradients of parameters are always fp32. The residual stream
 *    may be fp32 beside bf16: y of embed, y of linear with add, x and d_x of the norms and of their backward,
 *    d_y of embed_bwd. In bf16 an operand is widened (exact), the arithmetic and every sum are fp32, and a
 *    result is rounded once, to nearest even, when it is stored. Matrix products take bf16 operands; logits
 *    and attention scores are fp32 and live for one tile; attention probabilities are rounded where bf16
 *    units multiply them (onednn).
 *
 * tests/kernels has a scalar reference of each kernel and compares at odd sizes.
 */
#ifndef SALT_KERNELS_H
#define SALT_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err/err.h"
#include "base/random/random.h"
#include "engine/tensor/tensor.h"

/* ---- context ---- */

enum kernels_backend { KERNELS_BACKEND_AUTO, KERNELS_BACKEND_OPENBLAS, KERNELS_BACKEND_ONEDNN, KERNELS_BACKEND_CUDA };
enum kernels_dtype { KERNELS_DTYPE_AUTO, KERNELS_DTYPE_FP32, KERNELS_DTYPE_BF16 };

struct kernels_options {
	enum kernels_backend backend;
	enum kernels_dtype dtype;
	int threads;			/* OpenMP threads of this context; 0: all processors that this process may run on */
	struct kernels *share;		/* NULL, or a context of the same backend and dtype that outlives this one: both use one copy of
					 * repacked weights; parameters must not change while either runs */
};

struct kernels;

/*
 * kernels_new - a context. One host thread uses it at a time; several contexts may run side by side.
 *
 *   openblas fp32   on every processor
 *   onednn   bf16   the fastest, where the processor multiplies bf16 (avx512_bf16, amx_bf16)
 *   onednn   fp32   wherever oneDNN runs; slower or faster than OpenBLAS, depending on the processor
 *   openblas bf16   on every processor: bf16 storage, panels widened and multiplied in fp32. The results of bf16 units up to the order
 *                   of sums, but slower than fp32: for continuing or checking a bf16 run
 *   cuda     bf16   on NVIDIA GPUs of compute capability 8.0 or higher, also fp32; kernels_new opens the plug-in libsalt_cuda.so
 *
 * auto: cuda where driver, plug-in and device are there; else bf16 on onednn where processor and build have it, else fp32 on openblas;
 * kernels_reason says why. An explicit dtype with backend auto takes the backend that is fastest for it here. dtype auto on cuda is bf16.
 * Returns 0, ERR_RANGE (threads), ERR_UNSUPPORTED (note: what the processor or build lacks), ERR_CONFIG (cuda: no plug-in that fits this
 * program, driver or device), ERR_LIBRARY (OpenBLAS is not its OpenMP build; CUDA failed), ENOMEM.
 */
int kernels_new(struct kernels **k, const struct kernels_options *options, struct err_note *note);
void kernels_destroy(struct kernels **k);

enum dtype kernels_dtype(const struct kernels *k);
int kernels_threads(const struct kernels *k);
const char *kernels_compute_class(const struct kernels *k);	/* "fp32/openblas": part of label and score identities */
const char *kernels_describe(const struct kernels *k);		/* "OpenBLAS 0.3.21 Haswell fp32, 2 threads": for logs and status */
const char *kernels_reason(const struct kernels *k);		/* why this backend and dtype, for logs */
/* What bits depend on beside the compute class: "sm_90 CUDA 13.0 cuBLASLt 13.1.0". "" on the CPU backends. */
const char *kernels_device_versions(const struct kernels *k);

/* kernels_device - the GPU that the backend cuda computes on: the first that CUDA_VISIBLE_DEVICES leaves. 0, or as kernels_new. */
struct kernels_device {
	char name[64];			/* "NVIDIA H200" */
	char arch[16];			/* "sm_90" */
	char pci_bus_id[32];		/* "0000:65:00.0": by which NVML knows it */
	uint64_t memory_bytes, free_bytes;	/* free: at the time of the call */
};
int kernels_device(struct kernels_device *device, struct err_note *note);
/* kernels_device of a context; false: it computes on the CPU */
bool kernels_on_device(const struct kernels *k, struct kernels_device *device);

/*
 * kernels_gpu_bytes - the memory that the backend cuda works in, kept until the context ends: what cuBLASLt
 * uses, and logits of some rows with their gradient (in bf16; in fp32 they are overwritten), or with what
 * labels are made in. rows: of the largest call of the output layer. Pure: no device is asked.
 */
enum kernels_gpu_use { KERNELS_GPU_TRAINS, KERNELS_GPU_LABELS, KERNELS_GPU_LABELS_DENSE };
size_t kernels_gpu_bytes(enum dtype dtype, int64_t rows, int64_t vocab, enum kernels_gpu_use use);

/*
 * kernels_params - declares that [params, params + n), in the compute dtype, are parameters with the values
 * of `generation` (a number that is never used twice: model_bind and model_changed draw them). A backend may
 * keep weights inside such a range repacked, in the format of its matrix units, until the same range comes
 * with another generation or kernels_adamw runs in this context. Weights outside every range are never kept.
 * Called by model_forward only.
 */
void kernels_params(struct kernels *k, const void *params, int64_t n, uint64_t generation);

/*
 * kernels_resolve - writes the compute class of the context that kernels_new would make into buf. With
 * explicit backend and dtype, or backend cuda, the answer does not depend on this machine; else auto is decided here. Returns 0
 * or ERR_RANGE.
 */
int kernels_resolve(const struct kernels_options *options, char *buf, size_t size, struct err_note *note);

/*
 * Device memory. What kernels_alloc returns is an address of the backend: outside kernels/ it is only passed
 * on (in tensors, with an offset added), uploaded to, downloaded from and freed. The preset `guard` makes any
 * other access end the process with a report.
 *
 * Work and copies of one context run in the order of the calls, as in one queue; on a GPU a call returns
 * before its work is done.
 *   kernels_upload          returns when `host` may be reused; later work of this context sees the new values
 *   kernels_download        waits for all earlier work and returns when `host` is filled
 *   kernels_download_start  returns at once; `host` comes from kernels_host_alloc and is filled when an event that is recorded
 *                           afterwards is done
 *   kernels_sync            waits for all earlier work of this context
 * On the CPU backends all of them are done when they return.
 *
 * kernels_alloc: aligned to 64, zeroed; NULL without memory. The pages of large arrays are created when they
 * are first written: a process that asks for more than the machine has may be killed then, not here.
 * kernels_free(NULL) does nothing.
 * kernels_host_alloc: host memory for transfers (page-locked where that makes them faster), aligned to 64,
 * zeroed; NULL without memory.
 */
void *kernels_alloc(struct kernels *k, size_t bytes);
void kernels_free(struct kernels *k, void *p);
void *kernels_host_alloc(struct kernels *k, size_t bytes);
void kernels_host_free(struct kernels *k, void *p);
void kernels_zero(struct kernels *k, void *p, size_t bytes);
void kernels_copy(struct kernels *k, void *to, const void *from, size_t bytes);		/* device to device */
void kernels_upload(struct kernels *k, void *to, const void *host, size_t bytes);
void kernels_download(struct kernels *k, void *host, const void *from, size_t bytes);
void kernels_download_start(struct kernels *k, void *host, const void *from, size_t bytes);
void kernels_sync(struct kernels *k);
/*
 * kernels_host_pointer - the address at which the host may read and write the device memory at p: p itself
 * where both are one memory (CPU backends), NULL where they are not and in the preset guard; then data go
 * through kernels_download and kernels_upload. For transfers that would otherwise copy gigabytes within one
 * memory. The device must be done with the memory first (an event, kernels_sync).
 */
void *kernels_host_pointer(struct kernels *k, void *p);

/*
 * Events: a point in a context's queue. kernels_event_record sets the event to "all work given to k so far",
 * again and again if needed; kernels_event_done asks whether that work is done, kernels_event_wait blocks the
 * calling thread until it is. An event that was never recorded is done. kernels_event_new: NULL without
 * memory; destroy before the context.
 */
struct kernels_event;
struct kernels_event *kernels_event_new(struct kernels *k);
void kernels_event_destroy(struct kernels *k, struct kernels_event **e);
void kernels_event_record(struct kernels *k, struct kernels_event *e);
bool kernels_event_done(struct kernels *k, const struct kernels_event *e);
void kernels_event_wait(struct kernels *k, const struct kernels_event *e);

/*
 * to[i] = from[i] in another dtype (fp32, bf16), device to device: widening is exact, narrowing rounds to
 * nearest even, NaN stays NaN. Equal dtypes copy. to must not be from.
 */
void kernels_convert(struct kernels *k, void *to, enum dtype to_dtype, const void *from, enum dtype from_dtype, int64_t n);

/*
 * kernels_row_tile - from now on kernels_linear and kernels_output_label compute each `rows` rows as a
 * product of their own, so that the bits of a sequence of `rows` tokens do not depend on the other sequences
 * of its batch. 0: whole products (the default). Rows that are no multiple are computed as one product.
 */
void kernels_row_tile(struct kernels *k, int64_t rows);

/* ---- linear layers ---- */

enum kernels_layout {
	KERNELS_OUT_IN,			/* w: [N, K], y = x w^T: torch Linear, embeddings as output layer */
	KERNELS_IN_OUT			/* w: [K, N], y = x w: GPT-2's Conv1D */
};

/*
 * y = x w^T + b or x w + b. x: [M, K], w by layout, b: [N] or absent, y: [M, N] and not x. add: y += instead.
 * y may be fp32 whatever x and w are (logits).
 */
void kernels_linear(struct kernels *k, struct tensor *y, const struct tensor *x, const struct tensor *w, const struct tensor *b,
    enum kernels_layout layout, bool add);
/* d_x = d_y w (by layout); add: d_x +=. */
void kernels_linear_bwd_x(struct kernels *k, struct tensor *d_x, const struct tensor *d_y, const struct tensor *w,
    enum kernels_layout layout, bool add);
/* d_w = d_y^T x (by layout); add: d_w +=. Adds the column sums of d_y to d_b unless it is absent. d_w, d_b fp32. */
void kernels_linear_bwd_w(struct kernels *k, struct tensor *d_w, struct tensor *d_b, const struct tensor *d_y, const struct tensor *x,
    enum kernels_layout layout, bool add);

/* ---- embeddings ---- */

/*
 * Documents. Where several documents lie in one sequence and must not see each other, embed, rope and attention take
 * starts: host [B*T]; starts[m] is the place in its sequence, 0 .. m mod T, of the first token of row m's document. Then the
 * position of row m is m mod T - starts[m], and it attends to the rows of its document up to itself. NULL: a sequence is one
 * document, all starts are 0. What the rows of a document get does not depend on the other documents, bit for bit, as long as
 * it stays in its place.
 */

/* y[m, :] = wte[tokens[m], :] + wpe[position of m, :]. tokens: host [B*T], in range. wpe absent: not added. y: [B*T, C]. */
void kernels_embed(struct kernels *k, struct tensor *y, const int32_t *tokens, const struct tensor *wte, const struct tensor *wpe,
    int64_t b, int64_t t, const int32_t *starts);
/* Adds to d_wte (rows in order of m, so bits are fixed) and to d_wpe unless it is absent. */
void kernels_embed_bwd(struct kernels *k, struct tensor *d_wte, struct tensor *d_wpe, const struct tensor *d_y, const int32_t *tokens,
    int64_t b, int64_t t, const int32_t *starts);

/* ---- norms ---- x, y, d_*: [M, C]; g, b: [C]; mean, rstd: fp32 [M], written forward, read backward */

/* y = (x - mean(x)) * rstd * g + b, rstd = 1/sqrt(var(x) + eps), biased variance. y may be x. */
void kernels_layernorm(struct kernels *k, struct tensor *y, float *mean, float *rstd, const struct tensor *x, const struct tensor *g,
    const struct tensor *b, float eps);
/* add: d_x +=. Adds to d_g, d_b. d_x may be d_y. */
void kernels_layernorm_bwd(struct kernels *k, struct tensor *d_x, struct tensor *d_g, struct tensor *d_b, const struct tensor *d_y,
    const struct tensor *x, const struct tensor *g, const float *mean, const float *rstd, bool add);
/* y = x / rms(x) * g, rstd = 1/sqrt(mean(x^2) + eps). y may be x. */
void kernels_rmsnorm(struct kernels *k, struct tensor *y, float *rstd, const struct tensor *x, const struct tensor *g, float eps);
void kernels_rmsnorm_bwd(struct kernels *k, struct tensor *d_x, struct tensor *d_g, const struct tensor *d_y, const struct tensor *x,
    const struct tensor *g, const float *rstd, bool add);

/* ---- pointwise ---- */

/* gelu_new: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))). bwd: d_x = d_y * gelu'(x); d_x may be d_y. */
void kernels_gelu(struct kernels *k, struct tensor *y, const struct tensor *x);
void kernels_gelu_bwd(struct kernels *k, struct tensor *d_x, const struct tensor *d_y, const struct tensor *x);
/* The exact GELU, x Phi(x) = 0.5 x (1 + erf(x / sqrt(2))): GPT-NeoX's. bwd: d_x = d_y (Phi(x) + x phi(x));
 * d_x may be d_y. */
void kernels_gelu_erf(struct kernels *k, struct tensor *y, const struct tensor *x);
void kernels_gelu_erf_bwd(struct kernels *k, struct tensor *d_x, const struct tensor *d_y, const struct tensor *x);
/* ReLU: y = max(x, 0), or its square (squared). bwd: d_x = d_y [x > 0], or d_y 2 max(x, 0); d_x may be d_y. */
void kernels_relu(struct kernels *k, struct tensor *y, const struct tensor *x, bool squared);
void kernels_relu_bwd(struct kernels *k, struct tensor *d_x, const struct tensor *d_y, const struct tensor *x, bool squared);
/* SwiGLU: y = silu(gate) * up. bwd writes both; d_gate, d_up may be any of d_y, gate, up. */
void kernels_swiglu(struct kernels *k, struct tensor *y, const struct tensor *gate, const struct tensor *up);
void kernels_swiglu_bwd(struct kernels *k, struct tensor *d_gate, struct tensor *d_up, const struct tensor *d_y,
    const struct tensor *gate, const struct tensor *up);
/* GeGLU: y = gelu_new(gate) * up, as kernels_swiglu. */
void kernels_geglu(struct kernels *k, struct tensor *y, const struct tensor *gate, const struct tensor *up);
void kernels_geglu_bwd(struct kernels *k, struct tensor *d_gate, struct tensor *d_up, const struct tensor *d_y,
    const struct tensor *gate, const struct tensor *up);

/* y = factor * x + shift, element by element; x and y have the same number of elements, fp32 or bf16 each. y may be x. */
void kernels_affine(struct kernels *k, struct tensor *y, const struct tensor *x, float factor, float shift);
/* y = x + factor * branch. x, y: fp32, y may be x; branch: fp32 or bf16. */
void kernels_add_scaled(struct kernels *k, struct tensor *y, const struct tensor *x, const struct tensor *branch, float factor);
/* x = cap * tanh(x / cap), fp32, in place. */
void kernels_soft_cap(struct kernels *k, struct tensor *x, float cap);

/* ---- attention ---- */

/*
 * A set of heads inside a wider row: element (b, t, h, d) is data[(b*T + t) * stride + h*S + d], S =
 * head_stride. So q, k and v of a fused [M, 3C] projection are three of these with stride 3C and different
 * data; GPT-NeoX, whose row is [H, 3, D], has S = 3 D. Partial rotary embeddings take a view of the first R
 * of D elements of each head: head_dim R, head_stride D.
 */
struct kernels_heads {
	void *data;
	enum dtype dtype;
	int64_t stride;
	int64_t n_heads;
	int64_t head_dim;
	int64_t head_stride;		/* elements from a head to the next; 0: head_dim, side by side */
};

/*
 * RMSNorm of each head separately (Qwen3's q and k): y = x / rms(x) * g over D. x, y: m rows of heads; g:
 * [D]; rstd: fp32 [m, H]. y may be x. bwd overwrites d_x, which may be d_y, and adds to d_g.
 */
void kernels_rmsnorm_heads(struct kernels *k, struct kernels_heads *y, float *rstd, const struct kernels_heads *x,
    const struct tensor *g, float eps, int64_t m);
void kernels_rmsnorm_heads_bwd(struct kernels *k, struct kernels_heads *d_x, struct tensor *d_g, const struct kernels_heads *d_y,
    const struct kernels_heads *x, const struct tensor *g, const float *rstd, int64_t m);

/*
 * Rotary embedding in place, Hugging Face's half-split convention: for j < D/2
 *   x'[j] = x[j] cos(t f_j) - x[j + D/2] sin(t f_j);  x'[j + D/2] = x[j + D/2] cos(t f_j) + x[j] sin(t f_j), t the position
 * freq: host [D/2] (theta and scaling are the model's business); cos and sin of float products as PyTorch
 * makes them: (float)t * freq in fp32, both times magnitude (YaRN, LongRoPE; else 1). inverse: the transpose, which is
 * the backward.
 */
void kernels_rope(struct kernels *k, struct kernels_heads *x, const float *freq, float magnitude, int64_t b, int64_t t,
    const int32_t *starts, bool inverse);

/*
 * How attention differs from the plain one; NULL or zeros: not at all.
 * scale: of q k^T; 0: 1/sqrt(D).
 * soft_cap: scores s become soft_cap * tanh(s / soft_cap) after the scaling, before the mask; 0: they stay.
 * window: a query sees itself and the window - 1 keys before it; 0: all keys before it.
 * starts: see Documents above.
 */
struct kernels_attention_form {
	float scale, soft_cap;
	int64_t window;
	const int32_t *starts;
};

/*
 * Causal attention: o = softmax(q k^T * scale, causal) v per head; head h uses key/value
 * head h / (H/K). lse: fp32 [B, H, T], the log-sum-exp of each row's scaled scores, for backward. No [T, T]
 * outlives a tile. o: [B*T, H*D].
 */
void kernels_attention(struct kernels *k, struct tensor *o, float *lse, const struct kernels_heads *q, const struct kernels_heads *key,
    const struct kernels_heads *value, const struct kernels_attention_form *form, int64_t b, int64_t t);
/* Overwrites d_q, d_key, d_value (of grouped heads: the sum over their queries, in head order). */
void kernels_attention_bwd(struct kernels *k, struct kernels_heads *d_q, struct kernels_heads *d_key, struct kernels_heads *d_value,
    const struct tensor *d_o, const struct tensor *o, const float *lse, const struct kernels_heads *q, const struct kernels_heads *key,
    const struct kernels_heads *value, const struct kernels_attention_form *form, int64_t b, int64_t t);

/* ---- output layer fused with the mixed-target loss ---- */

/*
 * What an output layer has beside its matrix; NULL or zeros: nothing. Logits z = h w_out^T + bias; with soft_cap,
 * soft_cap * tanh(z / soft_cap) takes the place of z wherever logits are used.
 */
struct kernels_output {
	const struct tensor *bias;	/* [V]; NULL or absent: none */
	struct tensor *d_bias;		/* fp32 [V], added to where there are a bias and gradients */
	float soft_cap;			/* 0: none */
	bool overwrite;			/* d_w is written, not added to */
};

enum kernels_residual { KERNELS_RESIDUAL_TRUE_TOKEN, KERNELS_RESIDUAL_GHOST, KERNELS_RESIDUAL_RENORMALISE };
enum kernels_token_weight {
	KERNELS_TOKEN_WEIGHT_CONSTANT, KERNELS_TOKEN_WEIGHT_TEACHER_CONFIDENCE, KERNELS_TOKEN_WEIGHT_MARGIN
};

/*
 * The training targets of M rows. Student logits z = h w_out^T, p = softmax(z), next token y, soft label t
 * with kept ids K, distillation weight w (0: plain LM; the soft label is not read):
 *   q = (1-w) onehot(y) + w t;  loss = logsumexp(z) - sum_v q_v z_v;  dloss/dz = p - q
 * Sparse t: ids offsets[m] .. offsets[m+1] with probabilities values (fp32, >= 0, sum <= 1 up to rounding);
 * tail = 1 - sum, by residual:
 *   true_token   tail is added at y
 *   renormalise  t is divided by its sum (an empty t: all of it at y)
 *   ghost        one more class: loss_soft = -sum_K t_v log p_v - t_tail log P_tail, P_tail = sum of p outside K, from its own
 *                log-sum-exp; gradient outside K: p_v (1 - w t_tail / P_tail), inside p_v - w t_v; both minus (1-w) at y
 * Sampled labels (sum 1) are the same under all three. Dense t: [M, V] fp32 probabilities.
 *
 * token_weight: in place of w a row has w g. t_y: what t has at y after the residual rule, p_y: the student's. Where y is not in K
 * and there is a ghost, both are the ghost's class: t_tail and P_tail. No gradient goes through g.
 *   constant             g = 1
 *   teacher_confidence   g = min(1, t_y)
 *   margin               g = max(0, 1 - p_y / t_y), 0 if t_y = 0
 * docs/training.md says where these come from.
 */
#define KERNELS_NO_TARGET INT32_MIN

struct kernels_targets {
	int64_t n_rows;			/* M of the session's last forward */
	const int32_t *next;		/* host [M]: y; KERNELS_NO_TARGET: the row has no loss and no gradient, and is in no sum */
	const float *weight;		/* host [M]: w of each row, 0..1, before token_weight; NULL: all 0 */
	const float *loss_weight;	/* host [M]: a of each row, finite: its loss and gradient are multiplied by it, 0: as KERNELS_NO_TARGET; NULL: all 1 */
	const int64_t *offsets;		/* host [M + 1]; NULL: no sparse labels */
	const int32_t *ids;		/* host, in 0..V-1, ascending within a row, no duplicates */
	const float *values;		/* host */
	const float *dense;		/* host [M, V]; NULL: sparse */
	enum kernels_residual residual;
	enum kernels_token_weight token_weight;
	float *row_loss;		/* host [M] or NULL: the mixed loss of each row, nats, before loss_weight; 0 without a target */
	float *row_hard;		/* host [M] or NULL: -log p_y */
};

/*
 * Sums over the rows in row order, fp64. A mean of losses is their sum divided by the sum of their weights, loss_weight or kd_loss_weight; these are
 * rows and kd_rows where targets have no loss_weight.
 */
struct kernels_loss_sums {
	double loss;			/* a times mixed */
	double hard;			/* a times LM: -log p_y, every row with a target */
	double soft;			/* a times KD cross-entropy to t under the residual rule, rows with w > 0 */
	double entropy;			/* -a sum t log t after the residual rule (a ghost is one class), rows with w > 0; KL(t || p) = soft - entropy */
	double loss_weight, kd_loss_weight;	/* a of the rows that are counted in rows, in kd_rows */
	double weight;			/* w g, rows with w > 0 */
	int64_t correct;		/* argmax z == y (lowest id wins ties), likewise */
	int64_t rows, kd_rows;		/* with a target; of these, with w > 0 */
	bool finite;			/* every row's loss was a finite number */
};

/*
 * h: [M, C] final hidden states; w_out: [V, C]; more: see there. In chunks of rows: logits exist for one chunk only. d_h, d_w
 * absent (data NULL): evaluation only. Else d_h = grad_scale * a (p - q) w_out overwritten, d_w (fp32) +=
 * grad_scale * (a (p - q))^T h. *sums is overwritten. With a soft cap p - q is multiplied by the cap's slope.
 */
void kernels_output_loss(struct kernels *k, const struct tensor *h, const struct tensor *w_out, const struct kernels_output *more,
    const struct kernels_targets *targets, float grad_scale, struct tensor *d_h, struct tensor *d_w, struct kernels_loss_sums *sums);

/* ---- a teacher's scores and labels, without ever holding [M, V] ---- */

enum kernels_label_kind { KERNELS_LABEL_NONE, KERNELS_LABEL_SAMPLED, KERNELS_LABEL_TOPK, KERNELS_LABEL_DENSE };

struct kernels_label_spec {
	bool score;			/* fill loss_nats and rank */
	enum kernels_label_kind kind;
	int n;				/* N draws, or k; at most V' */
	float tau;			/* t = softmax(u / tau) for labels; scores always use u itself */
	uint32_t seed;			/* labels.seed */
	int64_t n_valid;		/* V': ids >= V' (beyond the tokenizer) are masked in labels and scores; 0: V */
};

/*
 * Rows m = b*T + t; position of a row within its sequence is t, its sequence seqs[b].
 * score:    loss_nats = logsumexp(u) - u_y; rank = number of v with u_v > u_y or (u_v == u_y and v < y).
 * sampled:  N draws from t. Draw d (from 0) uses words of random_words(seed, RANDOM_PURPOSE_LABEL, seq, t, d / 2): out[0..1] for even d,
 *           out[2..3] for odd, u = random_uniform53: the id is the smallest v whose cumulative probability
 *           exceeds u * total, in id order. counts: unique ids ascending with counts.
 * topk:     k highest, descending; ties: lower id first. values = log t.
 * dense:    values[m, v] = log t_v, masked ids -inf.
 * A row's bits depend on u's row alone. (u's bits may depend on the number of rows of the product: a fixed
 * tile gives fixed labels.) Weights exp((u - max) / tau) are rounded to multiples of 2^-33, so sums of up to
 * 2^20 of them are exact in fp64 and a draw does not depend on the order of summation; ids less probable than
 * 2^-34 of the best are never drawn. A row that is not finite still gets ids in range; its loss is not
 * finite.
 */
struct kernels_labels {
	float *loss_nats;		/* [M] if score */
	int32_t *rank;			/* [M] if score */
	int32_t *n_unique;		/* [M]      sampled */
	int32_t *ids;			/* [M, n]   sampled (first n_unique of a row), topk */
	int32_t *counts;		/* [M, n]   sampled */
	float *values;			/* [M, n]   topk; [M, V] dense */
};

/* h: [B*T, C]; next: host [B*T] or NULL without score; seqs: host [B]. All of out is host memory. */
void kernels_output_label(struct kernels *k, const struct tensor *h, const struct tensor *w_out, const struct kernels_output *more,
    const struct kernels_label_spec *spec, const int32_t *next, const uint64_t *seqs, int64_t b, int64_t t, struct kernels_labels *out);

/*
 * kernels_output_bytes - the memory that kernels_output_loss with gradients works in, kept until the context ends: logits of some rows, and in bf16
 * their rounded gradient. rows: of the largest call.
 */
size_t kernels_output_bytes(enum dtype dtype, int64_t rows, int64_t vocab, bool soft_cap, int threads);

/* ---- the optimiser's arithmetic, on flat fp32 ranges ---- */

/* y += x, n elements: the tree of gradient sums consists of these. */
void kernels_accumulate(struct kernels *k, float *y, const float *x, int64_t n);

#define KERNELS_NORM_BLOCK (64 * 1024)

/*
 * Sums of squares, fp64, of each block of KERNELS_NORM_BLOCK elements (the last may be short) into host
 * out[ceil(n / block)]. x must start where a block of the flat array starts (engine/optim/split.h), so that
 * blocks are the same for any sharding. A NaN or infinity gives a sum that is not finite.
 */
void kernels_norm_blocks(struct kernels *k, const float *x, int64_t n, double *out);

/*
 * AdamW (Loshchilov & Hutter, 2019; PyTorch's order of operations), one range:
 *   g = grad * grad_scale;  w -= lr * decay * w;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
 *   w -= lr * (m / (1 - b1^step)) / (sqrt(v / (1 - b2^step)) + eps)
 * step counts from 1. copy: NULL, or the compute-dtype copy of w (fp32 or bf16), written in the same pass. Repacked weights are dropped.
 */
struct kernels_adamw {
	float lr, beta1, beta2, eps, decay, grad_scale;
	int64_t step;
};
void kernels_adamw(struct kernels *k, float *w, float *m, float *v, const float *grad, void *copy, enum dtype copy_dtype, int64_t n,
    const struct kernels_adamw *a);

/*
 * Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/; as torch.optim.Muon), one matrix W [rows, cols]:
 *   g = grad * grad_scale;  M = momentum M + (1 - momentum) g;  U = (1 - momentum) g + momentum M  (Nesterov)
 *   W = W - lr * decay * W - lr * scale * NS(U)
 * NS(U): X = U / max(|U|, 1e-7), Frobenius norm; five times X = (a I + b G + c G^2) X with G = X X^T and
 * (a, b, c) = (3.4445, -4.7750, 2.0315), which brings all singular values near 1 (0.7 to 1.2).
 * X stays X_0 times a polynomial in G_0, so all five times are computed on the smaller side of the matrix:
 * G and the product Q of the polynomials are symmetric and commute, G' = P G P, Q' = P Q, and X_5 = Q X_0. In fp32; in bf16 with fp32 sums
 * where that is the compute dtype and the backend multiplies it (onednn), as torch.optim.Muon does; X is then rounded, and G computed from it,
 * more than once. W, M and U are fp32 either way. Transposing W transposes the result, in bf16 within rounding. Repacked weights are dropped.
 */
struct kernels_muon {
	float lr, momentum, decay, grad_scale;
	enum dtype copy_dtype;
};

/*
 * Element (r, c) of w, m, grad and copy alike is number (r / group) * group_stride + (r % group) * ld + c: a
 * matrix may be some columns, or some groups of rows, of a wider one. copy as kernels_adamw's, or NULL.
 */
struct kernels_muon_matrix {
	float *w, *m;
	const float *grad;
	void *copy;
	int64_t rows, cols, ld, group, group_stride;
	float scale;
};

/* kernels_muon - updates n matrices, which do not overlap. The list is host memory. */
void kernels_muon(struct kernels *k, const struct kernels_muon_matrix *list, int64_t n, const struct kernels_muon *a);

/* kernels_muon_bytes - the memory that kernels_muon takes in fp32 for matrices of at most this size; kept until the context ends. In bf16
 * it is less; for matrices of below about 100 rows up to a tenth more, which is oneDNN's. */
size_t kernels_muon_bytes(int64_t rows, int64_t cols, int threads);

#endif
