/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda_emu_internal - shared by the threads of kernels with their checks (cuda_emu.cpp) and the host calls
 * (host.cpp): one lock, the address range of device memory, and the allocations in it.
 */
#ifndef SALT_CUDA_EMU_INTERNAL_H
#define SALT_CUDA_EMU_INTERNAL_H

#include <mutex>
#include <vector>

#include "cuda_runtime.h"

namespace cuda_emu {

#define PAGE ((size_t)4096)
#define DEVICE_BYTES ((size_t)32 << 30)		/* size of the address range; no address is used twice */
#define GRANULE 256				/* allocations begin at multiples, with a free one between */
#define SHARED_BYTES ((size_t)232448)		/* shared memory of a block on sm_90 */

struct allocation {
	uintptr_t begin, end;
	bool live;
};

extern std::recursive_mutex lock;
extern uintptr_t device;
extern uint32_t *owner;				/* allocation number of each granule; 0: none */
extern std::vector<allocation> allocations;	/* number 0 is not used */

/* report - prints one line to standard error and exits with 86. p: address, kernel or pointer at fault. */
__attribute__((noreturn)) void report(const char *what, const void *p);

static inline bool
on_device(uintptr_t p)
{
	return p - device < DEVICE_BYTES;
}

}

#endif
