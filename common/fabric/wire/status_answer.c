/* SPDX-License-Identifier: Apache-2.0 */
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

static bool
is_request(const void *body, size_t len)
{
	struct wire__budget b = {mem_arena_new(REQUEST_BUDGET), false};
	ProtobufCAllocator allocator = wire__allocator(&b);
	Salt__V1__StatusRequest *m = NULL;
	bool yes;

	if (b.arena != NULL && len <= 64)
		m = salt__v1__status_request__unpack(&allocator, len, body);
	yes = m != NULL && m->magic == STATUS_MAGIC;
	mem_arena_destroy(&b.arena);
	return yes;
}

/* The values that only grow are counters. */
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
	reply.gpu = text(snap->gpu);
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

	for (size_t i = 0; list != NULL && i < n_peers; i++) {
		const struct wire_peer *p = &peers[i];
		struct json *o = json_build("{s:o, s:s, s:o, s:I, s:o, s:o}", "name", json_new_text(p->name),
		    "role", wire_role_name(p->role), "host", json_new_text(p->host), "pid", (long long)p->pid,
		    "status_endpoint", json_new_text(p->status_endpoint), "age_s", json_new_num(p->age_s));

		if (json_push(list, o) != 0)
			json_close(&list);
	}
	return list;
}

/* The roster is inserted before the last brace of the object that status_json() makes. */
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
