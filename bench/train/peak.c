/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/train/peak.h"

#include <stddef.h>
#include <string.h>

/*
 * The first row whose name is a part of the device's name counts. The rates are from NVIDIA's data sheets,
 * without sparsity; if a sheet has only the rate with sparsity, it is half of that.
 */
static const struct {
	const char *name;
	double tflops;
} peaks[] = {
	{"B200", 2250}, {"GH200", 989}, {"H200 NVL", 835}, {"H200", 989}, {"H100 NVL", 835}, {"H100 PCIe", 756}, {"H100", 989}, {"A100", 312}, {"L40S", 362},
};

double
peak_bf16_tflops(const char *device)
{
	for (size_t i = 0; i < sizeof(peaks) / sizeof(peaks[0]); i++)
		if (strstr(device, peaks[i].name) != NULL)
			return peaks[i].tflops;
	return 0;
}
