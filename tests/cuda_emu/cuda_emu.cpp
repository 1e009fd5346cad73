/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda_emu - runs kernels that g++ compiled, one block after another, its threads as fibers, and checks every memory access of theirs.
 * The compiler reports accesses through the calls that -fsanitize=thread inserts; this file defines them. README.md describes the checks. host.cpp
 * has what the host calls.
 */
#undef _FORTIFY_SOURCE			/* its longjmp knows no stacks but the first */
#include <errno.h>
#include <execinfo.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <vector>

#include "cuda_emu_internal.h"

using namespace cuda_emu;

#define STATUS 86
#define WARP 32
#define MAX_THREADS 1024
#define STACK ((size_t)128 << 10)
#define STATIC_SHARED ((size_t)48 << 10)
#define CELL 2					/* bytes of a shadow cell */
#define MANY 0xffff

/* What happened last to two bytes. Intervals are numbered over the process: each block starts one, and so does each barrier. */
struct cell {
	uint32_t written, read;			/* interval; 0: never, 1: by a copy */
	uint16_t writer, reader;		/* thread of the block; MANY readers */
};

enum state { READY, AT_BARRIER, IN_WARP, DONE };

struct fiber {
	jmp_buf left;				/* where it goes on, once it has begun */
	bool begun;
	char *stack;
	enum state state;
	uint3 thread;
	int index;
	const void *site;			/* of the barrier or warp operation that it waits at */
	unsigned mask;
	const void *in;
	void *out;
	struct copy {
		void *to;
		const void *from;
		size_t bytes;
	};
	std::vector<std::vector<copy>> groups;	/* of cp.async, committed and not waited for */
	std::vector<copy> group;
};

namespace cuda_emu {
std::recursive_mutex lock;
uintptr_t device;
uint32_t *owner;
std::vector<allocation> allocations(1);
}
static struct cell *cells, *shared_cells;
static std::map<const void *, size_t> shared_limits;

static struct {
	dim3 grid, block;
	uint3 at;
	const void *kernel;
	uintptr_t parameters;
	size_t parameter_bytes, dynamic_bytes;
	void (*run)(void *);
	int n;
	uint32_t launch_start, block_start;	/* intervals */
	std::map<std::tuple<const char *, int>, std::pair<size_t, size_t>> arrays;	/* __shared__ of this block: offset, bytes */
	size_t shared_used;
} now;
static uint32_t interval = 1;
static struct fiber *fibers;
/* Of the thread that runs a kernel; what other threads of the process access meanwhile is their own. */
static thread_local struct fiber *self __attribute__((tls_model("initial-exec")));
static char *stacks;
static jmp_buf scheduler;
static uintptr_t shared_memory;
static uint64_t seed, drawn;

__attribute__((noreturn)) void
cuda_emu::report(const char *what, const void *p)
{
	void *calls[16];
	char line[400], where[160] = "";
	int n;

	if (self != NULL)
		snprintf(where, sizeof(where), ", block (%u, %u, %u), thread (%u, %u, %u)", now.at.x, now.at.y, now.at.z, self->thread.x,
		    self->thread.y, self->thread.z);
	n = snprintf(line, sizeof(line), "cuda_emu: %s: address %p%s\n", what, p, where);
	if (write(STDERR_FILENO, line, (size_t)n) == n)
		backtrace_symbols_fd(calls, backtrace(calls, 16), STDERR_FILENO);
	_exit(STATUS);
}

static void
fault(int number, siginfo_t *info, void *context)
{
	(void)context;
	if (on_device((uintptr_t)info->si_addr))
		report("the host accesses device memory", info->si_addr);
	if ((char *)info->si_addr >= stacks && (char *)info->si_addr < stacks + MAX_THREADS * STACK)
		report("a thread's stack is full", info->si_addr);
	signal(number, SIG_DFL);
}

static void *
reserve(size_t bytes, int access)
{
	void *p = mmap(NULL, bytes, access, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED) {
		perror("cuda_emu: no address space");
		exit(STATUS);
	}
	return p;
}

__attribute__((constructor)) static void
start()
{
	static char room[64 << 10];
	stack_t other = {};
	struct sigaction action = {};
	const char *s = getenv("CUDA_EMU_SEED");
	void *calls[1];

	seed = s != NULL ? strtoull(s, NULL, 10) : 0;
	device = (uintptr_t)reserve(DEVICE_BYTES, PROT_NONE);
	owner = (uint32_t *)reserve(DEVICE_BYTES / GRANULE * sizeof(*owner), PROT_READ | PROT_WRITE);
	cells = (struct cell *)reserve(DEVICE_BYTES / CELL * sizeof(*cells), PROT_READ | PROT_WRITE);
	shared_memory = (uintptr_t)reserve(SHARED_BYTES, PROT_READ | PROT_WRITE);
	shared_cells = (struct cell *)reserve(SHARED_BYTES / CELL * sizeof(*cells), PROT_READ | PROT_WRITE);
	stacks = (char *)reserve(MAX_THREADS * STACK, PROT_READ | PROT_WRITE);
	fibers = new fiber[MAX_THREADS]();
	for (int i = 0; i < MAX_THREADS; i++) {
		fibers[i].stack = stacks + (size_t)i * STACK;
		mprotect(fibers[i].stack, PAGE, PROT_NONE);
	}
	other.ss_sp = room;
	other.ss_size = sizeof(room);
	sigaltstack(&other, NULL);
	action.sa_sigaction = fault;
	action.sa_flags = SA_SIGINFO | SA_ONSTACK;
	sigaction(SIGSEGV, &action, NULL);
	(void)backtrace(calls, 1);		/* loads what it needs before a fault */
}

/* ---- accesses of kernels ---- */

static void
mark(struct cell *c, size_t bytes, uintptr_t p, bool write)
{
	uint32_t newest = interval;
	uint16_t me = (uint16_t)self->index;
	const void *at = (const void *)p;

	for (size_t i = 0; i < (bytes + CELL - 1) / CELL; i++, c++) {
		if (c->written >= now.launch_start) {
			if (c->written < now.block_start)
				report(write ? "race: written by two blocks of a launch" : "race: read after another block of the launch wrote it", at);
			if (c->written == newest && c->writer != me)
				report(write ? "race: written by two threads without a barrier between them" :
				    "race: read without a barrier after another thread wrote it", at);
		}
		if (!write) {
			if (c->written == 0)
				report("read of what nobody has written yet, without a barrier or at all", at);
			c->reader = c->read == newest && c->reader != me ? MANY : me;
			c->read = newest;
			continue;
		}
		if (c->read >= now.launch_start && c->read < now.block_start)
			report("race: written after another block of the launch read it", at);
		if (c->read == newest && c->reader != me)
			report("race: written without a barrier after another thread read it", at);
		c->written = newest;
		c->writer = me;
	}
}

static void
in_shared(uintptr_t p, size_t bytes)
{
	size_t at = p - shared_memory;

	if (at + bytes <= now.dynamic_bytes)
		return;
	for (const auto &a : now.arrays)
		if (at >= a.second.first && at + bytes <= a.second.first + a.second.second)
			return;
	report("access outside the arrays of shared memory", (const void *)p);
}

static const struct allocation *
allocation_of(uintptr_t p, size_t bytes, const char *who)
{
	const struct allocation *a = &allocations[owner[(p - device) / GRANULE]];

	if (a->begin == 0 || p < a->begin || p + bytes > a->end)
		report(who, (const void *)p);
	if (!a->live)
		report("access to device memory that was freed", (const void *)p);
	return a;
}

static void
access(const void *address, size_t bytes, size_t align, bool write)
{
	uintptr_t p = (uintptr_t)address;

	if (self == NULL || p - (uintptr_t)self->stack < STACK)
		return;					/* the host's accesses end in fault(); a thread's own stack is its own */
	if (p % align != 0)
		report("misaligned access", address);
	if (p - shared_memory < SHARED_BYTES) {
		in_shared(p, bytes);
		mark(shared_cells + (p - shared_memory) / CELL, bytes, p, write);
	} else if (on_device(p)) {
		allocation_of(p, bytes, "access outside every allocation of device memory");
		mark(cells + (p - device) / CELL, bytes, p, write);
	} else if (p - now.parameters < now.parameter_bytes) {
		if (write)
			report("write to a parameter of the kernel", address);
	} else if (p - (uintptr_t)stacks < MAX_THREADS * STACK) {
		report("access to another thread's local memory", address);
	} else {
		report("a kernel accesses host memory", address);
	}
}

#define HOOKS(n)											\
	extern "C" void __tsan_read##n(void *p) { access(p, n, 1, false); }				\
	extern "C" void __tsan_write##n(void *p) { access(p, n, 1, true); }				\
	extern "C" void __tsan_unaligned_read##n(void *p) { access(p, n, 1, false); }			\
	extern "C" void __tsan_unaligned_write##n(void *p) { access(p, n, 1, true); }
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)

extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void *) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_vptr_update(void **, void *) {}
extern "C" void __tsan_vptr_read(void **) {}
extern "C" void __tsan_read_range(void *p, size_t n) { access(p, n, 1, false); }
extern "C" void __tsan_write_range(void *p, size_t n) { access(p, n, 1, true); }

/* -fsanitize=alignment: before an access through a pointer that is not aligned to its type. */
extern "C" void
__ubsan_handle_type_mismatch_v1_abort(void *, uintptr_t p)
{
	report("misaligned access", (const void *)p);
}

void
cuda_emu_load(void *to, const void *from, size_t bytes)
{
	access(from, bytes, bytes, false);
	memcpy(to, from, bytes);
}

void
cuda_emu_store(void *to, const void *from, size_t bytes)
{
	access(to, bytes, bytes, true);
	memcpy(to, from, bytes);
}

/* ---- threads ---- */

uint3
cuda_emu_thread()
{
	return self->thread;
}

uint3
cuda_emu_block()
{
	return now.at;
}

dim3
cuda_emu_block_dim()
{
	return now.block;
}

dim3
cuda_emu_grid_dim()
{
	return now.grid;
}

static __attribute__((noinline)) void
leave(enum state state)
{
	struct fiber *f = self;

	f->state = state;
	if (_setjmp(f->left) == 0)
		_longjmp(scheduler, 1);
}

static void
thread_main()
{
	for (;;) {				/* once for each block */
		now.run((void *)now.parameters);
		if (!self->group.empty() || !self->groups.empty())
			report("a thread ends with cp.async under way", NULL);
		leave(DONE);
	}
}

/* Lets the fiber self run until it leaves. A context is entered once, by ucontext; jumps then take no calls of the system, as swapcontext does. */
static __attribute__((noinline)) void
resume()
{
	static ucontext_t context;

	if (_setjmp(scheduler) != 0)
		return;
	if (self->begun)
		_longjmp(self->left, 1);
	self->begun = true;
	getcontext(&context);
	context.uc_stack.ss_sp = self->stack;
	context.uc_stack.ss_size = STACK;
	context.uc_link = NULL;
	makecontext(&context, thread_main, 0);
	setcontext(&context);
}

void
__syncthreads()
{
	self->site = __builtin_return_address(0);
	leave(AT_BARRIER);
}

/* Waits until all lanes of mask are here with the same operation. The last one gets true and does the work; lanes: the warp's. */
static bool
gather(unsigned mask, const void *site, const void *in, void *out, struct fiber **lanes)
{
	struct fiber *warp = fibers + self->index / WARP * WARP;
	int n = std::min(WARP, now.n - self->index / WARP * WARP);

	if (!(mask >> self->index % WARP & 1))
		report("a lane outside the mask takes part in a warp operation", NULL);
	self->site = site;
	self->mask = mask;
	self->in = in;
	self->out = out;
	*lanes = warp;
	for (int i = 0; i < n; i++) {
		if (!(mask >> i & 1) || &warp[i] == self)
			continue;
		if (warp[i].state != IN_WARP) {
			leave(IN_WARP);
			return false;
		}
		if (warp[i].site != site || warp[i].mask != mask)
			report("lanes of a warp wait at different operations", NULL);
	}
	if (n < WARP && mask >> n != 0)
		report("the mask names lanes that the block does not have", NULL);
	for (int i = 0; i < n; i++)
		if (mask >> i & 1)
			warp[i].state = READY;
	return true;
}

void
cuda_emu_shuffle(unsigned mask, enum cuda_emu_shuffle kind, int by, const void *in, void *out, size_t bytes)
{
	struct fiber *warp;

	if (!gather(mask, __builtin_return_address(0), in, out, &warp))
		return;
	for (int i = 0; i < WARP; i++) {
		int from = kind == CUDA_EMU_XOR ? i ^ by : kind == CUDA_EMU_DOWN ? (i + by < WARP ? i + by : i) : by % WARP;

		if (!(mask >> i & 1))
			continue;
		if (!(mask >> from & 1))
			report("a shuffle reads a lane outside the mask", NULL);
		memcpy(warp[i].out, warp[from].in, bytes);
	}
}

unsigned
__ballot_sync(unsigned mask, int predicate)
{
	unsigned out = 0, all = 0;
	struct fiber *warp;

	if (!gather(mask, __builtin_return_address(0), &predicate, &out, &warp))
		return out;
	for (int i = 0; i < WARP; i++)
		if (mask >> i & 1)
			all |= (unsigned)(*(const int *)warp[i].in != 0) << i;
	for (int i = 0; i < WARP; i++)
		if (mask >> i & 1)
			*(unsigned *)warp[i].out = all;
	return all;
}

void
cuda_emu_ldmatrix(uint32_t out[4], const void *row, bool trans)
{
	uint16_t rows[WARP][8];
	struct fiber *warp;

	access(row, 16, 16, false);
	if ((uintptr_t)row - shared_memory >= SHARED_BYTES)
		report("ldmatrix reads outside shared memory", row);
	if (!gather(0xffffffff, __builtin_return_address(0), row, out, &warp))
		return;
	for (int i = 0; i < WARP; i++)
		memcpy(rows[i], warp[i].in, 16);
	for (int i = 0; i < WARP; i++)
		for (int m = 0; m < 4; m++) {
			int r = i / 4, c = i % 4 * 2;
			uint32_t low = trans ? rows[m * 8 + c][r] : rows[m * 8 + r][c], high = trans ? rows[m * 8 + c + 1][r] : rows[m * 8 + r][c + 1];

			((uint32_t *)warp[i].out)[m] = low | high << 16;
		}
}

static float
widened(uint32_t pair, int high)
{
	uint32_t u = high ? pair & 0xffff0000u : pair << 16;
	float f;

	memcpy(&f, &u, sizeof(f));
	return f;
}

struct mma_operands {
	const uint32_t *a, *b;
};

void
cuda_emu_mma(float c[4], const uint32_t a[4], const uint32_t b[2])
{
	struct mma_operands mine = {a, b};
	float x[16][16], y[16][8];
	struct fiber *warp;

	if (!gather(0xffffffff, __builtin_return_address(0), &mine, c, &warp))
		return;
	for (int i = 0; i < WARP; i++) {
		const struct mma_operands *of = (const struct mma_operands *)warp[i].in;

		for (int r = 0; r < 4; r++)
			for (int e = 0; e < 2; e++) {
				x[i / 4 + r % 2 * 8][i % 4 * 2 + e + r / 2 * 8] = widened(of->a[r], e);
				if (r < 2)
					y[i % 4 * 2 + e + r * 8][i / 4] = widened(of->b[r], e);
			}
	}
	for (int i = 0; i < WARP; i++)
		for (int e = 0; e < 4; e++) {
			float sum = ((float *)warp[i].out)[e];

			for (int k = 0; k < 16; k++)
				sum += x[i / 4 + e / 2 * 8][k] * y[k][i % 4 * 2 + e % 2];
			((float *)warp[i].out)[e] = sum;
		}
}

/* A copy happens as late as it may: when its thread waits for it. */
void
cuda_emu_cp_async(void *shared, const void *global, size_t bytes)
{
	if (!on_device((uintptr_t)global) || (uintptr_t)shared - shared_memory >= SHARED_BYTES)
		report("cp.async copies from device memory to shared memory", on_device((uintptr_t)global) ? shared : global);
	self->group.push_back({shared, global, bytes});
}

void
cuda_emu_cp_commit()
{
	self->groups.push_back(std::move(self->group));
	self->group.clear();
}

void
cuda_emu_cp_wait(int groups)
{
	while ((int)self->groups.size() > groups) {
		for (const auto &c : self->groups.front()) {
			access(c.from, c.bytes, c.bytes, false);
			access(c.to, c.bytes, c.bytes, true);
			memcpy(c.to, c.from, c.bytes);
		}
		self->groups.erase(self->groups.begin());
	}
}

void *
cuda_emu_shared(const char *file, int line, size_t bytes)
{
	auto found = now.arrays.find({file, line});
	size_t at = (now.shared_used + 15) / 16 * 16;

	if (found == now.arrays.end()) {
		if (at - now.dynamic_bytes + bytes > STATIC_SHARED || at + bytes + 64 > SHARED_BYTES)
			report("a block declares too much shared memory", NULL);
		now.arrays[{file, line}] = {at, bytes};
		now.shared_used = at + bytes + 64;		/* a gap, in which nothing may be accessed */
	} else {
		at = found->second.first;
	}
	return (void *)(shared_memory + at);
}

void *
cuda_emu_dynamic_shared()
{
	return (void *)shared_memory;
}

/* 0 .. n - 1, in order or, with a seed, shuffled. */
static std::vector<int>
order_of(int n)
{
	std::vector<int> order((size_t)n);

	for (int i = 0; i < n; i++)
		order[(size_t)i] = i;
	for (int i = n - 1; i > 0 && seed != 0; i--) {
		uint64_t x = (seed << 32 ^ ++drawn) * 0x9e3779b97f4a7c15u;

		x = (x ^ x >> 31) * 0xbf58476d1ce4e5b9u;
		std::swap(order[(size_t)i], order[(size_t)((x ^ x >> 29) % (uint64_t)(i + 1))]);
	}
	return order;
}

/* No fiber can run: a barrier that all have reached is passed, anything else is a fault. Returns false when all are done. */
static bool
pass_barrier()
{
	const void *site = NULL;
	int done = 0, waiting = 0;

	for (int i = 0; i < now.n; i++) {
		done += fibers[i].state == DONE;
		if (fibers[i].state == IN_WARP) {
			self = &fibers[i];
			report("a warp operation that not all lanes of its mask reach", NULL);
		}
		if (fibers[i].state != AT_BARRIER)
			continue;
		if (waiting++ > 0 && fibers[i].site != site) {
			self = &fibers[i];
			report("threads of a block wait at different barriers", NULL);
		}
		site = fibers[i].site;
	}
	if (done == now.n)
		return false;
	if (done > 0)
		report("threads have ended and others wait at a barrier", NULL);
	for (int i = 0; i < now.n; i++)
		fibers[i].state = READY;
	interval++;
	return true;
}

static void
prepare(struct fiber *f, int i)
{
	f->index = i;
	f->state = READY;
	f->thread = {(unsigned)i % now.block.x, (unsigned)i / now.block.x % now.block.y, (unsigned)i / (now.block.x * now.block.y)};
}

static void
run_block()
{
	bool more = true;

	now.block_start = ++interval;
	now.arrays.clear();
	/* Only what the last block declared can have been marked. */
	memset(shared_cells, 0, (now.shared_used + CELL - 1) / CELL * sizeof(*shared_cells));
	now.shared_used = now.dynamic_bytes + 64;
	memset((void *)shared_memory, 0xff, SHARED_BYTES < now.dynamic_bytes + STATIC_SHARED ? SHARED_BYTES : now.dynamic_bytes + STATIC_SHARED);
	for (int i = 0; i < now.n; i++)
		prepare(&fibers[i], i);
	while (more) {
		bool ran = false;

		for (int i : order_of(now.n)) {
			if (fibers[i].state != READY)
				continue;
			ran = true;
			self = &fibers[i];
			resume();
			self = NULL;
		}
		more = ran || pass_barrier();
	}
}

/* ---- launches, and what copies touch ---- */

cudaError_t
cuda_emu_set_shared(const void *kernel, int bytes)
{
	std::lock_guard<std::recursive_mutex> held(lock);

	if ((size_t)bytes + 1024 > SHARED_BYTES)
		return cudaErrorInvalidValue;
	shared_limits[kernel] = (size_t)bytes;
	return cudaSuccess;
}

cudaError_t
cuda_emu_launch(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t s, const void *kernel, void *parameters, size_t parameter_bytes,
    void (*run)(void *), void (*drop)(void *))
{
	size_t limit = shared_limits.count(kernel) ? shared_limits[kernel] : STATIC_SHARED, threads = (size_t)block.x * block.y * block.z;

	if (threads == 0 || threads > MAX_THREADS || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > INT32_MAX || grid.y > 65535 ||
	    grid.z > 65535 || shared_bytes > limit || parameter_bytes > 4096)
		report("a launch with a grid, block, shared memory or parameters that no device takes", kernel);
	cuda_emu_enqueue(s, [=] {
		int blocks = (int)((size_t)grid.x * grid.y * grid.z);

		now.grid = grid;
		now.block = block;
		now.kernel = kernel;
		now.parameters = (uintptr_t)parameters;
		now.parameter_bytes = parameter_bytes;
		now.dynamic_bytes = (shared_bytes + 15) / 16 * 16;
		now.run = run;
		now.n = (int)threads;
		now.launch_start = ++interval;
		for (int i : order_of(blocks)) {
			now.at = {(unsigned)i % grid.x, (unsigned)i / grid.x % grid.y, (unsigned)i / (grid.x * grid.y)};
			run_block();
		}
		drop(parameters);
	});
	return cudaGetLastError();
}

void
cuda_emu_check_range(const void *p, size_t bytes, bool write, const char *who)
{
	struct cell *c = cells + ((uintptr_t)p - device) / CELL;

	if (bytes == 0)
		return;
	if (!on_device((uintptr_t)p))
		report(who, p);
	allocation_of((uintptr_t)p, bytes, who);
	for (size_t i = 0; i < (bytes + CELL - 1) / CELL; i++) {
		if (write)
			c[i] = {1, 0, 0, 0};
		else if (c[i].written == 0)
			report("a copy or product reads what nobody has written yet", (const char *)p + i * CELL);
	}
}
