/* SPDX-License-Identifier: Apache-2.0 */
/*
 * asan_mpi - what the address sanitizer must know in programs that use MPI: executables that link it say DEPENDS asan_mpi. Open MPI 4.1
 * and the PMIx in it keep memory for good that they take in MPI_Init and in a thread of their own, and unload their plugins at
 * MPI_Finalize, so that a stack of frame pointers ends in an unknown module. Only the slow unwinder reaches the library that called. It and
 * the search for leaks take ten times as long as MPI_Init and MPI_Finalize themselves, so both are off, except in the tests that
 * tests/system/CMakeLists.txt names.
 */
#if defined(__SANITIZE_ADDRESS__)
const char *__asan_default_options(void);
const char *__lsan_default_suppressions(void);

const char *
__asan_default_options(void)
{
	return "detect_leaks=0";
}

const char *
__lsan_default_suppressions(void)
{
	return
	    "leak:libmpi.so\n"			/* operators and requests made in MPI_Init */
	    "leak:libopen-rte.so\n"		/* job data of the runtime below it */
	    "leak:libopen-pal.so\n"		/* parameter and plugin tables */
	    "leak:libevent_core\n";		/* PMIx's progress thread; we use no libevent ourselves */
}
#else
extern int salt_asan_mpi_unused;		/* a file without any declaration is a warning */
#endif
