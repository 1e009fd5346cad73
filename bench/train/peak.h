/* SPDX-License-Identifier: Apache-2.0 */
/* peak - peak rates of devices as their manufacturers state them. */
#ifndef SALT_BENCH_PEAK_H
#define SALT_BENCH_PEAK_H

/*
 * peak_bf16_tflops - dense (not sparse) bf16 peak of the device that the driver calls by this name, in
 * TFLOP/s, from the manufacturer's data sheet; 0: the device is not in the table.
 */
double peak_bf16_tflops(const char *device);

#endif
