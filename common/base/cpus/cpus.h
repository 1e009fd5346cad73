/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpus - the processors of this host, which of them this process may use, and how long threads of OpenMP wait
 * by spinning.
 */
#ifndef SALT_CPUS_H
#define SALT_CPUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CPUS_MAX 8192		/* the kernel's limit */

/* Processors by number. */
struct cpus_set {
	unsigned char bits[CPUS_MAX / 8];
};

struct cpus {
	int online, sockets, cores, nodes;	/* of the host: processors, packages, physical cores, NUMA nodes; at least 1 each */
	int allowed;			/* processors in the affinity mask of the process, which cpusets of containers narrow too */
	double quota;			/* processors' worth of time that its cgroups grant, the smallest of all levels; 0: no limit */
	char quota_from[256];		/* the file that states it; "" without one */
	struct cpus_set mask;		/* the affinity mask */
	int16_t node[CPUS_MAX];		/* of each processor; -1: not known, or it is not there */
};

/*
 * cpus_read - from root/proc and root/sys; "" is the running system, another folder a recorded one. Files
 * that are missing (a container may hide them) leave what the C library says: all processors allowed, one
 * socket and node, no limit. Reads about three files for each processor.
 */
void cpus_read(struct cpus *c, const char *root);

/*
 * cpus_usable - processors for which it is worth starting threads: those allowed, at most the quota rounded
 * up, at least 1.
 */
int cpus_usable(const struct cpus *c);
/* cpus_here - cpus_usable of this process, by about ten files of /proc and /sys. */
int cpus_here(void);

/*
 * cpus_share - threads of one of n_ranks processes that share a host. together: processors that all their
 * masks contain together; the quota is taken for that of all of them. At least 1, at most cpus_usable(c).
 */
int cpus_share(const struct cpus *c, int together, int n_ranks);

/*
 * cpus_print - one line: "64 processors (32 cores, 2 sockets, 2 NUMA nodes), 2 allowed, 1.5 by the limit of
 * FILE". Cut to size.
 */
void cpus_print(const struct cpus *c, char *buf, size_t size);

/*
 * cpus_node - what rank `rank` of the n_ranks on a host should be bound to, if all of them have c->mask: its
 * processors in one NUMA node, so that memory is local. The ranks fill one node after the other. false, *set
 * is not written: binding is of no use, because the mask has processors of one node only, or the nodes would
 * not get equally many ranks, or have not equally many processors.
 */
bool cpus_node(const struct cpus *c, int rank, int n_ranks, struct cpus_set *set);
/* cpus_bind - the calling thread, and those that it starts from now on. 0 or errno. */
int cpus_bind(const struct cpus_set *set);

int cpus_count(const struct cpus_set *set);

/*
 * CPUS_BOUND_SPIN - in a program's main file: limits how long idle threads of libgomp spin before they sleep,
 * to what is best where other processes run too. libgomp reads the environment when it is loaded, before main
 * and before constructors of the program, so the program executes itself again, once, with GOMP_SPINCOUNT
 * set; this is done before any library is initialised. Nothing happens where the user set OMP_WAIT_POLICY or
 * GOMP_SPINCOUNT.
 */
void cpus_bound_spin(int argc, char **argv, char **envp);
#define CPUS_BOUND_SPIN \
	__attribute__((section(".preinit_array"), used)) static void (*const bound_spin)(int, char **, char **) = cpus_bound_spin

#endif
