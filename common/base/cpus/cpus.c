/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files that are read, as the kernel documents them:
 *   /proc/self/status                      "Cpus_allowed_list:\t0-3,8\n"
 *   /sys/devices/system/cpu/online         such a list, and cpu/cpuN/topology/{physical_package_id,core_id}
 *   /sys/devices/system/node/online        a list of nodes, and node/nodeN/cpulist
 *   /proc/self/cgroup                      "ID:CONTROLLERS:PATH"; "0::PATH" in version 2
 *   /proc/self/mountinfo                   which folder is the root of which hierarchy
 *   cpu.max                                version 2: "QUOTA PERIOD" in microseconds, or "max PERIOD"
 *   cpu.cfs_quota_us, cpu.cfs_period_us    version 1; quota -1: no limit
 */
#include "base/cpus/cpus.h"

#include <errno.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH_BYTES 4352

static void
add(struct cpus_set *s, long i)
{
	if (i >= 0 && i < CPUS_MAX)
		s->bits[i / 8] |= (unsigned char)(1u << i % 8);
}

static bool
has(const struct cpus_set *s, long i)
{
	return s->bits[i / 8] >> i % 8 & 1;
}

int
cpus_count(const struct cpus_set *s)
{
	int n = 0;

	for (size_t i = 0; i < sizeof(s->bits); i++)
		n += __builtin_popcount(s->bits[i]);
	return n;
}

/* Parses a list like "0-3,8" into *set. Returns the number of processors; 0: it is malformed. */
static int
read_list(const char *text, struct cpus_set *set)
{
	memset(set, 0, sizeof(*set));
	for (;;) {
		char *end;
		long from = strtol(text, &end, 10), to = from;

		if (end == text || from < 0)
			return 0;
		if (*end == '-') {
			text = end + 1;
			to = strtol(text, &end, 10);
			if (end == text || to < from)
				return 0;
		}
		for (long i = from; i <= to && i < CPUS_MAX; i++)
			add(set, i);
		if (*end != ',')
			return cpus_count(set);
		text = end + 1;
	}
}

/* Reads the first line of a file, without its newline; false: there is no such file, or it is empty. */
static bool
read_line(const char *path, char *buf, size_t size)
{
	FILE *f = fopen(path, "re");
	bool there = f != NULL && fgets(buf, (int)size, f) != NULL;

	if (f != NULL)
		fclose(f);
	if (there)
		buf[strcspn(buf, "\n")] = '\0';
	return there;
}

/* Node numbers are below this and may have gaps. */
#define NODES_MAX 1024

static int
by_number(const void *a, const void *b)
{
	long x = *(const long *)a, y = *(const long *)b;

	return (x > y) - (x < y);
}

static int
distinct(long *x, int n)
{
	int found = 0;

	qsort(x, (size_t)n, sizeof(*x), by_number);
	for (int i = 0; i < n; i++)
		found += i == 0 || x[i] != x[i - 1];
	return found;
}

static void
read_topology(struct cpus *c, const char *root)
{
	static const char *const names[] = {"physical_package_id", "core_id"};
	char path[PATH_BYTES], line[4096];
	struct cpus_set online, nodes, node;
	long *packages, *cores;
	int n = 0;

	c->sockets = c->cores = c->nodes = 1;
	memset(c->node, -1, sizeof(c->node));
	snprintf(path, sizeof(path), "%s/sys/devices/system/cpu/online", root);
	if (!read_line(path, line, sizeof(line)) || read_list(line, &online) == 0)
		return;
	c->online = cpus_count(&online);
	packages = calloc((size_t)c->online, sizeof(*packages));
	cores = calloc((size_t)c->online, sizeof(*cores));
	for (long i = 0; i < CPUS_MAX && packages != NULL && cores != NULL; i++) {
		long id[2] = {0, i};		/* default without the files: one socket, one thread a core */

		if (!has(&online, i))
			continue;
		for (int which = 0; which < 2; which++) {
			snprintf(path, sizeof(path), "%s/sys/devices/system/cpu/cpu%ld/topology/%s", root, i, names[which]);
			if (read_line(path, line, sizeof(line)))
				id[which] = strtol(line, NULL, 10);
		}
		packages[n] = id[0];
		cores[n++] = (id[0] << 20) + id[1];	/* core ids are unique only within a package */
	}
	if (n > 0) {
		c->sockets = distinct(packages, n);
		c->cores = distinct(cores, n);
	}
	free(packages);
	free(cores);
	snprintf(path, sizeof(path), "%s/sys/devices/system/node/online", root);
	if (!read_line(path, line, sizeof(line)) || read_list(line, &nodes) == 0)
		return;
	c->nodes = 0;
	for (int16_t i = 0; i < NODES_MAX; i++) {
		if (!has(&nodes, i))
			continue;
		snprintf(path, sizeof(path), "%s/sys/devices/system/node/node%d/cpulist", root, i);
		if (!read_line(path, line, sizeof(line)) || read_list(line, &node) == 0)
			continue;		/* a node without processors has memory only */
		c->nodes++;
		for (long cpu = 0; cpu < CPUS_MAX; cpu++)
			if (has(&node, cpu))
				c->node[cpu] = i;
	}
	if (c->nodes == 0)
		c->nodes = 1;
}

static void
read_mask(struct cpus *c, const char *root)
{
	char path[PATH_BYTES], line[8192];
	FILE *f;

	snprintf(path, sizeof(path), "%s/proc/self/status", root);
	if ((f = fopen(path, "re")) != NULL) {
		while (c->allowed == 0 && fgets(line, sizeof(line), f) != NULL)
			if (strncmp(line, "Cpus_allowed_list:", 18) == 0)
				c->allowed = read_list(line + 18, &c->mask);
		fclose(f);
	}
	if (c->allowed > 0)
		return;
	c->allowed = c->online;
	for (int i = 0; i < c->online; i++)
		add(&c->mask, i);
}

/* Whether `word` is an entry of a comma-separated list. */
static bool
in_list(const char *list, const char *word)
{
	size_t len = strlen(word);

	for (const char *at = list; (at = strstr(at, word)) != NULL; at += len)
		if ((at == list || at[-1] == ',') && (at[len] == ',' || at[len] == '\0'))
			return true;
	return false;
}

/* Gets the folder of the process's cgroup in the hierarchy of `controller`; "" is version 2's hierarchy. */
static bool
own_group(const char *root, const char *controller, char *group, size_t size)
{
	char path[PATH_BYTES], line[4096], *names, *own;
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
	if ((f = fopen(path, "re")) == NULL)
		return false;
	while (!found && fgets(line, sizeof(line), f) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		if ((names = strchr(line, ':')) == NULL || (own = strchr(++names, ':')) == NULL)
			continue;
		*own++ = '\0';
		if ((found = *controller == '\0' ? *names == '\0' : in_list(names, controller)))
			snprintf(group, size, "%s", own);
	}
	fclose(f);
	return found;
}

/* point: where the hierarchy is mounted; top: the group that is the mount's root (mostly the container's). */
static bool
mounted(const char *root, const char *controller, char *top, char *point, size_t size)
{
	char path[PATH_BYTES], line[8192], type[64], options[2048], a[2048], b[2048], *rest;
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "%s/proc/self/mountinfo", root);
	if ((f = fopen(path, "re")) == NULL)
		return false;
	while (!found && fgets(line, sizeof(line), f) != NULL)
		if ((rest = strstr(line, " - ")) != NULL && sscanf(line, "%*s %*s %*s %2047s %2047s", a, b) == 2 &&
		    sscanf(rest, " - %63s %*s %2047s", type, options) == 2 &&
		    (*controller == '\0' ? strcmp(type, "cgroup2") == 0 : strcmp(type, "cgroup") == 0 && in_list(options, controller))) {
			snprintf(top, size, "%s", a);
			snprintf(point, size, "%s", b);
			found = true;
		}
	fclose(f);
	return found;
}

/* The CPU time limit of one group in processors, 0 if it has none; file: the path that states it. */
static double
limit_of(const char *folder, const char *controller, char *file, size_t size)
{
	char line[128], path[PATH_BYTES];
	double quota = 0, period = 0;

	if (*controller == '\0') {
		snprintf(file, size, "%s/cpu.max", folder);
		if (!read_line(file, line, sizeof(line)) || sscanf(line, "%lf %lf", &quota, &period) != 2)
			return 0;
	} else {
		snprintf(path, sizeof(path), "%s/cpu.cfs_period_us", folder);
		snprintf(file, size, "%s/cpu.cfs_quota_us", folder);
		if (!read_line(path, line, sizeof(line)) || sscanf(line, "%lf", &period) != 1 ||
		    !read_line(file, line, sizeof(line)) || sscanf(line, "%lf", &quota) != 1)
			return 0;
	}
	return quota > 0 && period > 0 ? quota / period : 0;
}

/* Finds the smallest limit from the process's group up to the root of the hierarchy that is mounted here. */
static void
read_quota(struct cpus *c, const char *root, const char *controller)
{
	char group[2048], top[2048], point[2048], folder[PATH_BYTES * 2], file[PATH_BYTES * 2 + 32], *rest = group, *end;
	size_t base;

	if (!own_group(root, controller, group, sizeof(group)) || !mounted(root, controller, top, point, sizeof(top)))
		return;
	/* group is a path in the whole hierarchy or in a namespace; skip the part above the mount's root. */
	if (strcmp(top, "/") != 0 && strncmp(group, top, strlen(top)) == 0)
		rest += strlen(top);
	snprintf(folder, sizeof(folder), "%s%s", root, point);
	base = strlen(folder);
	if (strcmp(rest, "/") != 0 && strncmp(rest, "/..", 3) != 0)
		snprintf(folder + base, sizeof(folder) - base, "%s", rest);
	for (;;) {
		double limit = limit_of(folder, controller, file, sizeof(file));

		if (limit > 0 && (c->quota == 0 || limit < c->quota)) {
			c->quota = limit;
			snprintf(c->quota_from, sizeof(c->quota_from), "%.255s", file + strlen(root));
		}
		if ((end = strrchr(folder + base, '/')) == NULL)
			return;
		*end = '\0';
	}
}

static void
read_limits(struct cpus *c, const char *root)
{
	read_mask(c, root);
	read_quota(c, root, "");
	read_quota(c, root, "cpu");
}

void
cpus_read(struct cpus *c, const char *root)
{
	memset(c, 0, sizeof(*c));
	c->online = (int)sysconf(_SC_NPROCESSORS_ONLN);
	read_topology(c, root);
	read_limits(c, root);
}

static int
at_most_quota(const struct cpus *c, int n)
{
	int granted = c->quota > 0 && c->quota < n ? (int)ceil(c->quota) : n;

	return granted > 1 ? granted : 1;
}

int
cpus_usable(const struct cpus *c)
{
	return at_most_quota(c, c->allowed);
}

int
cpus_here(void)
{
	struct cpus c = {.online = (int)sysconf(_SC_NPROCESSORS_ONLN)};

	read_limits(&c, "");
	return cpus_usable(&c);
}

int
cpus_share(const struct cpus *c, int together, int n_ranks)
{
	int share = at_most_quota(c, together) / n_ranks, own = cpus_usable(c);

	share = share < own ? share : own;
	return share > 1 ? share : 1;
}

void
cpus_print(const struct cpus *c, char *buf, size_t size)
{
	int n = snprintf(buf, size, "%d processor%s (%d core%s, %d socket%s, %d NUMA node%s), %d allowed", c->online, c->online == 1 ? "" : "s",
	    c->cores, c->cores == 1 ? "" : "s", c->sockets, c->sockets == 1 ? "" : "s", c->nodes, c->nodes == 1 ? "" : "s", c->allowed);

	if (n >= 0 && (size_t)n < size)
		snprintf(buf + n, size - (size_t)n, c->quota > 0 ? ", CPU limit %.3g (%s)" : ", no CPU limit",
		    c->quota, c->quota_from);
}

bool
cpus_node(const struct cpus *c, int rank, int n_ranks, struct cpus_set *set)
{
	int in_node[NODES_MAX] = {0}, n_nodes = 0, each = 0, at = -1, node;

	for (long i = 0; i < CPUS_MAX; i++)
		if (has(&c->mask, i)) {
			if (c->node[i] < 0)
				return false;
			n_nodes += in_node[c->node[i]]++ == 0;
			each = in_node[c->node[i]];
		}
	if (n_nodes < 2 || n_ranks % n_nodes != 0)
		return false;
	for (node = 0; node < NODES_MAX; node++)
		if (in_node[node] != 0 && in_node[node] != each)
			return false;
	for (node = 0; node < NODES_MAX; node++)
		if (in_node[node] != 0 && ++at == rank / (n_ranks / n_nodes))
			break;
	memset(set, 0, sizeof(*set));
	for (long i = 0; i < CPUS_MAX; i++)
		if (has(&c->mask, i) && c->node[i] == node)
			add(set, i);
	return true;
}

int
cpus_bind(const struct cpus_set *set)
{
	return sched_setaffinity(0, sizeof(set->bits), (const cpu_set_t *)(const void *)set->bits) == 0 ? 0 : errno;
}
