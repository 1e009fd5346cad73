/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clock - the one monotonic clock (CLOCK_MONOTONIC) for intervals and deadlines. All functions may
 * be called from any thread. For the date use time(2).
 */
#ifndef SALT_CLOCK_H
#define SALT_CLOCK_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

int64_t clock_now_ms(void);
double clock_now_s(void);		/* the same clock in seconds, with its full resolution */
int64_t clock_now_ns(void);

/*
 * clock_cond_init - initializes a condition variable whose timed waits use this clock.
 * clock_after_ms - returns the deadline for such a wait, ms milliseconds from now.
 */
void clock_cond_init(pthread_cond_t *cond);
struct timespec clock_after_ms(int64_t ms);

#endif
