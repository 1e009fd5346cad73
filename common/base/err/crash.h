/*
 * crash - named points at which tests end the process, to see that what is on disk survives.
 * Armed only by the environment: SALT_CRASH_AT=NAME or NAME:COUNT ends the process by SIGKILL when NAME is reached for the
 * COUNT-th time (1 if not given). Unset: one getenv and nothing else. A COUNT that is no number arms nothing.
 */
#ifndef SALT_CRASH_H
#define SALT_CRASH_H

/* crash_point - the process may end here. One counter per process, of the armed name only; any thread. */
void crash_point(const char *name);

#endif
