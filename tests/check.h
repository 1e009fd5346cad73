/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check - checks for tests, active in every build. A test program's main calls its test functions and ends
 * with `return check_done();`. A row of a table has a name `what`, which CHECK_ROW prints if the row fails.
 */
#ifndef SALT_CHECK_H
#define SALT_CHECK_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Weak, so that all files of a test share one pair; else only the failures in main's file would count. */
__attribute__((weak)) _Atomic int check_count, check_failures;

#define CHECK_ROW(what, cond)								\
	do {										\
		check_count++;								\
		if (!(cond)) {								\
			check_failures++;						\
			fprintf(stderr, "%s:%d: %s: CHECK failed: %s\n", __FILE__, __LINE__, (what), #cond);	\
		}									\
	} while (0)

#define CHECK(cond) CHECK_ROW(__func__, cond)

/* Ends the test if cond fails, for conditions without which the rest of the test cannot run. */
#define REQUIRE(cond)									\
	do {										\
		int check_failed = check_failures;	/* cond may have side effects */	\
		CHECK(cond);								\
		if (check_failures != check_failed)					\
			exit(1);							\
	} while (0)

#define CHECK_STR(a, b)									\
	do {										\
		const char *check_a = (a), *check_b = (b);				\
		CHECK(strcmp(check_a, check_b) == 0);					\
		if (strcmp(check_a, check_b) != 0)					\
			fprintf(stderr, "  got  '%s'\n  want '%s'\n", check_a, check_b);	\
	} while (0)

/* |a - b| <= tol; NaN fails. */
#define CHECK_NEAR(a, b, tol)								\
	do {										\
		double check_a = (a), check_b = (b), check_t = (tol);			\
		CHECK(fabs(check_a - check_b) <= check_t);				\
		if (!(fabs(check_a - check_b) <= check_t))				\
			fprintf(stderr, "  got %.9g want %.9g, tolerance %.3g\n", check_a, check_b, check_t);	\
	} while (0)

/* Returns a path that does not exist: it makes a temporary folder and removes it. */
static inline const char *
check_missing(void)
{
	static char path[32];

	strcpy(path, "/tmp/salt_missing.XXXXXX");
	REQUIRE(mkdtemp(path) != NULL && rmdir(path) == 0);
	return path;
}

/* Returns the exit code; a test without any check fails. */
static inline int
check_done(void)
{
	fprintf(stderr, "%d checks, %d failures\n", check_count, check_failures);
	return check_count == 0 || check_failures > 0;
}

#endif
