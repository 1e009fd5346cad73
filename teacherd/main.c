#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/clock/stop.h"
#include "fabric/bus/bus.h"
#include "fabric/config/cli.h"
#include "fabric/config/config.h"
#include "base/log/log.h"
#include "fabric/daemon/presence.h"
#include "engine/infer/infer.h"
#include "teacherd/loop.h"

/* Models: teacher.model labels (and scores if it is the scorer), teacher.scorer scores, as far as teacher.serve goes. */
static int
open_models(const struct config *cfg, struct bus_waker *waker, struct infer **infer, struct err_note *note)
{
	bool scores = cfg->teacher.serve & CONFIG_SERVE_SCORE, labels = cfg->teacher.serve & CONFIG_SERVE_LABEL;
	struct infer_options io = {.kernels = {.backend = (enum kernels_backend)cfg->compute.backend,
	    .dtype = (enum kernels_dtype)cfg->compute.dtype}, .threads = (int)cfg->teacher.threads, .notify = bus_waker_notify, .notify_arg = waker};
	int rc;

	if ((rc = infer_new(infer, &io, note)) != 0)
		return rc;
	/* The teacher also scores: held-out windows always, the pool where it is its own scorer. */
	if ((rc = infer_add_model(*infer, cfg->teacher.model, true, labels, note)) != 0)
		return rc;
	if (scores && strcmp(cfg->teacher.scorer, cfg->teacher.model) != 0 &&
	    (rc = infer_add_model(*infer, cfg->teacher.scorer, true, false, note)) != 0)
		return rc;
	for (size_t i = 0; i < infer_n_models(*infer); i++) {
		const struct infer_model *m = infer_model(*infer, i);
		char hex[HASH_HEX_BYTES];

		log_info("model.loaded", "dir=%s fingerprint=%s params=%lld score=%d label=%d", m->dir, hash_hex(m->fingerprint, hex),
		    (long long)m->n_params, m->serves_score, m->serves_label);
	}
	log_info("engine", "compute=\"%s\" why=\"%s\" threads=%d", infer_describe(*infer), infer_reason(*infer), infer_threads(*infer));
	return 0;
}

int
main(int argc, char **argv)
{
	struct config_cli_option options[] = {{.name = "name", .arg = "NAME", .help = "name of this daemon in status and logs"}};
	struct config_cli cli = {.program = "teacherd", .purpose = "computes scores and soft labels for selectord",
	    .needs = CONFIG_NEED_TEACHER, .options = options, .n_options = 1};
	struct config *config = NULL;
	struct presence presence = {.bus = NULL};
	struct bus_waker *waker = NULL;
	struct infer *infer = NULL;
	char name[STATUS_TEXT_MAX];
	struct err_note note = {.name = ""};
	char text[1400], quoted[1600];
	int rc, exit_code = 0;

	log_init("teacherd", LOG_LEVEL_INFO);
	if ((rc = stop_install()) != 0)
		return err_exit_code(rc);
	if (config_cli_start(&cli, argc, argv, &config, &exit_code) != 0 || cli.check) {
		config_cli_free(&cli);
		config_destroy(&config);
		return exit_code;
	}
	log_init("teacherd", cli.verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
	if (options[0].value != NULL)
		snprintf(name, sizeof(name), "%s", options[0].value);
	else
		snprintf(name, sizeof(name), "teacherd-%.32s-%d", bus_host(), (int)getpid());
	if ((waker = bus_waker_new()) == NULL)
		rc = errno;
	else if ((rc = presence_open(&presence, config, "teacherd", name, BUS_ROLE_TEACHER, &note)) == 0 &&
	    (rc = open_models(config, waker, &infer, &note)) == 0) {
		struct loop_options lo = {.config = config, .bus = presence.bus, .infer = infer, .waker = waker, .status = presence.status,
		    .name = name, .status_endpoint = bus_status_endpoint(presence.socket)};

		presence_announce(&presence, NULL);
		rc = loop_run(&lo, &note);
	}
	config_cli_free(&cli);
	if (rc != 0) {
		log_error("failed", "why=%s", log_quote(err_note_str(&note, rc, text, sizeof(text)), quoted, sizeof(quoted)));
		exit_code = err_exit_code(rc);
	}
	infer_destroy(&infer);
	presence_close(&presence);
	bus_waker_destroy(&waker);
	config_destroy(&config);
	return exit_code;
}
