#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/clock/stop.h"
#include "fabric/bus/bus.h"
#include "fabric/config/cli.h"
#include "fabric/config/config.h"
#include "base/log/log.h"
#include "fabric/daemon/notify.h"
#include "fabric/daemon/presence.h"
#include "trainerd/agree.h"
#include "trainerd/comm.h"
#include "trainerd/loop.h"
#include "trainerd/watchdog.h"

int
main(int argc, char **argv)
{
	struct config_cli cli = {.program = "trainerd", .purpose = "trains a model: mpirun -n R trainerd -c fleet.yaml",
	    .needs = CONFIG_NEED_RUN | CONFIG_NEED_CORPUS | CONFIG_NEED_TRAINER};
	struct config *config = NULL;
	struct presence presence = {.bus = NULL};
	struct watchdog_limit *limit;
	struct comm *comm = NULL;
	double limit_s;
	char name[64];
	struct err_note note = {.name = ""};
	char text[1400], quoted[1600];
	int rc, exit_code = 0;

	log_init("trainerd", LOG_LEVEL_INFO);
	if ((rc = stop_install()) != 0)
		return err_exit_code(rc);
	if (config_cli_start(&cli, argc, argv, &config, &exit_code) != 0 || cli.check) {
		config_cli_free(&cli);
		config_destroy(&config);
		return exit_code;
	}
	log_init("trainerd", cli.verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
	config_cli_free(&cli);
	limit_s = 10 * config->trainer.stall_s;
	limit = watchdog_limit("starting MPI", limit_s);
	rc = comm_init(&comm, &argc, &argv);
	watchdog_limit_end(&limit);
	if (rc != 0) {
		log_error("mpi.start", "rc=%d", rc);
		return err_exit_code(rc);
	}
	log_rank(comm_rank(comm));
	if (comm_rank(comm) != 0)
		notify_silence();	/* no rank goes on without the others: one speaks for all */
	snprintf(name, sizeof(name), "trainerd-%d", comm_rank(comm));
	/* A rank without its status socket must not leave the others waiting for it. */
	if ((rc = agree(comm, presence_open(&presence, config, "trainerd", name, BUS_ROLE_TRAINER, &note), &note)) == 0) {
		struct loop_options lo = {.config = config, .comm = comm, .bus = presence.bus, .status = presence.status, .name = name,
		    .status_endpoint = bus_status_endpoint(presence.socket)};

		presence_announce(&presence, NULL);
		rc = loop_run(&lo, &note);
	}
	if (rc != 0) {
		log_error(rc == ERR_STOPPED ? "run.stopped" : "run.failed", "why=%s",
		    log_quote(err_note_str(&note, rc, text, sizeof(text)), quoted, sizeof(quoted)));
		exit_code = err_exit_code(rc);
	}
	presence_close(&presence);
	config_destroy(&config);
	limit = watchdog_limit("ending MPI", limit_s);
	comm_finalize(&comm);
	watchdog_limit_end(&limit);
	return exit_code;
}
