/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nccl - stands for libnccl.so.2 beside the emulated plug-in: sends and receives as operations of a stream, which run when the host waits for it
 * and then wait for their partner. Named pipes in a folder of TMPDIR, which the id names, carry the data. A message begins with its size: partners
 * that disagree end with status 86. NCCL_EMU=old, refuse (ncclCommInitRank) or broken (an asynchronous error): what real ones do.
 * eager: transfers run at once and not as late as they may, so that one which does not wait for its data sends what was there before.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "cuda_runtime.h"

#define STATUS 86
#define API extern "C" __attribute__((visibility("default")))

typedef int result;
enum { SUCCESS = 0, SYSTEM_ERROR = 2, INVALID_USAGE = 5 };
struct unique_id {
	char internal[128];
};

struct transfer {
	char *p;
	size_t n, at;				/* bytes, those of the size in front included */
	uint64_t size;
	int fd;
	bool out;
};

struct communicator {
	std::string folder;
	int rank, n_ranks;
	std::vector<int> to, from;
	cudaStream_t stream;			/* of the group that is open */
	std::vector<transfer> group;
};

static int depth;
static std::vector<communicator *> grouped;
static decltype(&cuda_emu_library_call) library_call;
static void (*library_wait)(cudaStream_t s);
static decltype(&cuda_emu_library_range) library_range;

static bool
machine(const char *word)
{
	const char *s = getenv("NCCL_EMU");

	return s != NULL && strcmp(s, word) == 0;
}

__attribute__((noreturn)) static void
report(const char *what)
{
	fprintf(stderr, "cuda_emu: NCCL: %s\n", what);
	_exit(STATUS);
}

static int
pipe_of(const std::string &folder, int from, int to)
{
	std::string path = folder + "/" + std::to_string(from) + "_" + std::to_string(to);
	int fd;

	if ((mkfifo(path.c_str(), 0600) != 0 && errno != EEXIST) || (fd = open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC)) < 0)
		report("no pipe between two ranks");
	return fd;
}

/* As far as it goes now. */
static void
move(transfer *t)
{
	bool head = t->at < sizeof(t->size);
	char *at = head ? (char *)&t->size + t->at : t->p + (t->at - sizeof(t->size));
	size_t want = head ? sizeof(t->size) - t->at : t->n - t->at;
	ssize_t n = t->out ? write(t->fd, at, want) : read(t->fd, at, want);

	if (n > 0)
		t->at += (size_t)n;
	else if (n < 0 && errno != EAGAIN && errno != EINTR)
		report("a pipe between two ranks fails");
	if (!t->out && t->at == sizeof(t->size) && t->size != t->n - sizeof(t->size))
		report("a message has another size than its receiver asked for");
}

static void
run_group(void *arg)
{
	auto *all = (std::vector<transfer> *)arg;

	for (auto &t : *all)
		library_range(t.p, t.n - sizeof(t.size), !t.out, t.out ? "ncclSend from memory of nobody" : "ncclRecv into memory of nobody");
	for (bool more = true; more;) {
		std::vector<pollfd> wait;

		for (auto &t : *all)
			if (t.at < t.n) {
				move(&t);
				wait.push_back({t.fd, (short)(t.out ? POLLOUT : POLLIN), 0});
			}
		more = !wait.empty();
		if (more)
			(void)poll(wait.data(), wait.size(), 100);
	}
	delete all;
}

API result
ncclGetVersion(int *version)
{
	*version = machine("old") ? 2604 : 22703;
	return SUCCESS;
}

API result
ncclGetUniqueId(struct unique_id *id)
{
	const char *tmp = getenv("TMPDIR");

	memset(id, 0, sizeof(*id));
	snprintf(id->internal, sizeof(id->internal), "%s/nccl_emu.XXXXXX", tmp != NULL ? tmp : "/tmp");
	return mkdtemp(id->internal) != NULL ? SUCCESS : SYSTEM_ERROR;
}

API result
ncclCommInitRank(struct communicator **out, int n_ranks, struct unique_id id, int rank)
{
	void *plugin = dlopen(getenv("SALT_CUDA_PLUGIN"), RTLD_NOW | RTLD_NOLOAD);
	struct communicator *c = new communicator{id.internal, rank, n_ranks, {}, {}, NULL, {}};

	*out = NULL;
	if (machine("refuse")) {
		delete c;
		return INVALID_USAGE;
	}
	if (plugin == NULL || (library_call = (decltype(library_call))dlsym(plugin, "cuda_emu_library_call")) == NULL ||
	    (library_wait = (decltype(library_wait))dlsym(plugin, "cuda_emu_library_wait")) == NULL ||
	    (library_range = (decltype(library_range))dlsym(plugin, "cuda_emu_library_range")) == NULL)
		report("SALT_CUDA_PLUGIN is not the emulated plug-in");
	for (int r = 0; r < n_ranks; r++) {
		c->to.push_back(pipe_of(c->folder, rank, r));
		c->from.push_back(pipe_of(c->folder, r, rank));
	}
	/* All are here, and have opened their pipes, before one goes on. */
	for (int r = 0; r < n_ranks; r++)
		if (write(c->to[(size_t)r], "!", 1) != 1)
			report("a pipe between two ranks fails");
	for (int r = 0; r < n_ranks; r++) {
		struct pollfd wait = {c->from[(size_t)r], POLLIN, 0};
		char byte;

		while (read(wait.fd, &byte, 1) != 1)
			(void)poll(&wait, 1, 100);
	}
	*out = c;
	return SUCCESS;
}

API result
ncclCommDestroy(struct communicator *c)
{
	for (int r = 0; r < c->n_ranks; r++) {
		std::string path = c->folder + "/" + std::to_string(c->rank) + "_" + std::to_string(r);

		close(c->to[(size_t)r]);
		close(c->from[(size_t)r]);
		unlink(path.c_str());
	}
	rmdir(c->folder.c_str());		/* the last one succeeds */
	delete c;
	return SUCCESS;
}

API result
ncclCommGetAsyncError(struct communicator *, result *error)
{
	*error = machine("broken") ? SYSTEM_ERROR : SUCCESS;
	return SUCCESS;
}

static result
give(struct communicator *c, cudaStream_t s, int fd, void *p, size_t n, bool out)
{
	if (depth == 0)
		report("a transfer outside a group");
	if (c->group.empty())
		grouped.push_back(c);
	else if (c->stream != s)
		report("two streams in a group");
	c->stream = s;
	c->group.push_back({(char *)p, n + sizeof(uint64_t), 0, out ? n : 0, fd, out});
	return SUCCESS;
}

API result
ncclSend(const void *p, size_t n, int type, int peer, struct communicator *c, cudaStream_t s)
{
	if (type != 0)
		report("a type that is not emulated");
	return give(c, s, c->to[(size_t)peer], (void *)p, n, true);
}

API result
ncclRecv(void *p, size_t n, int type, int peer, struct communicator *c, cudaStream_t s)
{
	if (type != 0)
		report("a type that is not emulated");
	return give(c, s, c->from[(size_t)peer], p, n, false);
}

API result
ncclGroupStart()
{
	depth++;
	return SUCCESS;
}

API result
ncclGroupEnd()
{
	if (--depth > 0)
		return SUCCESS;
	for (auto *c : grouped) {
		library_call(c->stream, run_group, new std::vector<transfer>(std::move(c->group)));
		c->group.clear();
		if (machine("eager"))
			library_wait(c->stream);
	}
	grouped.clear();
	return SUCCESS;
}

API const char *
ncclGetErrorString(result rc)
{
	return rc == INVALID_USAGE ? "invalid usage" : "unhandled system error";
}

API const char *
ncclGetLastError(struct communicator *)
{
	return "said by the emulation";
}
