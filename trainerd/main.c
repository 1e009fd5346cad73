/* SPDX-License-Identifier: Apache-2.0 */
/* trainerd - MPI around the training run. */
#include <stdio.h>

#include "base/cpus/cpus.h"
#include "base/log/log.h"
#include "fabric/daemon/daemon.h"
#include "trainerd/agree.h"
#include "trainerd/comm.h"
#include "trainerd/loop.h"
#include "trainerd/run.h"
#include "trainerd/watchdog.h"

CPUS_BOUND_SPIN;

/* One rank. Collective. */
static int
run_rank(struct daemon *d, struct comm *comm)
{
	char name[64];
	int rc;

	log_rank(comm_rank(comm));
	if (comm_rank(comm) != 0)
		daemon_notify_off();
	snprintf(name, sizeof(name), "trainerd-%d", comm_rank(comm));
	if ((rc = daemon_open_bus(d)) == 0)
		rc = daemon_open_status(d, name);
	/* All ranks fail together: the others would wait for one that has no status socket. */
	if ((rc = agree(comm, rc, &d->note)) == 0) {
		struct loop_options lo = {.config = d->config, .comm = comm, .bus = d->bus, .status = d->status, .name = name,
		    .status_endpoint = daemon_status_endpoint(d)};

		daemon_announce(d, NULL);
		rc = loop_run(&lo, &d->note);
	}
	return rc;
}

int
main(int argc, char **argv)
{
	struct daemon d = {.program = "trainerd", .purpose = "trains a model: mpirun -n R trainerd -c fleet.yaml",
	    .needs = CONFIG_NEED_RUN | CONFIG_NEED_CORPUS | CONFIG_NEED_TRAINER, .key = BUS_ROLE_TRAINER};
	struct watchdog *limit;
	struct comm *comm = NULL;
	double limit_s;
	int rc, exit_code;

	if (!daemon_start(&d, argc, argv))
		return daemon_end(&d, 0);
	if (d.check)
		return daemon_end(&d, run_check(d.config, &d.note));
	limit_s = 10 * d.config->trainer.stall_s;
	limit = watchdog_limit("starting MPI", limit_s);
	rc = comm_init(&comm, &argc, &argv);
	watchdog_destroy(&limit);
	if (rc != 0) {
		err_note_set(&d.note, rc, "MPI_Init");
		return daemon_end(&d, rc);
	}
	exit_code = daemon_end(&d, run_rank(&d, comm));
	limit = watchdog_limit("ending MPI", limit_s);
	comm_finalize(&comm);
	watchdog_destroy(&limit);
	return exit_code;
}
