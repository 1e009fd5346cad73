/* SPDX-License-Identifier: Apache-2.0 */
#include "trainerd/comm_device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log/log.h"
#include "engine/kernels/kernels.h"
#include "engine/kernels/peers.h"
#include "trainerd/agree.h"

struct offer {
	char host[65];
	struct kernels_peers_offer peers;
};

/* On rank 0: checks that all ranks have the same library, and each a GPU of its own. */
static int
offers_fit(const struct offer *all, int n, struct err_note *note)
{
	for (int i = 1; i < n; i++) {
		if (strcmp(all[0].peers.library, all[i].peers.library) != 0)
			return err_expect(note, ERR_CONFIG, "NCCL", "one version on all ranks", "%s on rank 0 and %s on rank %d", all[0].peers.library,
			    all[i].peers.library, i);
		for (int j = 0; j < i; j++)
			if (strcmp(all[i].host, all[j].host) == 0 && strcmp(all[i].peers.device, all[j].peers.device) == 0)
				return err_expect(note, ERR_CONFIG, "NCCL",
				    "a separate GPU for each rank (CUDA_VISIBLE_DEVICES)",
				    "ranks %d and %d on %s of %s", j, i, all[i].peers.device, all[i].host);
	}
	return 0;
}

/* Collective. Rank 0 checks the offers of all ranks and makes an id. */
static int
choose(struct comm *comm, struct kernels *kernels, const struct offer *mine, void *id, struct err_note *note)
{
	struct offer *all = comm_rank(comm) == 0 ? calloc((size_t)comm_size(comm), sizeof(*all)) : NULL;
	int rc = 0;

	if (agree(comm, comm_rank(comm) == 0 && all == NULL ? ENOMEM : 0, note) != 0)
		return ENOMEM;
	comm_gather(comm, 0, mine, sizeof(*mine), all);
	if (comm_rank(comm) == 0 && (rc = offers_fit(all, comm_size(comm), note)) == 0)
		rc = kernels_peers_id(kernels, id, note);
	free(all);
	return rc;
}

bool
comm_device_peers(struct comm *comm, struct kernels *kernels)
{
	struct offer mine = {.host = ""};
	struct err_note note = {.name = ""};
	char id[KERNELS_PEERS_ID], why[1300], quoted[1400];
	int rc;

	if (comm_size(comm) == 1)
		return false;
	gethostname(mine.host, sizeof(mine.host) - 1);
	if ((rc = agree(comm, kernels_peers_find(kernels, &mine.peers, &note), &note)) == 0 &&
	    (rc = agree(comm, choose(comm, kernels, &mine, id, &note), &note)) == 0) {
		comm_bcast(comm, 0, id, sizeof(id));
		if ((rc = agree(comm, kernels_peers_open(kernels, id, comm_rank(comm), comm_size(comm), &note), &note)) != 0)
			kernels_peers_close(kernels);
	}
	if (comm_rank(comm) != 0 || rc == ERR_UNSUPPORTED)
		return rc == 0;
	if (rc == 0)
		log_info("ranks.exchange", "by=\"%s\" ranks=%d", mine.peers.library, comm_size(comm));
	else
		log_warn("ranks.exchange", "by=\"MPI through host memory\" why=%s hint=\"the results are the same, steps take longer\"",
		    log_quote(err_note_str(&note, rc, why, sizeof(why)), quoted, sizeof(quoted)));
	return rc == 0;
}
