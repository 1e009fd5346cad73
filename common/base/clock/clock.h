/* SPDX-License-Identifier: Apache-2.0 */
/* clock - the one monotonic clock (CLOCK_MONOTONIC) for intervals and deadlines. Any thread. For the date use time(2). */
#ifndef SALT_CLOCK_H
#define SALT_CLOCK_H

#include <stdint.h>

int64_t clock_now_ms(void);
double clock_now_s(void);		/* the same clock in seconds, with nanoseconds */

#endif
