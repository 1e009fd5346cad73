/* SPDX-License-Identifier: Apache-2.0 */
#include "saltctl/core/selector.h"

#include <errno.h>
#include <stdio.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/clock/stop.h"
#include "data/corpus/corpus.h"
#include "fabric/config/config.h"
#include "saltctl/core/fleet.h"

static int
open_corpus(const struct selector *s, const struct config *cfg, const char *prefix, uint32_t number,
    struct corpus **corpus, struct wire_corpus *out)
{
	struct err_note note = {.name = ""};
	struct hash128 fingerprint;
	int exit_code;

	if ((exit_code = ctl_open_corpus(s->args, &cfg->corpus, prefix, number, corpus, &fingerprint)) != 0)
		return exit_code;
	*out = session_corpus(*corpus, fingerprint, cfg->corpus.context, corpus_info(*corpus)->vocab,
	    (struct wire_id){.known = false});
	if (out->vocab_size == 0)
		return ctl_fail(s->args, err_expect(&note, ERR_MISMATCH, "%s",
		    "a corpus that states its vocabulary (PREFIX.json)", "%s", prefix, "one without"), &note);
	return 0;
}

int
selector_open(struct selector *s, const struct ctl_args *args, const struct config *cfg, size_t first,
    size_t n, uint64_t plan_rows)
{
	struct wire_hello hello = {.role = WIRE_ROLE_CLIENT, .max_message = (uint32_t)cfg->bus.max_message,
	    .label_set = session_label_set(cfg)};
	struct session_options so = {.endpoints = cfg->selector.endpoints.item + first, .n_shards = n,
	    .hello = &hello, .all_shards = n == cfg->selector.endpoints.n};
	struct err_note note = {.name = ""};
	int exit_code, rc;

	s->args = args;
	snprintf(hello.name, sizeof(hello.name), "saltctl-%d", (int)getpid());
	if ((exit_code = open_corpus(s, cfg, cfg->corpus.train, CORPUS_TRAIN, &s->train, &hello.corpus)) != 0)
		return exit_code;
	if (cfg->corpus.heldout[0] != '\0' &&
	    (exit_code = open_corpus(s, cfg, cfg->corpus.heldout, CORPUS_HELDOUT, &s->heldout,
	    &hello.heldout)) != 0)
		return exit_code;
	if (plan_rows > 0)
		hello.plan = session_plan(cfg, plan_rows, UINT64_MAX);
	if ((rc = stop_install()) != 0 || (rc = fleet_bus(&s->bus, cfg, &note)) != 0)
		return ctl_fail(args, rc, &note);
	if ((s->poll = bus_poll_new(s->bus)) == NULL)
		return ctl_fail(args, errno, NULL);
	so.bus = s->bus;
	so.poll = s->poll;
	return (rc = session_new(&s->session, &so, &note)) != 0 ? ctl_fail(args, rc, &note) : 0;
}

void
selector_close(struct selector *s)
{
	session_destroy(&s->session);
	bus_poll_destroy(&s->poll);
	bus_destroy(&s->bus);
	corpus_destroy(&s->heldout);
	corpus_destroy(&s->train);
}

int
selector_failed(const struct selector *s, const struct session_event *event)
{
	if (event->kind == SESSION_FAILED)
		return ctl_fail(s->args, event->rc, &event->note);
	if (event->kind != SESSION_KEY_REFUSED)
		return 0;
	fprintf(stderr,
	    "saltctl %s: selectord at %s does not accept our key (client.key in security.curve_dir)\n",
	    s->args->verb->name, session_endpoint(s->session, event->shard));
	return EX_NOPERM;
}
