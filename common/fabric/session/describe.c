/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/session/session.h"

#include "data/corpus/corpus.h"
#include "fabric/config/config.h"

struct wire_corpus
session_corpus(const struct corpus *corpus, struct hash128 fingerprint, uint32_t context, uint32_t vocab,
    struct wire_id tokenizer)
{
	const struct corpus_info *info = corpus_info(corpus);

	return (struct wire_corpus){.present = true, .fingerprint = {true, fingerprint}, .context = context,
	    .n_windows = corpus_n_windows(corpus, context), .vocab_size = vocab,
	    .document_end = (uint32_t)(corpus_document_end(corpus) + 1),
	    .tokenizer = info->has_tokenizer ? (struct wire_id){true, info->tokenizer} : tokenizer};
}

struct wire_label_set
session_label_set(const struct config *config)
{
	const struct config_labels *l = &config->labels;

	return (struct wire_label_set){.present = true, .kind = l->kind, .tau = (float)l->tau,
	    .seed = l->seed, .version = LABELS_VERSION,
	    .n = l->kind == LABELS_KIND_SAMPLED ? l->samples : l->kind == LABELS_KIND_TOPK ? l->k : 0};
}

struct wire_plan
session_plan(const struct config *config, uint64_t n_rows, uint64_t ahead_rows)
{
	const struct config_selector *s = &config->selector;
	bool salt_ds = s->mode == CONFIG_MODE_SALT_DS, file = s->mode == CONFIG_MODE_FILE;

	return (struct wire_plan){.present = true, .seed = config->run.seed, .batch = config->trainer.batch,
	    .mode = salt_ds ? WIRE_MODE_SALT_DS : file ? WIRE_MODE_FILE : WIRE_MODE_NONE, .k = salt_ds ? s->k : 0,
	    .window = s->block, .keep = salt_ds || file ? s->keep_share : 0, .pool = s->pool, .n_rows = n_rows,
	    .label_ahead_rows = ahead_rows, .by_part = (salt_ds || file) && s->by_part && corpus_is_list(config->corpus.train)};
}

struct labels_spec
session_label_spec(const struct wire_label_set *set, uint32_t context, uint32_t vocab,
    const struct labels_unigram *unigram)
{
	return (struct labels_spec){.kind = set->kind, .version = set->version,
	    .context = context, .vocab = vocab, .n_samples = set->kind == LABELS_KIND_SAMPLED ? set->n : 0,
	    .k = set->kind == LABELS_KIND_TOPK ? set->n : 0, .seed = set->seed, .tau = (double)set->tau,
	    .unigram = unigram, .set = set->hash.hash};
}
