#include "saltctl/core/hello.h"

#include <stdio.h>
#include <unistd.h>

#include "fabric/bus/bus.h"
#include "fabric/config/config.h"
#include "data/corpus/corpus.h"
#include "data/labels/labels.h"

static int
describe(struct corpus *c, uint32_t context, struct wire_corpus *out, struct err_note *note)
{
	const struct corpus_info *info = corpus_info(c);
	struct hash128 fingerprint;
	int rc = corpus_fingerprint(c, &fingerprint, note);

	*out = (struct wire_corpus){.present = true, .fingerprint = {true, fingerprint}, .context = context,
	    .n_windows = corpus_n_windows(c, context), .tokenizer = {info->has_tokenizer, info->tokenizer}, .vocab_size = info->vocab};
	return rc;
}

static struct wire_label_set
labels_of(const struct config *cfg)
{
	static const enum wire_label_kind kinds[] = {[CONFIG_LABEL_SAMPLED] = WIRE_LABEL_SAMPLED, [CONFIG_LABEL_TOPK] = WIRE_LABEL_TOPK,
	    [CONFIG_LABEL_DENSE] = WIRE_LABEL_DENSE};
	const struct config_labels *l = &cfg->labels;

	return (struct wire_label_set){.present = true, .kind = kinds[l->kind], .tau = (float)l->tau, .seed = l->seed, .version = LABELS_VERSION,
	    .n = l->kind == CONFIG_LABEL_SAMPLED ? l->samples : l->kind == CONFIG_LABEL_TOPK ? l->k : 0};
}

int
hello_make(const struct ctl_args *args, const struct config *cfg, struct wire_message *hello, struct corpus **train, struct corpus **heldout)
{
	struct wire_hello *h = &hello->hello;
	struct err_note note = {.name = ""};
	int exit_code, rc;

	*hello = (struct wire_message){.type = WIRE_HELLO};
	*train = *heldout = NULL;
	if ((exit_code = ctl_open_corpus(args, cfg->corpus.train, CORPUS_TRAIN, train)) != 0)
		return exit_code;
	h->role = WIRE_ROLE_CLIENT;
	h->boot_id = bus_boot_id();
	snprintf(h->name, sizeof(h->name), "saltctl-%d", (int)getpid());
	snprintf(h->host, sizeof(h->host), "%s", bus_host());
	h->pid = (uint32_t)getpid();
	h->max_message = (uint32_t)cfg->bus.max_message;
	h->label_set = labels_of(cfg);
	if ((rc = describe(*train, cfg->corpus.context, &h->corpus, &note)) != 0)
		return ctl_fail(args, rc, &note);
	if (h->corpus.vocab_size == 0) {
		err_note_set(&note, ERR_MISMATCH, "%s", cfg->corpus.train);
		err_note_expected(&note, "a corpus that states its vocabulary (PREFIX.json)");
		return ctl_fail(args, ERR_MISMATCH, &note);
	}
	if (cfg->corpus.heldout[0] == '\0')
		return 0;
	if ((exit_code = ctl_open_corpus(args, cfg->corpus.heldout, CORPUS_HELDOUT, heldout)) != 0)
		return exit_code;
	rc = describe(*heldout, cfg->corpus.context, &h->heldout, &note);
	return rc != 0 ? ctl_fail(args, rc, &note) : 0;
}
