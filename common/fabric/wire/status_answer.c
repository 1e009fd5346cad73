#include "fabric/wire/status_answer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/json/json.h"
#include "base/mem/mem.h"
#include "status.pb-c.h"
#include "fabric/wire/wire_internal.h"

#define STATUS_MAGIC 0x53544154u	/* "STAT" */

enum { REQUEST_BUDGET = 4096 };

struct budget {
	struct mem_arena *arena;
	bool over;
};

static void *
budget_alloc(void *arg, size_t bytes)
{
	struct budget *b = arg;
	void *p = mem_arena_alloc(b->arena, bytes);

	if (p == NULL)
		b->over = true;
	return p;
}

static void
budget_free(void *arg, void *p)
{
	(void)arg;
	(void)p;
}

static bool
is_request(const void *body, size_t len)
{
	struct budget b = {mem_arena_new(REQUEST_BUDGET), false};
	ProtobufCAllocator allocator = {budget_alloc, budget_free, &b};
	Salt__V1__StatusRequest *m = NULL;
	bool yes;

	if (b.arena != NULL && len <= 64)
		m = salt__v1__status_request__unpack(&allocator, len, body);
	yes = m != NULL && m->magic == STATUS_MAGIC;
	mem_arena_destroy(&b.arena);
	return yes;
}

/* "counter" of a metric: what only grows. */
static bool
grows(enum status_kind kind)
{
	return kind == STATUS_COUNTER || kind == STATUS_RATED || kind == STATUS_TIMER;
}

static char *
text(const char *s)
{
	return (char *)(uintptr_t)s;	/* packed, never written */
}

static int
answer_protobuf(const struct status_snapshot *snap, const struct wire_peer *peers, size_t n_peers, uint8_t **answer, size_t *answer_len)
{
	Salt__V1__StatusReply reply = SALT__V1__STATUS_REPLY__INIT;
	Salt__V1__StatusMetric *metrics, **metric_ptrs;
	Salt__V1__StatusPeer *roster, **roster_ptrs;
	struct mem_arena *arena;
	int rc = ENOMEM;

	if ((arena = mem_arena_new(0)) == NULL)
		return ENOMEM;
	metrics = mem_arena_alloc(arena, STATUS_METRICS_MAX * sizeof(*metrics));
	metric_ptrs = mem_arena_alloc(arena, STATUS_METRICS_MAX * sizeof(*metric_ptrs));
	roster = mem_arena_alloc(arena, n_peers * sizeof(*roster));
	roster_ptrs = mem_arena_alloc(arena, n_peers * sizeof(*roster_ptrs));
	if (metrics == NULL || metric_ptrs == NULL || roster == NULL || roster_ptrs == NULL)
		goto out;
	for (size_t i = 0; i < snap->n_metrics; i++) {
		const struct status_value *v = &snap->metrics[i];

		salt__v1__status_metric__init(&metrics[i]);
		metrics[i].name = text(v->name);
		metrics[i].unit = text(v->unit);
		metrics[i].counter = grows(v->kind);
		metrics[i].value = v->value;
		metrics[i].help = text(v->help != NULL ? v->help : "");
		metric_ptrs[i] = &metrics[i];
	}
	for (size_t i = 0; i < n_peers; i++) {
		salt__v1__status_peer__init(&roster[i]);
		roster[i].name = text(peers[i].name);
		roster[i].role = text(wire_role_name(peers[i].role));
		roster[i].host = text(peers[i].host);
		roster[i].pid = peers[i].pid;
		roster[i].status_endpoint = text(peers[i].status_endpoint);
		roster[i].age_s = peers[i].age_s;
		roster_ptrs[i] = &roster[i];
	}
	reply.role = text(snap->role);
	reply.name = text(snap->name);
	reply.host = text(snap->host);
	reply.pid = (uint32_t)snap->pid;
	reply.version = text(snap->version);
	reply.state = text(snap->state);
	reply.phase = text(snap->phase);
	reply.step = snap->step;
	reply.steps_total = snap->steps_total;
	reply.uptime_s = snap->uptime_s;
	reply.last_error = text(snap->last_error);
	reply.events_endpoint = text(snap->events_endpoint);
	reply.n_metrics = snap->n_metrics;
	reply.metrics = metric_ptrs;
	reply.n_roster = n_peers;
	reply.roster = roster_ptrs;
	*answer_len = salt__v1__status_reply__get_packed_size(&reply);
	if ((*answer = malloc(*answer_len + 1)) == NULL)
		goto out;
	salt__v1__status_reply__pack(&reply, *answer);
	rc = 0;
out:
	mem_arena_destroy(&arena);
	return rc;
}

static struct json *
roster_json(const struct wire_peer *peers, size_t n_peers)
{
	struct json *list = json_new_array();

	for (size_t i = 0; i < n_peers; i++) {
		struct json *o = json_new_object();

		if (json_put(o, "name", json_new_text(peers[i].name)) != 0
		    || json_put(o, "role", json_new_text(wire_role_name(peers[i].role))) != 0
		    || json_put(o, "host", json_new_text(peers[i].host)) != 0
		    || json_put(o, "pid", json_new_int(peers[i].pid)) != 0
		    || json_put(o, "status_endpoint", json_new_text(peers[i].status_endpoint)) != 0
		    || json_put(o, "age_s", json_new_num(peers[i].age_s)) != 0) {
			json_close(&o);
			json_close(&list);
			return NULL;
		}
		if (json_push(list, o) != 0) {
			json_close(&list);
			return NULL;
		}
	}
	return list;
}

/* status makes the object's text; the roster goes in before its last brace. */
static int
answer_json(const struct status_snapshot *snap, const struct wire_peer *peers, size_t n_peers, uint8_t **answer, size_t *answer_len)
{
	static const char name[] = ",\"roster\":";
	struct json *list = NULL;
	char *object, *roster = NULL, *joined;
	size_t n, n_roster;
	int rc = ENOMEM;

	if ((object = status_json(snap)) == NULL)
		return ENOMEM;
	n = strlen(object);
	if (peers == NULL) {
		*answer = (uint8_t *)object;
		*answer_len = n;
		return 0;
	}
	if ((list = roster_json(peers, n_peers)) == NULL || (roster = json_print(list, false)) == NULL)
		goto out;
	n_roster = strlen(roster);
	if (n < 2 || object[n - 1] != '}' || (joined = malloc(n + sizeof(name) + n_roster + 1)) == NULL)
		goto out;
	*answer_len = (size_t)sprintf(joined, "%.*s%s%s}", (int)(n - 1), object, name, roster);
	*answer = (uint8_t *)joined;
	rc = 0;
out:
	json_close(&list);
	free(roster);
	free(object);
	return rc;
}

int
wire_status_answer(const void *body, size_t len, const struct status_snapshot *snap, const struct wire_peer *peers, size_t n_peers,
    uint8_t **answer, size_t *answer_len)
{
	*answer = NULL;
	*answer_len = 0;
	if (len == 0 || (len == 4 && memcmp(body, "json", 4) == 0))
		return answer_json(snap, peers, n_peers, answer, answer_len);
	if (is_request(body, len))
		return answer_protobuf(snap, peers, peers != NULL ? n_peers : 0, answer, answer_len);
	return 0;
}

size_t
wire_status_request(uint8_t buf[16])
{
	Salt__V1__StatusRequest m = SALT__V1__STATUS_REQUEST__INIT;

	m.magic = STATUS_MAGIC;
	return salt__v1__status_request__pack(&m, buf);
}

static void
cut(char *out, size_t size, const char *from)
{
	snprintf(out, size, "%s", from != NULL ? from : "");
}

static enum wire_role
role_from(const char *name)
{
	for (int r = WIRE_ROLE_TEACHER; r <= WIRE_ROLE_CLIENT; r++)
		if (strcmp(name, wire_role_name((enum wire_role)r)) == 0)
			return (enum wire_role)r;
	return WIRE_ROLE_NONE;
}

int
wire_status_decode(const void *bytes, size_t len, struct status_snapshot *snap, struct wire_peer **peers, size_t *n_peers,
    struct err_note *note)
{
	struct budget b = {NULL, false};
	ProtobufCAllocator allocator = {budget_alloc, budget_free, &b};
	Salt__V1__StatusReply *m;
	size_t budget;
	int rc;

	memset(snap, 0, sizeof(*snap));
	*peers = NULL;
	*n_peers = 0;
	if ((rc = wire__scan(&salt__v1__status_reply__descriptor, bytes, len, note)) != 0)
		return rc;
	if (!mem_mul(len, 4, &budget) || !mem_add(budget, 1 << 20, &budget) || (b.arena = mem_arena_new(budget)) == NULL)
		return err_note_set(note, ENOMEM, "status reply");
	if ((m = salt__v1__status_reply__unpack(&allocator, len, bytes)) == NULL) {
		rc = err_note_set(note, b.over ? ERR_RANGE : ERR_FORMAT, "status reply");
		goto out;
	}
	if (m->n_roster > WIRE_PEERS_MAX) {
		rc = err_note_set(note, ERR_RANGE, "status reply");
		err_note_place(note, "roster");
		err_note_expected(note, "at most %d", WIRE_PEERS_MAX);
		err_note_found(note, "%zu", m->n_roster);
		goto out;
	}
	if (m->n_roster > 0 && (*peers = calloc(m->n_roster, sizeof(**peers))) == NULL) {
		rc = err_note_set(note, ENOMEM, "status reply");
		goto out;
	}
	cut(snap->role, sizeof(snap->role), m->role);
	cut(snap->name, sizeof(snap->name), m->name);
	cut(snap->host, sizeof(snap->host), m->host);
	cut(snap->version, sizeof(snap->version), m->version);
	cut(snap->state, sizeof(snap->state), m->state);
	cut(snap->phase, sizeof(snap->phase), m->phase);
	cut(snap->last_error, sizeof(snap->last_error), m->last_error);
	cut(snap->events_endpoint, sizeof(snap->events_endpoint), m->events_endpoint);
	snap->pid = m->pid;
	snap->step = m->step;
	snap->steps_total = m->steps_total;
	snap->uptime_s = m->uptime_s;
	for (size_t i = 0; i < m->n_metrics && snap->n_metrics < STATUS_METRICS_MAX; i++) {
		struct status_value *v = &snap->metrics[snap->n_metrics++];

		v->kind = m->metrics[i]->counter ? STATUS_COUNTER : STATUS_GAUGE;
		cut(v->name, sizeof(v->name), m->metrics[i]->name);
		cut(v->unit, sizeof(v->unit), m->metrics[i]->unit);
		v->value = m->metrics[i]->value;
	}
	for (; *n_peers < m->n_roster; (*n_peers)++) {
		const Salt__V1__StatusPeer *from = m->roster[*n_peers];
		struct wire_peer *p = &(*peers)[*n_peers];

		cut(p->name, sizeof(p->name), from->name);
		cut(p->host, sizeof(p->host), from->host);
		p->role = role_from(from->role);
		p->pid = from->pid;
		cut(p->status_endpoint, sizeof(p->status_endpoint), from->status_endpoint);
		p->age_s = from->age_s;
	}
out:
	mem_arena_destroy(&b.arena);
	return rc;
}
