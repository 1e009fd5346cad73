/* SPDX-License-Identifier: Apache-2.0 */
/* teacherd - its models and the main loop. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log/log.h"
#include "engine/infer/infer.h"
#include "fabric/daemon/daemon.h"
#include "teacherd/loop.h"

/* Adds to the note that with a declared compute class the model may be meant for another teacher. */
static int
refused(const struct config *cfg, int rc, const char *key, struct err_note *note)
{
	char found[sizeof(note->found)];

	snprintf(found, sizeof(found), "%.120s", note->found);
	if (rc == ERR_UNSUPPORTED && config_compute_class(cfg) != NULL)
		err_note_found(note, "%s; teacherd cannot compute this model: start a teacher that can, and set deploy.teachers: 0", found);
	return err_note_within(note, rc, key);
}

/*
 * Loads the models that teacher.serve needs. teacher.model computes labels, the scores of held-out sequences,
 * and all scores if teacher.scorer is the same model.
 */
static int
open_models(const struct config *cfg, struct bus_waker *waker, struct infer **infer, struct err_note *note)
{
	bool scores = cfg->teacher.serve & CONFIG_SERVE_SCORE, labels = cfg->teacher.serve & CONFIG_SERVE_LABEL;
	struct infer_options io = {.kernels = {.backend = (enum kernels_backend)cfg->compute.backend}, .threads = (int)cfg->teacher.threads,
	    .compute_class = config_compute_class(cfg), .notify = bus_waker_notify, .notify_arg = waker};
	enum config_dtype dtype;
	int rc;

	if ((rc = config_teacher_dtype(cfg, &dtype, note)) != 0)
		return rc;
	io.kernels.dtype = (enum kernels_dtype)dtype;
	if ((rc = infer_new(infer, &io, note)) != 0)
		return rc;
	if ((rc = infer_add_model(*infer, cfg->teacher.model, true, labels, note)) != 0)
		return refused(cfg, rc, "teacher.model", note);
	if (scores && strcmp(cfg->teacher.scorer, cfg->teacher.model) != 0 &&
	    (rc = infer_add_model(*infer, cfg->teacher.scorer, true, false, note)) != 0)
		return refused(cfg, rc, "teacher.scorer", note);
	if (cfg->corpus.context > 0 &&
	    (rc = infer_room(*infer, cfg->corpus.context, cfg->labels.kind == LABELS_KIND_DENSE, note)) != 0)
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
	static const struct cli_option options[] = {
		{"name", "NAME", "name of this daemon in status and logs", false, 0},
		CLI_END
	};
	struct daemon d = {.program = "teacherd", .purpose = "computes scores and soft labels for selectord",
	    .needs = CONFIG_NEED_TEACHER, .key = BUS_ROLE_TEACHER, .options = options};
	struct bus_waker *waker = NULL;
	struct infer *infer = NULL;
	struct kernels_device gpu;
	char name[STATUS_TEXT_MAX];
	int rc;

	if (!daemon_start(&d, argc, argv))
		return daemon_end(&d, 0);
	if (cli_get(&d.args, "name") != NULL)
		snprintf(name, sizeof(name), "%s", cli_get(&d.args, "name"));
	else
		snprintf(name, sizeof(name), "teacherd-%.32s-%d", bus_host(), (int)getpid());
	if ((waker = bus_waker_new()) == NULL)
		rc = errno;
	else if ((rc = daemon_open_bus(&d)) == 0 && (rc = daemon_open_status(&d, name)) == 0)
		daemon_announce(&d, NULL);		/* from here on other processes on its GPU can
							   identify it */
	if (rc == 0 && (rc = open_models(d.config, waker, &infer, &d.note)) == 0 && !d.check) {
		struct loop_options lo = {.config = d.config, .bus = d.bus, .infer = infer, .waker = waker, .status = d.status,
		    .name = name, .status_endpoint = daemon_status_endpoint(&d)};

		if (infer_device(infer, &gpu))
			daemon_gpu(d.status, d.config->run.dir, gpu.name, gpu.pci_bus_id, gpu.memory_bytes,
			    gpu.free_bytes);
		rc = loop_run(&lo, &d.note);
	}
	daemon_close_status(&d);
	infer_destroy(&infer);
	rc = daemon_end(&d, rc);
	bus_waker_destroy(&waker);
	return rc;
}
