/*
 * The connection to one shard of selectord. On every connect HELLO is said again and what was asked for is asked again: selectord
 * keeps nothing of a connection, and asking twice is harmless.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "fabric/config/config.h"
#include "base/log/log.h"
#include "fabric/status/status.h"
#include "trainerd/feed_internal.h"
#include "trainerd/state.h"

#define ANSWER_MS 10000			/* HELLO, RELEASE, CHECKPOINTED are said again after so long */
#define ASK_AGAIN_MS 30000		/* rows that were asked for and have not come */
#define REQUESTS_MAX 48			/* not answered at a time: selectord drops a peer's oldest beyond 64 */

int
feed__links_new(struct feed *f, struct err_note *note)
{
	int rc;

	for (size_t i = 0; i < f->n_links; i++) {
		struct feed_link *link = &f->links[i];

		link->feed = f;
		link->shard = (uint32_t)i;
		if ((rc = bus_client_new(&link->client, f->o.bus, f->o.config->selector.endpoints.item[i], NULL, note)) != 0)
			return rc;
		if ((rc = bus_poll_add_client(f->poll, link->client)) != 0)
			return rc;
	}
	return 0;
}

void
feed__links_destroy(struct feed *f)
{
	for (size_t i = 0; i < f->n_links; i++)
		if (f->links[i].client != NULL) {
			bus_poll_remove(f->poll, f->links[i].client);
			bus_client_destroy(&f->links[i].client);
		}
	f->n_links = 0;
}

static void
fail(struct feed *f, int rc, const struct err_note *note)
{
	pthread_mutex_lock(&f->lock);
	feed__fail(f, rc, note);
	pthread_mutex_unlock(&f->lock);
}

/* 0 when it is on its way; a link that is down or full is tried again at a later turn. */
static int
link_send(struct feed_link *link, const struct wire_message *msg)
{
	struct err_note note;
	char text[1024];
	uint8_t *frame;
	size_t len;
	int rc;

	if ((rc = wire_encode(msg, link->max_message != 0 ? link->max_message : SIZE_MAX, &frame, &len, &note)) != 0)
		log_fatal("frame.encode", "type=%s why=\"%s\"", wire_type_name(msg->type), err_note_str(&note, rc, text, sizeof(text)));
	return bus_client_send(link->client, frame, len);
}

/* A corpus that does not say what its vocabulary and tokenizer are (no PREFIX.json) has the vocabulary of the labels and the model's tokenizer. */
static struct wire_corpus
describe_corpus(const struct feed *f, const struct corpus *c, struct hash128 fingerprint)
{
	const struct corpus_info *info = corpus_info(c);

	return (struct wire_corpus){.present = true, .fingerprint = {true, fingerprint}, .context = f->context,
	    .n_windows = corpus_n_windows(c, f->context), .vocab_size = f->spec.vocab,
	    .tokenizer = {info->has_tokenizer || f->o.has_tokenizer, info->has_tokenizer ? info->tokenizer : f->o.tokenizer}};
}

static struct wire_label_set
expected_labels(const struct feed *f)
{
	const struct state *resumed = f->o.resumed;
	struct wire_label_set set = {.present = true, .kind = (enum wire_label_kind)f->spec.kind, .tau = (float)f->spec.tau,
	    .seed = f->spec.seed, .version = f->spec.version};

	set.n = f->spec.kind == LABELS_KIND_SAMPLED ? f->spec.n_samples : f->spec.kind == LABELS_KIND_TOPK ? f->spec.k : 0;
	if (resumed != NULL && resumed->has_sets) {
		set.teacher = (struct wire_id){true, resumed->teacher};
		set.hash = (struct wire_id){true, resumed->label_set};
	}
	return set;
}

static void
say_hello(struct feed_link *link, int64_t now_ms)
{
	struct feed *f = link->feed;
	struct wire_message msg = {.type = WIRE_HELLO};
	struct wire_hello *h = &msg.hello;

	h->role = WIRE_ROLE_TRAINER;
	h->boot_id = bus_boot_id();
	snprintf(h->name, sizeof(h->name), "%s", f->o.name);
	snprintf(h->host, sizeof(h->host), "%s", bus_host());
	snprintf(h->status_endpoint, sizeof(h->status_endpoint), "%s", f->o.status_endpoint);
	h->pid = (uint32_t)getpid();
	h->rank = (uint32_t)f->o.rank;
	h->max_message = (uint32_t)f->o.config->bus.max_message;
	h->corpus = describe_corpus(f, f->o.corpus, f->o.corpus_fingerprint);
	if (f->o.heldout != NULL)
		h->heldout = describe_corpus(f, f->o.heldout, f->o.heldout_fingerprint);
	h->plan = f->plan;
	h->label_set = expected_labels(f);
	if (link_send(link, &msg) == 0)
		link->said_ms = now_ms;
}

/* What selectord holds is not what we hold. After the switch nothing depends on it any more: then there is nobody to release there. */
static void
mismatch(struct feed_link *link, int rc, const char *peer, struct err_note *note)
{
	struct feed *f = link->feed;
	char place[sizeof(note->place)], text[2048], quoted[2200];
	bool over;

	pthread_mutex_lock(&f->lock);
	over = f->release_wanted;
	pthread_mutex_unlock(&f->lock);
	if (over) {
		log_warn("selectord.differs", "shard=%u why=%s", link->shard, log_quote(err_note_str(note, rc, text, sizeof(text)), quoted, sizeof(quoted)));
		link->released = true;
		return;
	}
	snprintf(place, sizeof(place), "selectord at %.200s", peer);
	err_note_place(note, "%s", place);
	fail(f, rc, note);
}

/*
 * The table that sampled labels are coded under. What came must be the label set that selectord names, part by part: the identity is
 * computed here from what this process holds and from the table.
 */
static int
take_unigram(struct feed *f, const struct wire_welcome *w, struct err_note *note)
{
	struct labels_set set = {.corpus = f->o.corpus_fingerprint, .teacher = w->label_set.teacher.hash, .spec = f->spec};
	struct labels_unigram *unigram = NULL;
	char a[HASH_HEX_BYTES], b[HASH_HEX_BYTES];
	struct hash128 hash;
	int rc;

	if (f->spec.kind == LABELS_KIND_SAMPLED && (rc = labels_unigram_new(&unigram, w->unigram.bytes, w->unigram.len, note)) != 0)
		return rc;
	snprintf(set.compute_class, sizeof(set.compute_class), "%s", w->label_set.compute_class);
	set.spec.unigram = unigram;
	set.spec.tau = (double)(float)f->spec.tau;
	hash = labels_set_hash(&set);
	if (!hash_equal(hash, w->label_set.hash.hash)) {
		labels_unigram_destroy(&unigram);
		err_note_set(note, ERR_MISMATCH, "label_set.hash");
		err_note_expected(note, "%s", hash_hex(hash, a));
		err_note_found(note, "%s", hash_hex(w->label_set.hash.hash, b));
		return ERR_MISMATCH;
	}
	pthread_mutex_lock(&f->lock);
	labels_unigram_destroy(&f->unigram);
	f->unigram = unigram;
	f->spec.unigram = unigram;
	f->spec.set = hash;
	pthread_mutex_unlock(&f->lock);
	return 0;
}

/* Everything that WELCOME states must be what we hold; then the sets go into every checkpoint. */
static void
welcome(struct feed_link *link, const struct wire_welcome *w)
{
	struct feed *f = link->feed;
	const char *peer = f->o.config->selector.endpoints.item[link->shard];
	struct wire_corpus corpus = describe_corpus(f, f->o.corpus, f->o.corpus_fingerprint);
	struct wire_label_set labels = expected_labels(f);
	struct hash128 plan_hash;
	struct err_note note;
	int rc;

	if ((rc = wire_corpus_diff("corpus", &corpus, &w->corpus, &note)) != 0 ||
	    (rc = wire_label_set_diff("label_set", &labels, &w->label_set, &note)) != 0) {
		mismatch(link, rc, peer, &note);
		return;
	}
	if (w->n_shards != f->o.config->selector.endpoints.n || w->shard != link->shard) {
		rc = err_note_set(&note, ERR_MISMATCH, "selector.endpoints");
		err_note_expected(&note, "shard %u of %zu", link->shard, f->o.config->selector.endpoints.n);
		err_note_found(&note, "shard %u of %u", w->shard, w->n_shards);
		mismatch(link, rc, peer, &note);
		return;
	}
	plan_hash = wire_plan_hash(&corpus, &f->plan, w->score_set.present ? &w->score_set.hash.hash : NULL);
	if (w->plan_hash.known && !hash_equal(plan_hash, w->plan_hash.hash)) {
		char a[HASH_HEX_BYTES], b[HASH_HEX_BYTES];

		rc = err_note_set(&note, ERR_MISMATCH, "plan");
		err_note_expected(&note, "%s", hash_hex(plan_hash, a));
		err_note_found(&note, "%s", hash_hex(w->plan_hash.hash, b));
		mismatch(link, rc, peer, &note);
		return;
	}
	if (!w->label_set.present)
		return;			/* selectord knows no labels so far: it says WELCOME again when asked again */
	if (f->has_sets && (!hash_equal(f->label_set, w->label_set.hash.hash) || !hash_equal(f->plan_hash, plan_hash))) {
		rc = err_note_set(&note, ERR_MISMATCH, "label set");
		err_note_expected(&note, "what it said before");
		err_note_found(&note, "another one");
		mismatch(link, rc, peer, &note);
		return;
	}
	if (!f->has_sets && (rc = take_unigram(f, w, &note)) != 0) {
		mismatch(link, rc, peer, &note);
		return;
	}
	pthread_mutex_lock(&f->lock);
	f->has_sets = true;
	f->plan_hash = plan_hash;
	f->label_set = w->label_set.hash.hash;
	f->teacher = w->label_set.teacher.hash;
	f->scorer = w->score_set.present ? w->score_set.scorer.hash : (struct hash128){0, 0};
	if (isfinite(w->heldout_loss_nats))
		f->teacher_nats = w->heldout_loss_nats;
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->lock);
	link->welcomed = true;
	link->max_message = w->max_message;
	log_info("selectord.welcome", "shard=%u endpoint=%s rows_ready=%llu released=%d", link->shard, peer,
	    (unsigned long long)w->rows_ready, w->released);
}

/* Rows of this shard that were asked for, in this request (UINT64_MAX: in any), are to be asked for again. Lock held. */
static void
forget_asked(struct feed_link *link, uint64_t request)
{
	struct feed *f = link->feed;

	for (int i = 0; i < FEED_SLOTS; i++)
		for (uint64_t r = 0; f->slots[i].used && r < f->n_rows; r++) {
			struct feed_row *row = &f->slots[i].rows[r];
			uint64_t g = f->slots[i].step * f->batch + (uint64_t)f->o.rank * f->n_rows + r;

			if (row->state == FEED_ROW_ASKED && (request == UINT64_MAX || row->request == request) &&
			    g / f->kept % f->n_links == link->shard)
				row->state = FEED_ROW_MISSING;
		}
}

static void
forget_all_asked(struct feed_link *link)
{
	pthread_mutex_lock(&link->feed->lock);
	forget_asked(link, UINT64_MAX);
	pthread_mutex_unlock(&link->feed->lock);
}

static void
refused(struct feed_link *link, const struct wire_refuse *r, int64_t now_ms)
{
	struct feed *f = link->feed;
	char text[2048], quoted[2200];
	struct err_note note;
	bool over;

	link->welcomed = false;
	link->said_ms = 0;
	forget_all_asked(link);
	if (r->retry_ms > 0) {
		link->hello_ms = now_ms + r->retry_ms;
		if (link->refused++ % 16 == 0)
			log_warn("selectord.not_now", "shard=%u why=%s", link->shard,
			    log_quote(wire_refuse_str(r, text, sizeof(text)), quoted, sizeof(quoted)));
		return;
	}
	/* After the switch nothing depends on selectord any more: a refusal then is its own affair. */
	pthread_mutex_lock(&f->lock);
	over = f->release_wanted;
	pthread_mutex_unlock(&f->lock);
	if (over) {
		log_warn("selectord.refused", "shard=%u why=%s", link->shard,
		    log_quote(wire_refuse_str(r, text, sizeof(text)), quoted, sizeof(quoted)));
		link->released = true;
		return;
	}
	err_note_set(&note, ERR_MISMATCH, "%.180s", r->field);
	err_note_place(&note, "refused by selectord at %.200s", f->o.config->selector.endpoints.item[link->shard]);
	err_note_expected(&note, "%.300s", r->expected);
	err_note_found(&note, "%.300s%s%.200s", r->found, r->text[0] ? "; " : "", r->text);
	fail(f, r->code == EX_CONFIG ? ERR_MISMATCH : r->code == EX_DATAERR ? ERR_CORRUPT : ERR_REFUSED, &note);
}

/* Requests of this shard without an answer. A request's rows are neighbours. Lock held. */
static unsigned
requests_open(const struct feed_link *link)
{
	const struct feed *f = link->feed;
	unsigned n = 0;

	for (int i = 0; i < FEED_SLOTS; i++) {
		uint64_t last = UINT64_MAX;

		for (uint64_t r = 0; f->slots[i].used && r < f->n_rows; r++) {
			const struct feed_row *row = &f->slots[i].rows[r];
			uint64_t g = f->slots[i].step * f->batch + (uint64_t)f->o.rank * f->n_rows + r;

			if (row->state != FEED_ROW_ASKED || row->request == last || g / f->kept % f->n_links != link->shard)
				continue;
			last = row->request;
			n++;
		}
	}
	return n;
}

static void
received(struct feed_link *link, const struct wire_message *msg, int64_t now_ms)
{
	struct feed *f = link->feed;

	switch (msg->type) {
	case WIRE_WELCOME:
		welcome(link, &msg->welcome);
		break;
	case WIRE_REFUSE:
		refused(link, &msg->refuse, now_ms);
		break;
	case WIRE_ROWS:
		if (!link->welcomed || !hash_equal(msg->rows.plan_hash, f->plan_hash))
			break;
		pthread_mutex_lock(&f->lock);
		if (isfinite(msg->rows.heldout_loss_nats))
			f->teacher_nats = msg->rows.heldout_loss_nats;
		for (size_t i = 0; i < msg->rows.n_rows && f->rc == 0; i++)
			feed__accept(f, msg->rows.first_row + i, &msg->rows.rows[i]);
		forget_asked(link, msg->rows.request_id);	/* a short answer: the rest is asked for again now */
		pthread_mutex_unlock(&f->lock);
		break;
	case WIRE_ACK:
		/* Requests carry what they confirm in their number: see confirm(). */
		if (msg->ack.request_id == UINT64_MAX)
			link->released = true;
		else
			link->acked_step = msg->ack.request_id > link->acked_step ? msg->ack.request_id : link->acked_step;
		break;
	case WIRE_PING: {
		struct wire_message pong = {.type = WIRE_PONG, .ping = msg->ping};

		link_send(link, &pong);
		break;
	}
	default:
		break;
	}
}

static void
receive(struct feed_link *link, int64_t now_ms)
{
	struct bus_event event;

	while (bus_client_recv(link->client, &event) == 0) {
		struct wire_message *msg = NULL;
		struct err_note note;
		char text[1024];
		int rc;

		switch (event.kind) {
		case BUS_EVENT_CONNECTED:
			link->welcomed = false;
			link->hello_ms = now_ms;
			link->said_ms = 0;
			forget_all_asked(link);
			break;
		case BUS_EVENT_DISCONNECTED:
			if (link->welcomed)
				log_warn("selectord.gone", "shard=%u", link->shard);
			link->welcomed = false;
			break;
		case BUS_EVENT_REFUSED:
			log_warn("selectord.key_refused", "shard=%u", link->shard);
			break;
		case BUS_EVENT_FRAME:
			if ((rc = wire_decode(event.frame, event.len, &msg, &note)) != 0)
				log_warn("frame.bad", "shard=%u why=\"%s\"", link->shard, err_note_str(&note, rc, text, sizeof(text)));
			else
				received(link, msg, now_ms);
			wire_message_destroy(&msg);
			break;
		default:
			break;
		}
		bus_event_free(&event);
	}
}

/* Ask for the missing rows of this shard, runs of neighbours in one request, oldest step first. */
static void
ask_rows(struct feed_link *link, int64_t now_ms)
{
	struct feed *f = link->feed;
	unsigned open = requests_open(link);

	for (uint64_t step = f->next_step; step < f->next_step + FEED_SLOTS; step++) {
		struct feed_slot *slot = &f->slots[step % FEED_SLOTS];
		uint64_t base = step * f->batch + (uint64_t)f->o.rank * f->n_rows;

		if (!slot->used || slot->step != step || !slot->phase_one || slot->complete)
			continue;
		for (uint64_t i = 0; i < f->n_rows;) {
			uint64_t block = (base + i) / f->kept, n = 0;
			struct wire_message msg = {.type = WIRE_ROWS_REQUEST};

			while (i + n < f->n_rows && (base + i + n) / f->kept == block && block % f->n_links == link->shard) {
				struct feed_row *row = &slot->rows[i + n];

				if (row->state == FEED_ROW_HAVE || (row->state == FEED_ROW_ASKED && now_ms - row->asked_ms < ASK_AGAIN_MS))
					break;
				n++;
			}
			if (n == 0) {
				i++;
				continue;
			}
			if (open++ >= REQUESTS_MAX)
				return;
			msg.rows_request = (struct wire_rows_request){.request_id = f->next_request++, .plan_hash = f->plan_hash,
			    .first_row = base + i, .count = (uint32_t)n, .step = f->next_step};
			if (link_send(link, &msg) != 0)
				return;
			for (uint64_t end = i + n; i < end; i++) {
				slot->rows[i].state = FEED_ROW_ASKED;
				slot->rows[i].asked_ms = now_ms;
				slot->rows[i].request = msg.rows_request.request_id;
			}
		}
	}
}

/* CHECKPOINTED and RELEASE, said again until confirmed. request_id: the step, or UINT64_MAX for RELEASE. */
static void
confirm(struct feed_link *link, uint64_t checkpointed, bool release, uint64_t release_step, int64_t now_ms)
{
	struct feed *f = link->feed;

	if (checkpointed > link->acked_step && now_ms - link->checkpointed_ms > ANSWER_MS) {
		struct wire_message msg = {.type = WIRE_CHECKPOINTED,
		    .checkpointed = {.request_id = checkpointed, .plan_hash = f->plan_hash, .step = checkpointed}};

		if (link_send(link, &msg) == 0)
			link->checkpointed_ms = now_ms;
	}
	if (release && !link->released && now_ms - link->release_ms > ANSWER_MS) {
		struct wire_message msg = {.type = WIRE_RELEASE,
		    .release = {.request_id = UINT64_MAX, .plan_hash = f->plan_hash, .step = release_step}};

		if (link_send(link, &msg) == 0)
			link->release_ms = now_ms;
	}
}

void
feed__link_turn(struct feed_link *link, int64_t now_ms)
{
	struct feed *f = link->feed;
	uint64_t checkpointed, release_step;
	bool release;

	receive(link, now_ms);
	if (!bus_client_connected(link->client))
		return;
	if (!link->welcomed) {
		if (now_ms >= link->hello_ms && (link->said_ms == 0 || now_ms - link->said_ms > ANSWER_MS))
			say_hello(link, now_ms);
		return;
	}
	pthread_mutex_lock(&f->lock);
	checkpointed = f->checkpointed;
	release = f->release_wanted;
	release_step = f->release_step;
	if (f->rc == 0 && !release)
		ask_rows(link, now_ms);
	pthread_mutex_unlock(&f->lock);
	confirm(link, checkpointed, release, release_step, now_ms);
}
