/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model - transformer language models: tensor table, forward, fused loss, backward, scores and labels.
 *
 *   struct model          configuration, tensor table, pointer to the parameters; shared by sessions
 *   struct model_session  one stream of work: activations of B x T tokens and a kernels handle. Sessions of
 *                         one model may run in parallel.
 *
 * Parameters are one flat array in canonical order: the tensor table gives name, shape and offset of each
 * tensor. Names, shapes and layouts are those of Hugging Face (GPT-2's Conv1D weights stay [in, out]), so
 * loading and saving are plain copies, and optimiser, checkpoints, sharding and tests all walk the same
 * table.
 */
#ifndef SALT_MODEL_H
#define SALT_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err/err.h"
#include "base/random/random.h"
#include "engine/kernels/kernels.h"
#include "engine/tensor/tensor.h"

/*
 * Every family but Llama: its name in enum model_family, and its model_type in config.json. family.c says
 * what each computes.
 */
#define MODEL_OTHER_FAMILIES(X)										\
	X(GPT2, "gpt2") X(QWEN2, "qwen2") X(QWEN3, "qwen3") X(NEOX, "gpt_neox") X(MISTRAL, "mistral")	\
	X(MINISTRAL, "ministral") X(SMOLLM3, "smollm3") X(OLMO, "olmo") X(OLMO2, "olmo2") X(OLMO3, "olmo3")	\
	X(GRANITE, "granite") X(GEMMA, "gemma") X(GEMMA2, "gemma2") X(GEMMA3, "gemma3_text") X(PHI, "phi")	\
	X(PHI3, "phi3") X(STABLELM, "stablelm") X(STARCODER2, "starcoder2") X(MOBILELLM, "mobilellm")	\
	X(MINICPM, "minicpm") X(INTERNLM, "internlm") X(INTERNLM3, "internlm3") X(SEED_OSS, "seed_oss") X(ARCEE, "arcee") X(NEMOTRON, "nemotron")	\
	X(GPT_NEO, "gpt_neo") X(BIGCODE, "gpt_bigcode") X(OPT, "opt")
#define MODEL_FAMILY_ENUM_(id, name) MODEL_FAMILY_##id,
#define MODEL_FAMILY_NAME_(id, name) ", " name
enum model_family { MODEL_FAMILY_LLAMA, MODEL_OTHER_FAMILIES(MODEL_FAMILY_ENUM_) MODEL_FAMILY_COUNT };
#define MODEL_FAMILY_NAMES "llama" MODEL_OTHER_FAMILIES(MODEL_FAMILY_NAME_)

enum model_activation {
	MODEL_ACTIVATION_FAMILY,	/* the family's default */
	MODEL_GELU_NEW, MODEL_GELU, MODEL_SILU, MODEL_RELU, MODEL_RELU2
};
enum model_qk_norm { MODEL_QK_NORM_NONE, MODEL_QK_NORM_HEADS, MODEL_QK_NORM_WIDTH };
enum model_rope_scaling {
	MODEL_ROPE_DEFAULT, MODEL_ROPE_LINEAR, MODEL_ROPE_DYNAMIC, MODEL_ROPE_YARN, MODEL_ROPE_LLAMA3, MODEL_ROPE_LONGROPE
};

#define MODEL_MAX_LISTED 1024		/* layers of a model with local layers or layers without rope */
#define MODEL_MAX_ROTARY 512		/* highest rotary_dim with LongRoPE */

/* Everything that changes outputs; weights/ fills it from config.json and includes it in the fingerprint. */
struct model_config {
	enum model_family family;
	int64_t vocab_size;		/* V; the softmax includes all V ids */
	int64_t context;		/* position limit: n_positions, max_position_embeddings */
	int64_t d_model;		/* C */
	int64_t n_layers;
	int64_t n_heads;		/* H */
	int64_t n_kv_heads;		/* K; H % K == 0 */
	int64_t head_dim;		/* D; C / H unless config.json has another value */
	int64_t d_ff;			/* F */
	float norm_eps;
	bool tied;			/* the output layer uses the token embedding */
	enum model_activation activation;
	bool attention_bias;		/* q, k, v and o have biases (Qwen2: only q, k and v) */
	bool no_proj_bias;		/* with attention_bias: o has no bias */
	bool mlp_bias;			/* gate, up and down have biases */
	bool parallel_residual;		/* x + attention(norm1(x)) + mlp(norm2(x)); false: the mlp reads
					 * attention's sum */
	double rope_theta;		/* of families with rope */
	int64_t rotary_dim;		/* leading elements of a head with rope, an even number; 0: all D */
	struct {
		enum model_rope_scaling type;
		double factor;			/* YaRN, LongRoPE: 0 means context / original_context */
		double low_freq_factor, high_freq_factor;	/* llama3 */
		int64_t original_context;	/* llama3, YaRN, LongRoPE */
		double beta_fast, beta_slow;	/* YaRN */
		double attention_factor;	/* YaRN, LongRoPE: for cosines and sines; 0: computed */
		double mscale, mscale_all_dim;	/* YaRN: terms of its formula; 0: not used */
		bool no_truncate;		/* YaRN: its bounds are not rounded to whole numbers */
		float short_factor[MODEL_MAX_ROTARY / 2], long_factor[MODEL_MAX_ROTARY / 2];	/* LongRoPE */
	} rope_scaling;
	/* Factors: 0 means 1, or not used. */
	float embed_scale;		/* factor of token embeddings */
	float attention_scale;		/* factor of q k^T; 0: 1/sqrt(D) */
	float residual_scale;		/* factor of a branch's output before it is added */
	float output_scale;		/* factor of the final hidden states, and so of the logits */
	float attention_cap, logit_cap;	/* soft caps of scores and logits: x = cap tanh(x / cap) */
	int64_t window;			/* keys that a query sees in local layers, its own included; 0:
					 * there are no local layers */
	uint64_t local_layers[MODEL_MAX_LISTED / 64];	/* one bit per layer */
	uint64_t nope_layers[MODEL_MAX_LISTED / 64];	/* layers without rope */
	double local_theta;		/* rope_theta of local layers, without scaling; 0: as elsewhere */
	float initializer_range;	/* standard deviation of initial weights; changes no output of a trained model */
	int64_t bos_id, eos_id;		/* -1: none; written to config.json, not used here */
};

static inline bool
model_layer_local(const struct model_config *cfg, int layer)
{
	return cfg->window > 0 && layer < MODEL_MAX_LISTED && (cfg->local_layers[layer / 64] >> layer % 64 & 1);
}

static inline bool
model_layer_nope(const struct model_config *cfg, int layer)
{
	return layer < MODEL_MAX_LISTED && (cfg->nope_layers[layer / 64] >> layer % 64 & 1);
}

/* A family: what it computes, and its names in Hugging Face's files. Pythia models are GPT-NeoX. */
struct model_traits {
	const char *name;		/* config.json's model_type */
	const char *architecture;	/* config.json's architectures */
	const char *models, *about;	/* for docs/models.md: the published models, and what they compute */
	const char *prefix;		/* prefix of tensor names; some files omit it */
	const char *output;		/* name of the output layer's weight */
	const char *buffers[3];		/* suffixes of names in files that are buffers, not parameters */
	enum model_activation activation;
	bool rms;			/* RMSNorm; false: LayerNorm */
	bool unit_gain;			/* norms multiply by 1 + g */
	bool no_gain;			/* norms have neither gain nor bias */
	bool norm_bias;			/* llama_rows (family.c) with LayerNorm, whose norms have biases */
	bool norm_after;		/* a branch's output is normed before it is added */
	bool no_norm_before;		/* a branch's input is not normed */
	bool shared_norm;		/* parallel residuals: one norm for both branches */
	bool rope;			/* rotary positions; false: learned positions */
	bool gated;			/* act(gate) * up; false: act(up) */
	enum model_qk_norm qk_norm;	/* RMSNorm of queries and keys before rope, for each head or over all
					 * heads together */
	bool fused_qkv;			/* files have one matrix for q, k and v */
	bool mixed_heads;		/* rows of that matrix are [H, 3, D]; false: [q heads, k heads, v
					 * heads] */
	bool whole_heads;		/* requires K == H and H*D == C */
	bool one_key_head;
	bool fused_gate;		/* files have one matrix for gate and up, in this order */
	bool parallel;			/* parallel_residual may be true */
	bool partial_rotary;		/* rotary_dim may be less than D */
	bool needs_attention_bias;	/* q, k and v always have a bias, o never */
	bool no_mlp_bias;
	bool grows;			/* saltctl model grow supports the family */
	int position_offset;		/* rows of the position embedding before the one of position 0 */
	enum kernels_layout layout;	/* of the layers' matrices; the output layer is always KERNELS_OUT_IN */

	/* Defaults for keys that are absent from config.json: model_family_start. */
	struct model_config start;	/* defaults that are not 0 */
	double rotary_share;		/* rotary_dim / D; 0: all of D */
	int local_period, nope_period;	/* local_period n: all layers but each n-th are local (1: all are;
					 * -n: each n-th is). nope_period n: each n-th has no rope */
	bool embed_by_width;		/* embed_scale is sqrt(C) */
};

/* model_traits - the traits of a family, static memory; NULL if there is no such family. */
const struct model_traits *model_traits(enum model_family family);
const char *model_family_name(enum model_family family);
/* Finds the family with this model_type; returns false if there is none. */
bool model_family_find(const char *name, enum model_family *out);
/*
 * model_family_start - sets every field to the family's default, except family, sizes, head_dim, bos_id and
 * eos_id, which the caller has set before.
 */
void model_family_start(struct model_config *cfg);
/* The activation's name in config.json. */
const char *model_activation_name(enum model_activation activation);
enum model_activation model_activation(const struct model_config *cfg);
const char *model_rope_scaling_name(enum model_rope_scaling type);

#define MODEL_MAX_DIM INT32_MAX		/* limit of every dimension of a matrix: BLAS counts in int */
#define MODEL_MAX_LAYERS 10000

/*
 * model_config_check - checks that shapes fit together and that sizes fit into memory arithmetic. Returns 0,
 * ERR_RANGE or ERR_UNSUPPORTED; the note has the field's name (as here), what was expected and what was
 * found.
 */
int model_config_check(const struct model_config *cfg, struct err_note *note);

struct model_tensor {
	char name[96];			/* as in Hugging Face files: "transformer.h.0.attn.c_attn.weight" */
	int n_dims;
	int64_t dims[TENSOR_MAX_DIMS];
	int64_t offset;			/* in elements, into the flat array, which has no gaps */
	int64_t n_elements;
	int layer;			/* -1: before the first layer (embeddings), n_layers: after the last (final norm, output) */
	bool decay;			/* weight decay applies: two-dimensional weights and embeddings */
	int n_matrices;			/* number of matrices for model_matrix; 0: not a matrix of a layer
					 * (embedding, norm, bias, output layer) */
	float init_std;			/* normal(0, init_std); residual projections scaled by 1/sqrt(2 n_layers) */
	float init_value;		/* if init_std is 0: a constant (norm weights 1, biases 0) */
	int role;			/* private */
};

/*
 * A weight matrix inside a tensor. Element (r, c) of the matrix is element
 * begin + (r / group) * group_stride + (r % group) * ld + c of the flat array.
 */
struct model_matrix {
	int64_t begin, rows, cols, ld, group, group_stride;
};

struct model {
	struct model_config config;
	struct model_tensor *tensors;	/* canonical order */
	int n_tensors;
	int64_t n_params;		/* elements of the flat array; a tied output layer is counted once */
	void *params;			/* flat array of dtype; the caller owns it; set by model_bind */
	enum dtype dtype;
	uint64_t generation;		/* private: see model_changed */
	int *role_tensor;		/* private: (layer, role) -> index into tensors */
};

/*
 * model_matrix - matrix i of the n_matrices of a tensor, for optimisers that work on whole matrices. It is
 * the tensor itself, or a part of a fused projection: queries (0), keys (1) and values (2), or gate (0) and
 * up (1).
 */
struct model_matrix model_matrix(const struct model *model, int tensor, int i);

/* model_new - makes the tensor table, without parameters. Returns 0, ENOMEM, or as model_config_check. */
int model_new(struct model **model, const struct model_config *cfg, struct err_note *note);
void model_destroy(struct model **model);		/* accepts NULL; does not free params */

/*
 * model_bind - sets the parameters: a flat array of n_params elements from kernels_alloc, in the compute
 * dtype of the kernels handle, fp32 or bf16. It may be called again; sessions use the new array from the next
 * forward on. A bf16 trainer keeps the fp32 masters itself and binds the bf16 copy.
 */
void model_bind(struct model *model, void *params, enum dtype dtype);

/*
 * model_changed - the bound parameters have new values. Call it after everything that writes into the array:
 * each optimiser step (after the ranks have gathered), and each load. A backend with matrix units may keep
 * repacked copies of weights and would otherwise use old ones. The call itself costs nothing; weights are
 * repacked at their next use. Do not call it while a session of the model is running. model_bind includes it.
 */
void model_changed(struct model *model);

/*
 * model_load - fills params (n_params elements of the kernels handle's dtype, from kernels_alloc). It works
 * in pieces, so that bf16 parameters never exist in fp32 as a whole. get writes elements [begin, end) as fp32
 * into host memory. model_load does not bind. When it returns, any kernels handle may read the parameters.
 * Returns 0, the error of get, or ENOMEM.
 */
int model_load(const struct model *model, struct kernels *kernels, void *params,
    int (*get)(void *arg, uint64_t begin, uint64_t end, float *out, struct err_note *note), void *arg, struct err_note *note);

/*
 * model_init - writes the initial fp32 values of elements [begin, end) of the flat array into out[end -
 * begin], host memory. Element e of tensor number i comes from random_words(seed, RANDOM_PURPOSE_INIT, i, e
 * >> 2 ...) through random_normal. It is a pure function of (seed, i, e): any rank can compute any range, and
 * the model does not depend on the number of ranks.
 */
void model_init(const struct model *model, uint32_t seed, int64_t begin, int64_t end, float *out);

/*
 * model_flops_per_token - FLOPs of forward and backward per token with t positions, for reports: 6 per
 * parameter of a matrix product (the output layer once, tied or not; no look-ups, norms or biases), and 12 H
 * D t for the attention of each layer, with its window in place of t if that is smaller. This counts the
 * masked half of attention and no recomputation, as PaLM (Chowdhery et al., 2022, appendix B) and llm.c do.
 * Forward alone is a third.
 */
double model_flops_per_token(const struct model_config *cfg, int64_t t);

/* model_product_params - number of parameters of the matrices in model_flops_per_token. */
double model_product_params(const struct model_config *cfg);

/* ---- sessions ---- */

/*
 * Hooks per layer, for communication that overlaps with computation. layer is as in model_tensor.layer. Each
 * may be NULL. They run in the session's thread.
 * need(layer): called before the parameters of a layer are read, by forward, backward and the output layer
 * (loss, logits, labels: n_layers, or -1 where tied).
 * done(layer): called by backward when every gradient of that layer has its last contribution of this
 * micro-batch: n_layers first, then downwards, -1 last (only then is a tied embedding's gradient complete).
 */
struct model_hooks {
	void *arg;
	void (*need)(void *arg, int layer);
	void (*done)(void *arg, int layer);
};

struct model_session_options {
	int64_t max_batch;		/* B */
	int64_t max_tokens;		/* T; at most config.context */
	bool training;			/* keep activations for backward */
	bool recompute;			/* keep only the input of each layer and run the layer again in
					 * backward; gives the same bits */
};

struct model_session;

/*
 * model_session_new - allocates all memory of the session, except the workspace of kernels. The session does
 * not own model and kernels, which must outlive it. One thread at a time may use the session. Returns 0,
 * ERR_RANGE (note: T over the position limit, or too large a batch), ENOMEM.
 */
int model_session_new(struct model_session **s, const struct model *model, struct kernels *kernels,
    const struct model_session_options *options, struct err_note *note);
void model_session_destroy(struct model_session **s);
void model_session_hooks(struct model_session *s, const struct model_hooks *hooks);

/*
 * model_session_plan - computes the bytes of the session that model_session_new would make with a kernels
 * handle of this dtype, for capacity estimates and for the choice of a micro-batch. Returns 0, ERR_RANGE.
 */
int model_session_plan(const struct model_config *cfg, enum dtype compute_dtype, const struct model_session_options *options,
    size_t *bytes, struct err_note *note);

/*
 * model_session_documents - from the next forward on, token `end` ends a document, and each document is
 * computed as if it were alone: its positions begin at 0, and attention does not reach back to earlier
 * documents. end < 0: sequences are not divided (the default). Returns 0, or ENOMEM; after ENOMEM sequences
 * are not divided.
 *
 * model_document_starts - writes starts[t]: starts[i] is the index of the first token of token i's document.
 * Pure.
 * model_document_targets - sets next[i] = KERNELS_NO_TARGET where tokens[i] ends a document, because the
 * token that follows belongs to the next document. end < 0: no change.
 */
int model_session_documents(struct model_session *s, int32_t end);
void model_document_starts(const int32_t *tokens, int64_t t, int32_t end, int32_t *starts);
void model_document_targets(const int32_t *tokens, int64_t n, int32_t end, int32_t *next);

/*
 * model_forward - computes the final normed hidden states [B*T, C] and leaves them in the session. tokens:
 * [B, T] int32, host memory, copied; each is checked to be in 0..V-1. T is at most the session's, and B*T at
 * most the session's B*T. Rows of a sequence depend on that sequence only; their bits may also depend on (B,
 * T), but on nothing else. Returns 0, or ERR_RANGE with nothing computed. The model must be bound, in the
 * kernels handle's compute dtype (else log_fatal).
 */
int model_forward(struct model_session *s, const int32_t *tokens, int64_t b, int64_t t);

/*
 * model_logits - writes the logits of rows [begin, begin + n) of the last forward, [n, V] fp32, to host
 * memory, in chunks of MODEL_LOGITS_ROWS rows. For text generation; the loss does not use it.
 */
#define MODEL_LOGITS_ROWS 16
void model_logits(struct model_session *s, int64_t begin, int64_t n, float *out);

/*
 * model_gradients_zero - d_params (flat fp32, n_params) counts as zero for the next model_loss and
 * model_backward of this session. Matrices that these overwrite as a whole are not cleared; their content is
 * undefined until then.
 */
void model_gradients_zero(struct model_session *s, float *d_params);

/*
 * model_loss - mixed-target loss of the last forward's rows; kernels_output_loss has formula and fields. With
 * d_params != NULL (flat fp32, n_params, added to) it also starts backward: the gradient of the output layer,
 * and of the hidden states times grad_scale; model_backward must follow. With d_params == NULL it only
 * evaluates. Targets are checked first (targets.c). Returns 0, or ERR_RANGE with nothing computed.
 */
int model_loss(struct model_session *s, const struct kernels_targets *targets, float grad_scale, float *d_params,
    struct kernels_loss_sums *sums);

/*
 * model_backward - adds the remaining gradients of the last model_loss to d_params. Activations are kept:
 * another model_loss and model_backward may follow without a new forward.
 */
void model_backward(struct model_session *s, float *d_params);

/*
 * Evaluation on sequences of L+1 tokens, in groups; group j belongs to lane j mod lanes. The caller adds the
 * lanes' sums in lane order, so bits depend neither on the number of ranks that share the lanes nor on
 * threads. A trainer uses its micro-batches as groups. With model_session_documents the first token of a
 * document has no loss.
 */
struct model_evaluation {
	uint64_t n_windows;
	int64_t context;		/* L */
	int64_t group;			/* sequences of one forward; at most the session's batch */
	int64_t lanes;
	int (*get)(void *arg, uint64_t window, int32_t *out);	/* writes the L+1 tokens of a sequence; an rc
								 * other than 0 ends the evaluation */
	void *arg;
	double *window_nats;		/* NULL, or [n_windows]: mean next-token loss of each sequence, 0
					 * without targets; a lane writes only its own sequences */
};

/*
 * model_evaluate_lane - computes one lane's groups, in order. *sums: loss, hard, correct, rows and finite;
 * the other fields are 0. Returns 0, ENOMEM, the error of get, or as model_forward and model_loss.
 */
int model_evaluate_lane(struct model_session *s, const struct model_evaluation *e, int64_t lane, struct kernels_loss_sums *sums);

/*
 * model_labels - scores and/or labels of all rows of the last forward; kernels_output_label has the details.
 * Never holds [M, V] as a whole. targets: [B*T] next tokens (required with spec->score, else NULL). seqs:
 * [B], the sequence number of each sequence of the batch (the counter of sampling). out: the caller's arrays,
 * sized as kernels_output_label says for M = B*T rows.
 * Returns 0, or ERR_RANGE with nothing computed: a target outside the valid ids, n or n_valid over V, tau not
 * over 0.
 */
int model_labels(struct model_session *s, const struct kernels_label_spec *spec, const int32_t *targets, const uint64_t *seqs,
    struct kernels_labels *out);

#endif
