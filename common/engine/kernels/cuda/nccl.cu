/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nccl - transfers between ranks (engine/kernels/peers.h) by NCCL, which is opened at run time. Only sends
 * and receives are used: the caller determines the order of sums, and so the bits. The few declarations are
 * copied from NCCL's header, whose ABI is stable within libnccl.so.2:
 * https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/api.html
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/kernels/cuda/cuda.h"
extern "C" {
#include "base/err/err.h"
#include "engine/kernels/peers.h"
}

#define VARIABLE "SALT_NCCL"
#define LIBRARY "libnccl.so.2"
#define FIRST_VERSION 20700		/* the first with ncclSend and ncclRecv */
#define HINT "NCCL_DEBUG=INFO shows more; " VARIABLE "=none lets ranks exchange through host memory and MPI"

typedef struct ncclComm *ncclComm_t;
typedef struct {
	char internal[KERNELS_PEERS_ID];
} ncclUniqueId;
typedef int ncclResult_t;
enum { ncclSuccess = 0, ncclInProgress = 7 };
enum { ncclInt8 = 0 };

/* The library, opened once per process. */
static struct {
	void *handle;
	int version;
	ncclResult_t (*get_version)(int *version);
	ncclResult_t (*get_unique_id)(ncclUniqueId *id);
	ncclResult_t (*comm_init_rank)(ncclComm_t *comm, int n_ranks, ncclUniqueId id, int rank);
	ncclResult_t (*comm_destroy)(ncclComm_t comm);
	ncclResult_t (*comm_get_async_error)(ncclComm_t comm, ncclResult_t *error);
	ncclResult_t (*send)(const void *buffer, size_t count, int type, int peer, ncclComm_t comm, cudaStream_t stream);
	ncclResult_t (*recv)(void *buffer, size_t count, int type, int peer, ncclComm_t comm, cudaStream_t stream);
	ncclResult_t (*group_start)();
	ncclResult_t (*group_end)();
	const char *(*get_error_string)(ncclResult_t rc);
	const char *(*get_last_error)(ncclComm_t comm);		/* NULL before 2.13 */
} nccl;

struct cuda_peers {
	ncclComm_t comm;
	cudaStream_t stream;
	cudaEvent_t computed, moved;
};

static struct cuda_peers *
peers_of(struct kernels *k)
{
	return cuda_of(k)->peers;
}

/* ---- the library ---- */

template <typename F> static bool
symbol(F *function, const char *name)
{
	void *p = dlsym(nccl.handle, name);

	memcpy(function, &p, sizeof(p));
	return p != NULL;
}

static int
load(struct err_note *note)
{
	const char *named = getenv(VARIABLE), *file = named != NULL && named[0] != '\0' ? named : LIBRARY;

	if (nccl.handle != NULL)
		return 0;
	if (strcmp(file, "none") == 0)
		return err_expect(note, ERR_CONFIG, "NCCL", LIBRARY, VARIABLE "=none, which forbids it");
	if ((nccl.handle = dlopen(file, RTLD_NOW | RTLD_LOCAL)) == NULL)
		return err_expect(note, ERR_CONFIG, "NCCL", LIBRARY ", where the dynamic linker finds it or " VARIABLE " names it", "%.192s", dlerror());
	if (!symbol(&nccl.get_version, "ncclGetVersion") || !symbol(&nccl.get_unique_id, "ncclGetUniqueId") ||
	    !symbol(&nccl.comm_init_rank, "ncclCommInitRank") || !symbol(&nccl.comm_destroy, "ncclCommDestroy") ||
	    !symbol(&nccl.comm_get_async_error, "ncclCommGetAsyncError") || !symbol(&nccl.send, "ncclSend") || !symbol(&nccl.recv, "ncclRecv") ||
	    !symbol(&nccl.group_start, "ncclGroupStart") || !symbol(&nccl.group_end, "ncclGroupEnd") ||
	    !symbol(&nccl.get_error_string, "ncclGetErrorString") || nccl.get_version(&nccl.version) != ncclSuccess || nccl.version < FIRST_VERSION) {
		dlclose(nccl.handle);
		nccl.handle = NULL;
		return err_expect(note, ERR_CONFIG, "NCCL", "version 2.7 or later, which sends and receives", "%.128s, version code %d", file, nccl.version);
	}
	(void)symbol(&nccl.get_last_error, "ncclGetLastError");
	return 0;
}

static const char *
detail(ncclComm_t comm)
{
	const char *s = nccl.get_last_error != NULL ? nccl.get_last_error(comm) : NULL;

	return s != NULL ? s : "";
}

static void
check(struct kernels *k, ncclResult_t rc, const char *call)
{
	if (rc != ncclSuccess && rc != ncclInProgress)
		log_fatal("kernels.nccl", "call=%s error=\"%s\" detail=\"%.200s\" hint=\"" HINT "\"", call, nccl.get_error_string(rc), detail(peers_of(k)->comm));
}
#define NCCL(k, name, ...) check((k), nccl.name(__VA_ARGS__), #name)

/* ---- functions of the table ---- */

static int
find(struct kernels *, struct kernels_peers_offer *offer, struct err_note *note)
{
	int rc = load(note);

	if (rc != 0)
		return rc;
	/* Version 2.27.3 has the code 22703. */
	snprintf(offer->library, sizeof(offer->library), "NCCL %d.%d.%d", nccl.version / 10000, nccl.version / 100 % 100, nccl.version % 100);
	memset(offer->device, 0, sizeof(offer->device));
	CUDA_CALL(cudaDeviceGetPCIBusId(offer->device, (int)sizeof(offer->device), 0));
	return 0;
}

static int
new_id(struct kernels *, void *id, struct err_note *note)
{
	ncclUniqueId made;
	ncclResult_t rc = nccl.get_unique_id(&made);

	if (rc != ncclSuccess)
		return err_expect(note, ERR_LIBRARY, "ncclGetUniqueId", "an id", "%s; %.200s", nccl.get_error_string(rc), detail(NULL));
	memcpy(id, &made, sizeof(made));
	return 0;
}

static void
close(struct kernels *k)
{
	struct cuda_peers *p = peers_of(k);

	if (p == NULL)
		return;
	if (p->stream != NULL)
		CUDA_CALL(cudaStreamSynchronize(p->stream));
	if (p->comm != NULL)
		(void)nccl.comm_destroy(p->comm);
	if (p->computed != NULL)
		CUDA_CALL(cudaEventDestroy(p->computed));
	if (p->moved != NULL)
		CUDA_CALL(cudaEventDestroy(p->moved));
	if (p->stream != NULL)
		CUDA_CALL(cudaStreamDestroy(p->stream));
	free(p);
	cuda_of(k)->peers = NULL;
}

static int
open(struct kernels *k, const void *id, int rank, int n_ranks, struct err_note *note)
{
	struct cuda_peers *p = (struct cuda_peers *)calloc(1, sizeof(*p));
	ncclUniqueId given;
	ncclResult_t rc;

	if (p == NULL)
		return ENOMEM;
	cuda_of(k)->peers = p;
	memcpy(&given, id, sizeof(given));
	CUDA_CALL(cudaStreamCreateWithFlags(&p->stream, cudaStreamNonBlocking));
	CUDA_CALL(cudaEventCreateWithFlags(&p->computed, cudaEventDisableTiming));
	CUDA_CALL(cudaEventCreateWithFlags(&p->moved, cudaEventDisableTiming));
	if ((rc = nccl.comm_init_rank(&p->comm, n_ranks, given, rank)) == ncclSuccess)
		return 0;
	p->comm = NULL;
	err_expect(note, ERR_LIBRARY, "ncclCommInitRank", "a communicator of all ranks", "%s; %.200s", nccl.get_error_string(rc), detail(NULL));
	close(k);
	return ERR_LIBRARY;
}

static void
begin(struct kernels *k)
{
	struct cuda_peers *p = peers_of(k);

	CUDA_CALL(cudaEventRecord(p->computed, cuda_of(k)->stream));
	CUDA_CALL(cudaStreamWaitEvent(p->stream, p->computed, 0));
}

static void
end(struct kernels *k)
{
	struct cuda_peers *p = peers_of(k);
	ncclResult_t error = ncclSuccess;

	CUDA_CALL(cudaEventRecord(p->moved, p->stream));
	CUDA_CALL(cudaStreamWaitEvent(cuda_of(k)->stream, p->moved, 0));
	NCCL(k, comm_get_async_error, p->comm, &error);
	check(k, error, "a transfer");
}

static void
exchange(struct kernels *k, int partner, const void *out, size_t n_out, void *in, size_t n_in)
{
	struct cuda_peers *p = peers_of(k);

	NCCL(k, group_start);
	if (n_out > 0)
		NCCL(k, send, out, n_out, ncclInt8, partner, p->comm, p->stream);
	if (n_in > 0)
		NCCL(k, recv, in, n_in, ncclInt8, partner, p->comm, p->stream);
	NCCL(k, group_end);
}

static void
add(struct kernels *k, float *y, const float *x, int64_t n)
{
	struct cuda *own = cuda_of(k);
	cudaStream_t compute = own->stream;

	own->stream = own->peers->stream;
	cuda__accumulate(k, y, x, n);
	own->stream = compute;
}

const struct kernels_peers_ops cuda__peers = {
    .find = find,
    .id = new_id,
    .open = open,
    .close = close,
    .begin = begin,
    .end = end,
    .exchange = exchange,
    .add = add,
};
