/* SPDX-License-Identifier: Apache-2.0 */
#include "replay/fake_selectord.h"

#include <math.h>
#include <stdio.h>

#include "base/random/shuffle.h"
#include "fabric/session/session.h"
#include "replay/fake_shard.h"

static void
welcome(struct fake_selectord *s, const struct wire_hello *hello)
{
	struct wire_message m = {.type = WIRE_WELCOME, .welcome = {.protocol_version = WIRE_VERSION, .boot_id = {1, 2}, .n_shards = 1,
	    .max_message = 1 << 20, .lease_ms = 5000, .corpus = hello->corpus, .label_set = hello->label_set, .heldout_loss_nats = 2.5f}};
	struct labels_set set = {.corpus = s->fingerprint, .teacher = {5, 6 + s->other_teacher}, .compute_class = "fp32/openblas"};

	m.welcome.label_set.teacher = (struct wire_id){true, set.teacher};
	snprintf(m.welcome.label_set.compute_class, sizeof(m.welcome.label_set.compute_class), "%s", set.compute_class);
	set.spec = session_label_spec(&m.welcome.label_set, s->context, s->vocab, NULL);
	m.welcome.label_set.hash = (struct wire_id){true, labels_set_hash(&set)};
	m.welcome.plan_hash = (struct wire_id){true, wire_plan_hash(&hello->corpus, &hello->plan, NULL)};
	s->spec = set.spec;
	s->spec.set = labels_set_hash(&set);
	fake_shard_push(&m, &s->pushed);
}

static void
greet(struct fake_selectord *s, const struct wire_hello *hello)
{
	struct wire_message refuse = {.type = WIRE_REFUSE, .refuse = {.code = s->refuse, .field = "plan.n_rows", .expected = "8", .found = "9"}};

	s->n_hello++;
	if (s->refuse > 0)
		fake_shard_push(&refuse, &s->pushed);
	else
		welcome(s, hello);
}

static void
label(const struct fake_selectord *s, uint64_t row, const int32_t *tokens, struct labels_buf *out)
{
	uint32_t L = s->context, V = s->vocab, n = s->spec.kind == LABELS_KIND_DENSE ? V : 2;
	int32_t *ids = calloc(L * n, sizeof(*ids));
	float *log_p = calloc(L * n, sizeof(*log_p));
	int rc;

	MUST(ids != NULL && log_p != NULL);
	for (uint32_t at = 0; at < L * n; at++) {
		uint32_t likely = n == 2 ? 0 : (uint32_t)(row % V), next = n == 2 ? 1 : (uint32_t)((row + 1) % V);

		ids[at] = (int32_t)((row + at % n) % V);
		log_p[at] = at % n == likely ? logf(0.75f) : at % n == next ? logf(0.25f) : -INFINITY;
	}
	rc = n == 2 ? labels_encode_topk(&s->spec, hash_tokens(tokens, L + 1), ids, log_p, out, NULL) :
	    labels_encode_dense(&s->spec, hash_tokens(tokens, L + 1), log_p, out, NULL);
	MUST(rc == 0);
	free(ids);
	free(log_p);
}

static void
answer(struct fake_selectord *s, const struct wire_rows_request *q)
{
	s->n_requests++;
	for (uint64_t row = q->first_row; row < q->first_row + q->count; row++) {
		struct wire_row one = {.seq = shuffle_order(s->seed, corpus_n_windows(s->corpus, s->context), row),
		    .quarantined = (int64_t)row == s->quarantined};
		struct wire_message m = {.type = WIRE_ROWS, .rows = {.request_id = q->request_id, .plan_hash = q->plan_hash, .first_row = row,
		    .rows = &one, .n_rows = 1, .heldout_loss_nats = NAN}};
		struct labels_buf buf = {0};
		int32_t tokens[64];

		if ((int64_t)row == s->withheld)
			continue;
		one.seq += (int64_t)row == s->other_seq;
		MUST(s->context < 64 && corpus_window(s->corpus, one.seq, s->context, tokens, NULL) == 0);
		tokens[0] = (tokens[0] + ((int64_t)row == s->other_label)) % (int32_t)s->vocab;
		if (!one.quarantined) {
			label(s, row, tokens, &buf);
			one.label.bytes = buf.bytes;
			one.label.len = buf.len;
		}
		s->label_bytes += row < s->first_rows ? buf.len : 0;
		for (int i = 0; i < 1 + s->twice; i++)
			fake_shard_push(&m, &s->pushed);
		labels_buf_free(&buf);
	}
}

enum fake_step
fake_selectord_script(void *arg, int step)
{
	struct fake_selectord *s = arg;
	struct wire_message *m;

	fake_shard_events(step, &s->skip_ms, atomic_exchange(&s->reconnect, false), &s->pushed);
	for (size_t len; (m = fake_shard_heard(&s->seen, &len)) != NULL; wire_message_destroy(&m)) {
		if (m->type == WIRE_HELLO) {
			greet(s, &m->hello);
		} else if (m->type == WIRE_ROWS_REQUEST) {
			answer(s, &m->rows_request);
		} else if (m->type == WIRE_CHECKPOINTED) {
			s->checkpointed = m->checkpointed.step;
			fake_shard_push(&(struct wire_message){.type = WIRE_ACK, .ack = {m->checkpointed.request_id}}, &s->pushed);
		} else if (m->type == WIRE_RELEASE) {
			s->n_release++;
			fake_shard_push(&(struct wire_message){.type = WIRE_ACK, .ack = {m->release.request_id}}, &s->pushed);
		}
	}
	return s->pushed ? FAKE_GO : FAKE_AGAIN_WHEN_WOKEN;
}
