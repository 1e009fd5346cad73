/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model - transformer language models: tensor table, forward, fused loss, backward, scores and labels.
 *
 *   struct model          configuration, tensor table, a pointer to the parameters; shared by sessions
 *   struct model_session  one stream of work: B x T activations and a kernels context. Sessions of one model may run in parallel.
 *
 * Parameters are one flat array in canonical order: the tensor table gives name, shape and offset. Names,
 * shapes and layouts are those of Hugging Face (GPT-2's Conv1D weights stay [in, out]), so loading and saving
 * are straight copies, and the optimiser, the checkpoint, the sharding and the tests all walk the same table.
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
 * Every family but Llama: its name in enum model_family, and its model_type in config.json. What each
 * computes: family.c.
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
	MODEL_ACTIVATION_FAMILY,	/* the family's own */
	MODEL_GELU_NEW, MODEL_GELU, MODEL_SILU, MODEL_RELU, MODEL_RELU2
};
enum model_qk_norm { MODEL_QK_NORM_NONE, MODEL_QK_NORM_HEADS, MODEL_QK_NORM_WIDTH };
enum model_rope_scaling {
	MODEL_ROPE_DEFAULT, MODEL_ROPE_LINEAR, MODEL_ROPE_DYNAMIC, MODEL_ROPE_YARN, MODEL_ROPE_LLAMA3, MODEL_ROPE_LONGROPE
};

#define MODEL_MAX_LISTED 1024		/* layers of a model that lists local layers or layers without rope */
#define MODEL_MAX_ROTARY 512		/* elements of a head with LongRoPE */

/* All that changes outputs; weights/ fills it from config.json and fingerprints it. */
struct model_config {
	enum model_family family;
	int64_t vocab_size;		/* V; the softmax is over all V */
	int64_t context;		/* longest T: n_positions, max_position_embeddings */
	int64_t d_model;		/* C */
	int64_t n_layers;
	int64_t n_heads;		/* H */
	int64_t n_kv_heads;		/* K; H % K == 0 */
	int64_t head_dim;		/* D; C / H unless the file says otherwise */
	int64_t d_ff;			/* F */
	float norm_eps;
	bool tied;			/* output layer = token embedding */
	enum model_activation activation;
	bool attention_bias;		/* q, k, v, o have biases (Qwen2: q, k, v, never o) */
	bool no_proj_bias;		/* even so o has none */
	bool mlp_bias;			/* gate, up, down have biases */
	bool parallel_residual;		/* x + attention(norm1(x)) + mlp(norm2(x)); else the mlp sees attention's sum */
	double rope_theta;		/* where the family has rope */
	int64_t rotary_dim;		/* elements of a head with rotary embedding, the first ones, even; 0: all D */
	struct {
		enum model_rope_scaling type;
		double factor;			/* YaRN, LongRoPE: 0: context / original_context */
		double low_freq_factor, high_freq_factor;	/* llama3 */
		int64_t original_context;	/* llama3, YaRN, LongRoPE */
		double beta_fast, beta_slow;	/* YaRN */
		double attention_factor;	/* YaRN, LongRoPE: of cosines and sines; 0: by their formulas */
		double mscale, mscale_all_dim;	/* YaRN: in its formula; 0: none */
		bool no_truncate;		/* YaRN: bounds that are not whole */
		float short_factor[MODEL_MAX_ROTARY / 2], long_factor[MODEL_MAX_ROTARY / 2];	/* LongRoPE */
	} rope_scaling;
	/* Factors; 0: 1, or none. */
	float embed_scale;		/* of token embeddings */
	float attention_scale;		/* of q k^T; 0: 1/sqrt(D) */
	float residual_scale;		/* of what a branch adds */
	float output_scale;		/* of the final hidden states, and so of the logits */
	float attention_cap, logit_cap;	/* x = cap tanh(x / cap) */
	int64_t window;			/* of local layers: keys that a query sees, itself among them; 0: there are none */
	uint64_t local_layers[MODEL_MAX_LISTED / 64];	/* a bit for each layer */
	uint64_t nope_layers[MODEL_MAX_LISTED / 64];	/* layers without rope */
	double local_theta;		/* rope_theta of local layers, without scaling; 0: theirs is as the others' */
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

/* A family: how it computes, and how Hugging Face's files name its parts. Pythia models are GPT-NeoX. */
struct model_traits {
	const char *name;		/* config.json's model_type */
	const char *architecture;	/* config.json's architectures */
	const char *models, *about;	/* for docs/models.md: whose they are, and what they compute */
	const char *prefix;		/* of tensor names; some files leave it out */
	const char *output;		/* name of the output layer's weight */
	const char *buffers[3];		/* ends of names in files that are not parameters */
	enum model_activation activation;
	bool rms;			/* RMSNorm; else LayerNorm */
	bool unit_gain;			/* norms multiply by 1 + g */
	bool no_gain;			/* norms have neither gain nor bias */
	bool norm_bias;			/* LayerNorm with biases, in rows that RMSNorm shares */
	bool norm_after;		/* a branch's output is normed before it is added */
	bool no_norm_before;		/* and its input is not */
	bool shared_norm;		/* parallel residuals with one norm for both branches */
	bool rope;			/* else learned positions */
	bool gated;			/* act(gate) * up; else act(up) */
	enum model_qk_norm qk_norm;	/* RMSNorm of queries and keys before rope: of each head, or of all heads as one row */
	bool fused_qkv;			/* files have one matrix for q, k and v */
	bool mixed_heads;		/* its rows are [H, 3, D]; else [q heads, k heads, v heads] */
	bool whole_heads;		/* as many key heads as heads, and they fill the width */
	bool one_key_head;
	bool fused_gate;		/* files have one matrix for gate and up, in this order */
	bool parallel;			/* parallel_residual may be true */
	bool partial_rotary;		/* rotary_dim may be less than D */
	bool needs_attention_bias;	/* q, k and v always have a bias, o never */
	bool no_mlp_bias;
	bool grows;			/* model grow knows the family */
	int position_offset;		/* rows of the position embedding before that of the first position */
	enum kernels_layout layout;	/* of the layers' matrices; the output layer is always KERNELS_OUT_IN */

	/* What a config.json means that does not name it: model_family_start. */
	struct model_config start;	/* what is not 0 */
	double rotary_share;		/* 0: all of D */
	int local_period, nope_period;	/* all layers but each period-th are local (1: all; -n: each n-th); each period-th has no rope */
	bool embed_by_width;		/* embed_scale is sqrt(C) */
};

/* model_traits - NULL if there is no such family. */
const struct model_traits *model_traits(enum model_family family);
const char *model_family_name(enum model_family family);
/* The family of that model_type; false if there is none. */
bool model_family_find(const char *name, enum model_family *out);
/*
 * model_family_start - fills what the family, its sizes and head_dim imply: everything after d_ff except
 * tied, unless start has it.
 */
void model_family_start(struct model_config *cfg);
/* The activation's name in config.json. */
const char *model_activation_name(enum model_activation activation);
enum model_activation model_activation(const struct model_config *cfg);
const char *model_rope_scaling_name(enum model_rope_scaling type);

#define MODEL_MAX_DIM INT32_MAX		/* of every dimension of a matrix: BLAS counts in int */
#define MODEL_MAX_LAYERS 10000

/*
 * model_config_check - shapes that fit together and into memory arithmetic. Returns 0, ERR_RANGE or
 * ERR_UNSUPPORTED; the note has the field's name (as here), what was expected and what was found.
 */
int model_config_check(const struct model_config *cfg, struct err_note *note);

struct model_tensor {
	char name[96];			/* as in Hugging Face files: "transformer.h.0.attn.c_attn.weight" */
	int n_dims;
	int64_t dims[TENSOR_MAX_DIMS];
	int64_t offset;			/* in elements, into the flat array; tensors follow each other without gaps */
	int64_t n_elements;
	int layer;			/* -1: before the first layer (embeddings), n_layers: after the last (final norm, output) */
	bool decay;			/* weight decay applies: two-dimensional weights, embeddings among them */
	int n_matrices;			/* of model_matrix; 0: not a matrix of a layer (embedding, norm, bias, output layer) */
	float init_std;			/* normal(0, init_std); residual projections scaled by 1/sqrt(2 n_layers) */
	float init_value;		/* where init_std == 0: constant (norm weights 1, biases 0) */
	int role;			/* private */
};

/*
 * A weight matrix inside a tensor: element (r, c) is number begin + (r / group) * group_stride + (r % group)
 * * ld + c of the flat array.
 */
struct model_matrix {
	int64_t begin, rows, cols, ld, group, group_stride;
};

struct model {
	struct model_config config;
	struct model_tensor *tensors;	/* canonical order */
	int n_tensors;
	int64_t n_params;		/* elements of the flat array; a tied output layer is not counted twice */
	void *params;			/* flat array in dtype; owned by the caller; set with model_bind */
	enum dtype dtype;
	uint64_t generation;		/* private: see model_changed */
	int *role_tensor;		/* private: (layer, role) -> index into tensors */
};

/*
 * model_matrix - matrix i of n_matrices of a tensor: the tensor itself, or of a fused projection the one of
 * the queries (0), keys (1) or values (2), or gate (0) and up (1). What an optimiser that works on whole
 * matrices needs.
 */
struct model_matrix model_matrix(const struct model *model, int tensor, int i);

/* model_new - table only; no parameters yet. Returns 0, or as model_config_check, or ENOMEM. */
int model_new(struct model **model, const struct model_config *cfg, struct err_note *note);
void model_destroy(struct model **model);		/* takes NULL; does not free params */

/*
 * model_bind - use this flat array (n_params elements of dtype, from kernels_alloc): the kernels' compute
 * dtype, fp32 or bf16. May be called again; sessions see it at the next forward. A trainer in bf16 keeps fp32
 * masters itself and binds the bf16 copy.
 */
void model_bind(struct model *model, void *params, enum dtype dtype);

/*
 * model_changed - the bound parameters have new values. Call it after every optimiser step (after the ranks
 * have gathered), after a load, after anything that wrote into the array: a backend with matrix units may
 * keep weights repacked and would use the old ones. It costs nothing; repacking happens at the next use. Not
 * while a session of the model is running. model_bind implies it.
 */
void model_changed(struct model *model);

/*
 * model_load - fills params (n_params elements of the kernels' dtype, from kernels_alloc), a piece at a time,
 * so that bf16 parameters never exist in fp32 as a whole. get writes elements [begin, end) as fp32 into host
 * memory. Does not bind. When it returns, any context may read them.
 * Returns 0, the error of get, or ENOMEM.
 */
int model_load(const struct model *model, struct kernels *kernels, void *params,
    int (*get)(void *arg, uint64_t begin, uint64_t end, float *out, struct err_note *note), void *arg, struct err_note *note);

/*
 * model_init - initial fp32 values of elements [begin, end) of the flat array into out[end - begin] (host
 * memory). Element e of tensor number i: random_words(seed, RANDOM_PURPOSE_INIT, i, e >> 2 ...) through
 * random_normal: a pure function of (seed, i, e), so that any rank can compute any range, and the model does
 * not depend on the number of ranks.
 */
void model_init(const struct model *model, uint32_t seed, int64_t begin, int64_t end, float *out);

/*
 * model_flops_per_token - FLOPs of forward and backward per token at context t, for reports: 6 per parameter
 * that takes part in a matrix product (the output layer once, tied or not; no look-ups, norms, biases) + 12
 * H D t for the attention of each layer, at most its window in place of t. That counts the masked half of
 * attention and no recomputation, as PaLM (Chowdhery et al., 2022, appendix B) and llm.c do. Forward alone is
 * a third.
 */
double model_flops_per_token(const struct model_config *cfg, int64_t t);

/* model_product_params - those parameters: of the matrices that are multiplied by. */
double model_product_params(const struct model_config *cfg);

/* ---- sessions ---- */

/*
 * Hooks per layer, for overlapping communication (and ZeRO-3 later). layer as in model_tensor.layer. Both may
 * be NULL.
 * need(layer): called before the parameters of a layer are read: forward, loss (n_layers, or -1 where tied),
 * logits, labels, backward.
 * done(layer): called in backward when every gradient of that layer has its last contribution of this
 * micro-batch: n_layers, then downwards, -1 last (a tied embedding's gradient is complete only then). Both
 * run in the session's thread.
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
	bool recompute;			/* keep layer inputs only and run each layer again in backward; the same bits */
};

struct model_session;

/*
 * model_session_new - allocates all memory of the session (except the workspace of kernels). kernels: not
 * owned, one thread at a time. Model and kernels must outlive the session. Returns 0, ERR_RANGE (T past the
 * context: note), ENOMEM.
 */
int model_session_new(struct model_session **s, const struct model *model, struct kernels *kernels,
    const struct model_session_options *options, struct err_note *note);
void model_session_destroy(struct model_session **s);
void model_session_hooks(struct model_session *s, const struct model_hooks *hooks);

/*
 * model_session_plan - bytes of the session that model_session_new would make with these kernels' dtype,
 * without making it: for plans and for choosing a micro-batch. Returns 0, ERR_RANGE.
 */
int model_session_plan(const struct model_config *cfg, enum dtype compute_dtype, const struct model_session_options *options,
    size_t *bytes, struct err_note *note);

/*
 * model_session_documents - from the next forward on, a token `end` ends a document, and the document after
 * it is computed as if it were
 * alone: positions begin at 0 again, and attention does not reach back. end < 0: sequences are not divided (as after
 * model_session_new). Returns 0, or ENOMEM; after ENOMEM sequences are not divided.
 *
 * model_document_starts - starts[i], the place of the first token of token i's document, of t tokens. Pure.
 * model_document_targets - next[i] = KERNELS_NO_TARGET where tokens[i] ends a document: what follows is the
 * next document's. end < 0: none.
 */
int model_session_documents(struct model_session *s, int32_t end);
void model_document_starts(const int32_t *tokens, int64_t t, int32_t end, int32_t *starts);
void model_document_targets(const int32_t *tokens, int64_t n, int32_t end, int32_t *next);

/*
 * model_forward - tokens [B, T] int32 host memory, each in 0..V-1 (checked: ERR_RANGE, nothing computed).
 * Leaves the final normed hidden states [B*T, C] in the session. Rows of a sequence depend on that sequence
 * only; bits of a row may depend on (B, T, threads) but on nothing else. The tokens are copied. Any T up to
 * the session's, and any B for which B*T is at most the session's. Returns 0 or ERR_RANGE. The model must be
 * bound, in the kernels' compute dtype (else log_fatal).
 */
int model_forward(struct model_session *s, const int32_t *tokens, int64_t b, int64_t t);

/*
 * model_logits - logits of rows [begin, begin + n) of the last forward, [n, V] fp32, host memory. For text
 * generation; not for loss. Runs in chunks of MODEL_LOGITS_ROWS rows.
 */
#define MODEL_LOGITS_ROWS 16
void model_logits(struct model_session *s, int64_t begin, int64_t n, float *out);

/*
 * model_gradients_zero - d_params (flat fp32, n_params) counts as zero from here on, for the next model_loss
 * and model_backward of this session. Matrices that these overwrite as a whole are not touched; until then
 * they hold anything.
 */
void model_gradients_zero(struct model_session *s, float *d_params);

/*
 * model_loss - mixed-target loss of the last forward's rows, see kernels_output_loss for formula and fields.
 * With d_params != NULL (flat fp32, n_params, accumulated into) it also starts backward: gradient of the
 * output layer, and of the hidden states times grad_scale; model_backward must follow. With d_params == NULL
 * it only evaluates. Targets are checked first (targets.c). Returns 0, or ERR_RANGE with nothing computed.
 */
int model_loss(struct model_session *s, const struct kernels_targets *targets, float grad_scale, float *d_params,
    struct kernels_loss_sums *sums);

/*
 * model_backward - the rest of the gradients of the last model_loss, accumulated into d_params. Activations
 * stay: another model_loss and model_backward may follow without a new forward.
 */
void model_backward(struct model_session *s, float *d_params);

/*
 * Evaluation on windows of L+1 tokens, in groups; group j belongs to lane j mod lanes. The caller adds the
 * lanes' sums in lane order, so bits depend neither on the number of ranks that share the lanes nor on
 * threads. A trainer's groups are its micro-batches. With model_session_documents the first token of a
 * document has no loss.
 */
struct model_evaluation {
	uint64_t n_windows;
	int64_t context;		/* L */
	int64_t group;			/* windows of one forward; at most the session's batch */
	int64_t lanes;
	int (*get)(void *arg, uint64_t window, int32_t *out);	/* the L+1 tokens; not 0 ends the evaluation */
	void *arg;
	double *window_nats;		/* NULL, or [n_windows]: mean next-token loss of each window, 0 of one without targets; a lane fills in its own */
};

/*
 * model_evaluate_lane - one lane's groups, in order. *sums: loss, hard, correct, rows, finite; the rest is 0.
 * Returns 0, ENOMEM, the error of get, or as model_forward and model_loss.
 */
int model_evaluate_lane(struct model_session *s, const struct model_evaluation *e, int64_t lane, struct kernels_loss_sums *sums);

/*
 * model_labels - scores and/or labels of all rows of the last forward, see kernels_output_label. Never holds
 * [M, V] as a whole. targets: [B*T] next tokens (needed with spec->score, else NULL). seqs: [B], the sequence
 * id of each row block (sampling's counter). out: caller's arrays, sized as kernels_output_label says for M =
 * B*T rows.
 * Returns 0, or ERR_RANGE with nothing computed: a target outside the valid ids, n or n_valid over V, tau not
 * over 0.
 */
int model_labels(struct model_session *s, const struct kernels_label_spec *spec, const int32_t *targets, const uint64_t *seqs,
    struct kernels_labels *out);

#endif
