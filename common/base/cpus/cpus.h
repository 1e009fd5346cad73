/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpus - the processors of this host, which of them this process may use, and how long OpenMP threads spin
 * while they wait.
 */
#ifndef SALT_CPUS_H
#define SALT_CPUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CPUS_MAX 8192		/* the kernel's limit */

/* A set of processors, by number. */
struct cpus_set {
	unsigned char bits[CPUS_MAX / 8];
};

struct cpus {
	int online, sockets, cores, nodes;	/* of the host: processors, packages, physical cores, NUMA nodes; at least 1 each */
	int allowed;			/* processors in the process's affinity mask; cpusets narrow it too */
	double quota;			/* CPU time limit in processors, lowest of its cgroups; 0: none */
	char quota_from[256];		/* the file that states the quota; "" without one */
	struct cpus_set mask;		/* the affinity mask */
	int16_t node[CPUS_MAX];		/* NUMA node of each processor; -1: unknown, or no such processor */
};

/*
 * cpus_read - fills *c from root/proc and root/sys; root is "" for the running system, or the folder of a
 * recorded one. Where files are missing (a container may hide them) the defaults are the C library's number
 * of processors, all of them allowed, one socket and node, no limit. Reads about three files for each
 * processor.
 */
void cpus_read(struct cpus *c, const char *root);

/*
 * cpus_usable - number of threads worth starting: the allowed processors, at most the quota rounded up, at
 * least 1.
 */
int cpus_usable(const struct cpus *c);
/* cpus_here - cpus_usable for this process; reads about ten files of /proc and /sys. */
int cpus_here(void);

/*
 * cpus_share - number of threads for one of n_ranks processes that share a host. together: number of
 * processors in the union of their masks. The quota is taken as one for all of them. At least 1, at most
 * cpus_usable(c).
 */
int cpus_share(const struct cpus *c, int together, int n_ranks);

/*
 * cpus_print - writes one line: "64 processors (32 cores, 2 sockets, 2 NUMA nodes), 2 allowed, CPU limit 1.5
 * (FILE)". Cut to size.
 */
void cpus_print(const struct cpus *c, char *buf, size_t size);

/*
 * cpus_node - sets *set to the processors to which rank `rank` of the n_ranks on a host should be bound, if
 * all ranks have c->mask: those of one NUMA node, so that memory is local. The ranks fill one node after the
 * other. Returns false, with *set unchanged, if binding is of no use: the mask has processors of one node
 * only (or of an unknown one), or the nodes would not get equally many ranks, or have different numbers of
 * processors.
 */
bool cpus_node(const struct cpus *c, int rank, int n_ranks, struct cpus_set *set);
/* cpus_bind - binds the calling thread, and the threads that it starts from now on. Returns 0 or errno. */
int cpus_bind(const struct cpus_set *set);

int cpus_count(const struct cpus_set *set);

/*
 * CPUS_BOUND_SPIN - in a program's main file: limits how long idle threads of libgomp spin before they sleep,
 * to a value that suits hosts where other processes run too. libgomp reads the environment when it is loaded,
 * before main and before constructors of the program. So the program executes itself once more with
 * GOMP_SPINCOUNT set, before any library is initialised. Nothing happens if the user set OMP_WAIT_POLICY or
 * GOMP_SPINCOUNT.
 */
void cpus_bound_spin(int argc, char **argv, char **envp);
#define CPUS_BOUND_SPIN \
	__attribute__((section(".preinit_array"), used)) static void (*const bound_spin)(int, char **, char **) = cpus_bound_spin

#endif
