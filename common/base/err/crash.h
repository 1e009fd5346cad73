/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crash - named points at which tests kill the process, to check that the data on disk are still good. Only
 * builds with the CMake option SALT_CRASH_POINTS have them (presets dev, asan, tsan); in others crash_point
 * does nothing.
 *
 * SALT_CRASH_AT=NAME or NAME:COUNT in the environment ends the process by SIGKILL when it reaches the point
 * NAME for the COUNT-th time (1 if not given). If COUNT is not a number, the variable is ignored. Any thread;
 * all threads of the process are counted together.
 */
#ifndef SALT_CRASH_H
#define SALT_CRASH_H

#ifdef SALT_CRASH_POINTS
#define CRASH_POINTS 1			/* for tests: whether this build has them */
void crash_point(const char *name);
#else
#define CRASH_POINTS 0
#define crash_point(name) ((void)(name))
#endif

#endif
