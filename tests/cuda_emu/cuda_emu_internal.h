/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda_emu_internal - what the threads of kernels with their checks (cuda_emu.cpp) and the calls of the host (host.cpp) share: one lock, the
 * range of addresses that is device memory, and what is allocated in it.
 */
#ifndef SALT_CUDA_EMU_INTERNAL_H
#define SALT_CUDA_EMU_INTERNAL_H

#include <mutex>
#include <vector>

#include "cuda_runtime.h"

namespace cuda_emu {

#define PAGE ((size_t)4096)
#define DEVICE_BYTES ((size_t)32 << 30)		/* of address space; addresses are used once */
#define GRANULE 256				/* allocations begin at multiples, with at least one free between them */
#define SHARED_BYTES ((size_t)232448)		/* of a block: what sm_90 has */

struct allocation {
	uintptr_t begin, end;
	bool live;
};

extern std::recursive_mutex lock;
extern uintptr_t device;
extern uint32_t *owner;				/* of each granule: number of an allocation, 0 none */
extern std::vector<allocation> allocations;	/* the first is none */

/* report - one line on standard error and status 86. p: the address, kernel or pointer that it is about. */
__attribute__((noreturn)) void report(const char *what, const void *p);

static inline bool
on_device(uintptr_t p)
{
	return p - device < DEVICE_BYTES;
}

}

#endif
