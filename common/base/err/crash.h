/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crash - named points at which tests end the process, to see that what is on disk survives. Only builds
 * with the CMake option SALT_CRASH_POINTS have them (presets dev, asan, tsan); elsewhere crash_point is
 * nothing.
 *
 * SALT_CRASH_AT=NAME or NAME:COUNT in the environment ends the process by SIGKILL when it reaches the point
 * NAME for the COUNT-th time (1 if not given). A COUNT that is no number is ignored. Any thread; the count
 * is of the process.
 */
#ifndef SALT_CRASH_H
#define SALT_CRASH_H

#ifdef SALT_CRASH_POINTS
#define CRASH_POINTS 1			/* for tests: whether there are any */
void crash_point(const char *name);
#else
#define CRASH_POINTS 0
#define crash_point(name) ((void)(name))
#endif

#endif
