/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peak - what the makers of devices state.
 */
#ifndef SALT_BENCH_PEAK_H
#define SALT_BENCH_PEAK_H

/*
 * peak_bf16_tflops - the dense (not sparse) bf16 peak of a device with this name, as the driver gives it, in TFLOP/s, from the data sheet of its
 * maker; 0: the device is not in the table.
 */
double peak_bf16_tflops(const char *device);

#endif
