/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests base/cpus with trees of /proc and /sys as the kernel's documentation describes them, and with the
 * settings that libgomp itself displays.
 */
#include "base/cpus/cpus.h"

#include <omp.h>
#include <sched.h>
#include <sys/stat.h>
#include "check.h"

CPUS_BOUND_SPIN;

static char root[64];

/* Writes a file of the tree, with its folders. */
static void
put(const char *path, const char *text)
{
	char full[512];
	FILE *f;

	snprintf(full, sizeof(full), "%s/%s", root, path);
	for (char *p = full + 1; (p = strchr(p, '/')) != NULL; *p++ = '/') {
		*p = '\0';
		mkdir(full, 0755);
	}
	REQUIRE((f = fopen(full, "w")) != NULL);
	fputs(text, f);
	fclose(f);
}

static void
tree_begin(const char *mask, const char *cgroup, const char *mountinfo)
{
	char text[512];

	snprintf(root, sizeof(root), "/tmp/salt_cpus.XXXXXX");
	REQUIRE(mkdtemp(root) != NULL);
	snprintf(text, sizeof(text), "Name:\ttrainerd\nCpus_allowed:\tff\nCpus_allowed_list:\t%s\nMems_allowed_list:\t0\n", mask);
	put("proc/self/status", text);
	put("proc/self/cgroup", cgroup);
	put("proc/self/mountinfo", mountinfo);
}

/* Two sockets of 16 cores with two threads each, numbered as in Linux: socket 0 has 0-15 and 32-47. */
static void
put_two_sockets(void)
{
	char path[128], text[16];

	put("sys/devices/system/cpu/online", "0-63\n");
	for (int i = 0; i < 64; i++) {
		snprintf(path, sizeof(path), "sys/devices/system/cpu/cpu%d/topology/physical_package_id", i);
		put(path, i / 16 % 2 == 0 ? "0\n" : "1\n");
		snprintf(path, sizeof(path), "sys/devices/system/cpu/cpu%d/topology/core_id", i);
		snprintf(text, sizeof(text), "%d\n", i % 16);
		put(path, text);
	}
	put("sys/devices/system/node/online", "0-2\n");
	put("sys/devices/system/node/node0/cpulist", "0-15,32-47\n");
	put("sys/devices/system/node/node1/cpulist", "16-31,48-63\n");
	put("sys/devices/system/node/node2/cpulist", "\n");		/* a node with memory only */
}

static struct cpus
tree_end(void)
{
	char command[128];
	struct cpus c;

	cpus_read(&c, root);
	snprintf(command, sizeof(command), "rm -r %s", root);
	CHECK(system(command) == 0);
	return c;
}

static const char v2_mount[] = "24 30 0:22 / /proc rw,nosuid - proc proc rw\n"
    "35 24 0:30 / /sys/fs/cgroup rw,nosuid,nodev shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

/* The set of 64 processors as hexadecimal digits, one for each group of four, lowest processors first. */
static const char *
hex_of(const struct cpus_set *s)
{
	static char text[17];

	for (int i = 0; i < 16; i++)
		snprintf(text + i, 2, "%x", s->bits[i / 2] >> (i % 2 * 4) & 15);
	return text;
}

static void
test_host(void)
{
	struct cpus_set set;
	struct cpus c;
	char text[512];

	tree_begin("0-63", "0::/user.slice/session-1.scope\n", v2_mount);
	put("sys/fs/cgroup/user.slice/cpu.max", "max 100000\n");
	put_two_sockets();
	c = tree_end();
	CHECK(c.online == 64 && c.sockets == 2 && c.cores == 32 && c.nodes == 2 && c.allowed == 64 && c.quota == 0 && cpus_usable(&c) == 64);
	cpus_print(&c, text, sizeof(text));
	CHECK_STR(text, "64 processors (32 cores, 2 sockets, 2 NUMA nodes), 64 allowed, no CPU limit");
	CHECK(cpus_node(&c, 0, 2, &set));
	CHECK_STR(hex_of(&set), "ffff0000ffff0000");
	CHECK(cpus_node(&c, 1, 2, &set));
	CHECK_STR(hex_of(&set), "0000ffff0000ffff");
	CHECK(cpus_node(&c, 1, 4, &set));
	CHECK_STR(hex_of(&set), "ffff0000ffff0000");
	CHECK(cpus_node(&c, 2, 4, &set));
	CHECK_STR(hex_of(&set), "0000ffff0000ffff");
	CHECK(!cpus_node(&c, 0, 1, &set) && !cpus_node(&c, 0, 3, &set));
}

/* Affinity masks: of one node, of both evenly, of both unevenly, none. */
static void
test_mask(void)
{
	static const struct {
		const char *list;
		int allowed;
		const char *first;	/* set of the first of two ranks; NULL: not bound */
	} rows[] = {
		{"0-3", 4, NULL}, {"0-1,16-17", 4, "3000000000000000"}, {"0-2,16", 4, NULL}, {"", 64, "ffff0000ffff0000"}, {"63", 1, NULL},
		{"3-1", 64, "ffff0000ffff0000"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct cpus_set set;
		struct cpus c;
		bool bound;

		tree_begin(rows[i].list, "0::/\n", v2_mount);
		put_two_sockets();
		c = tree_end();
		CHECK_ROW(rows[i].list, c.allowed == rows[i].allowed && c.online == 64);
		bound = cpus_node(&c, 0, 2, &set);
		CHECK_ROW(rows[i].list, bound == (rows[i].first != NULL));
		if (bound)
			CHECK_STR(hex_of(&set), rows[i].first);
	}
}

static void
test_quota(void)
{
	static const char v1_host[] = "40 33 0:35 / /sys/fs/cgroup/cpu,cpuacct rw shared:14 - cgroup cgroup rw,cpu,cpuacct\n",
	    v1_docker[] = "600 590 0:35 /docker/4b1d /sys/fs/cgroup/cpu,cpuacct ro,nosuid master:14 - cgroup cgroup rw,cpu,cpuacct\n",
	    v1_groups[] = "12:cpuset:/\n5:cpu,cpuacct:/docker/4b1d\n0::/system.slice\n";
	static const struct {
		const char *what, *cgroup, *mountinfo, *files[4][2];
		double quota;
		const char *from;
		int usable;
	} rows[] = {
		{"container, v2, own namespace", "0::/\n", v2_mount, {{"sys/fs/cgroup/cpu.max", "200000 100000\n"}}, 2, "/sys/fs/cgroup/cpu.max", 2},
		{"the smallest of two levels, v2", "0::/system.slice/salt.service\n", v2_mount,
		    {{"sys/fs/cgroup/system.slice/cpu.max", "150000 100000\n"},
		    {"sys/fs/cgroup/system.slice/salt.service/cpu.max", "400000 100000\n"}}, 1.5, "/sys/fs/cgroup/system.slice/cpu.max", 2},
		{"no limit, v2", "0::/a\n", v2_mount, {{"sys/fs/cgroup/a/cpu.max", "max 100000\n"}}, 0, "", 64},
		{"half a processor", "0::/\n", v2_mount, {{"sys/fs/cgroup/cpu.max", "25000 50000\n"}}, 0.5, "/sys/fs/cgroup/cpu.max", 1},
		{"more than there is", "0::/\n", v2_mount, {{"sys/fs/cgroup/cpu.max", "20000000 100000\n"}}, 200, "/sys/fs/cgroup/cpu.max", 64},
		{"a group outside of the namespace", "0::/../../other\n", v2_mount, {{"sys/fs/cgroup/cpu.max", "300000 100000\n"}}, 3,
		    "/sys/fs/cgroup/cpu.max", 3},
		{"container, v1, names of the host", v1_groups, v1_docker, {{"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000\n"},
		    {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"}}, 2, "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", 2},
		{"the group above, v1", v1_groups, v1_host, {{"sys/fs/cgroup/cpu,cpuacct/docker/4b1d/cpu.cfs_quota_us", "-1\n"},
		    {"sys/fs/cgroup/cpu,cpuacct/docker/4b1d/cpu.cfs_period_us", "100000\n"},
		    {"sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us", "210000\n"},
		    {"sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_period_us", "100000\n"}}, 2.1, "/sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us", 3},
		{"cpuset is not cpu", "5:cpuset:/a\n", "40 33 0:35 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n",
		    {{"sys/fs/cgroup/cpuset/cpu.cfs_quota_us", "100000\n"}, {"sys/fs/cgroup/cpuset/cpu.cfs_period_us", "100000\n"}}, 0, "", 64},
		{"nonsense", "0::/\n5\n:\n", v2_mount, {{"sys/fs/cgroup/cpu.max", "many\n"}}, 0, "", 64},
		{"not mounted", "0::/\n", "24 30 0:22 / /proc rw - proc proc rw\n", {{NULL}}, 0, "", 64},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct cpus c;

		tree_begin("0-63", rows[i].cgroup, rows[i].mountinfo);
		put("sys/devices/system/cpu/online", "0-63\n");
		for (int f = 0; f < 4 && rows[i].files[f][0] != NULL; f++)
			put(rows[i].files[f][0], rows[i].files[f][1]);
		c = tree_end();
		CHECK_ROW(rows[i].what, fabs(c.quota - rows[i].quota) < 1e-9);
		CHECK_STR(c.quota_from, rows[i].from);
		CHECK_ROW(rows[i].what, cpus_usable(&c) == rows[i].usable);
	}
}

static void
test_share(void)
{
	static const struct {
		int allowed, together, n_ranks;
		double quota;
		int threads;
	} rows[] = {
		{64, 64, 1, 0, 64}, {64, 64, 2, 0, 32}, {64, 64, 3, 0, 21}, {32, 64, 2, 0, 32}, {2, 2, 2, 0, 1}, {2, 2, 4, 0, 1}, {1, 2, 2, 0, 1},
		{64, 64, 1, 2, 2}, {64, 64, 2, 4, 2}, {32, 64, 2, 3, 1}, {64, 64, 1, 1.5, 2}, {64, 64, 4, 2, 1},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct cpus c = {.online = 64, .allowed = rows[i].allowed, .quota = rows[i].quota};
		char what[32];

		snprintf(what, sizeof(what), "row %zu", i);
		CHECK_ROW(what, cpus_share(&c, rows[i].together, rows[i].n_ranks) == rows[i].threads);
	}
}

/* If nothing can be read, all processors that the C library reports are used. */
static void
test_nothing(void)
{
	struct cpus c;

	cpus_read(&c, "/nonexistent");
	CHECK(c.online == sysconf(_SC_NPROCESSORS_ONLN) && c.allowed == c.online && c.sockets == 1 && c.nodes == 1 && c.quota == 0);
	CHECK(cpus_count(&c.mask) == c.online);
}

/* This machine: the same count as the C library, also after binding to the first of the processors. */
static void
test_here(void)
{
	struct cpus_set one = {{0}};
	struct cpus c;
	cpu_set_t set;

	REQUIRE(sched_getaffinity(0, sizeof(set), &set) == 0);
	cpus_read(&c, "");
	CHECK(c.allowed == CPU_COUNT(&set) && c.online == sysconf(_SC_NPROCESSORS_ONLN) && c.cores <= c.online);
	CHECK(cpus_here() >= 1 && cpus_here() <= c.allowed);
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &set)) {
			one.bits[i / 8] = (unsigned char)(1u << i % 8);
			break;
		}
	CHECK(cpus_bind(&one) == 0);
	cpus_read(&c, "");
	CHECK(c.allowed == 1 && cpus_here() == 1 && memcmp(&c.mask, &one, sizeof(one)) == 0);
	CHECK(sched_setaffinity(0, sizeof(set), &set) == 0);
}

/* Runs this program with an environment; gets the spin count that libgomp displays, and how often. */
static int
displayed(const char *self, const char *environment, char *count, size_t size)
{
	char command[1024], line[256];
	int times = 0;
	FILE *f;

	snprintf(command, sizeof(command), "env -u OMP_WAIT_POLICY -u GOMP_SPINCOUNT OMP_DISPLAY_ENV=VERBOSE %s %s spin 2>&1", environment, self);
	REQUIRE((f = popen(command, "r")) != NULL);
	*count = '\0';
	while (fgets(line, sizeof(line), f) != NULL) {
		const char *at = strstr(line, "GOMP_SPINCOUNT = '");

		times += strstr(line, "DISPLAY ENVIRONMENT BEGIN") != NULL;
		if (at != NULL)
			snprintf(count, size, "%.*s", (int)strcspn(at + 18, "'"), at + 18);
	}
	CHECK(pclose(f) == 0);
	return times;
}

static void
test_spin(const char *self)
{
	char count[32];

	/* Displayed once: the libraries are not initialized before the program executes itself again. */
	CHECK(displayed(self, "", count, sizeof(count)) == 1);
	CHECK_STR(count, "1000");
	displayed(self, "GOMP_SPINCOUNT=777", count, sizeof(count));
	CHECK_STR(count, "777");
	displayed(self, "OMP_WAIT_POLICY=passive", count, sizeof(count));
	CHECK_STR(count, "0");
}

int
main(int argc, char **argv)
{
	/* run by test_spin: libgomp is used, and has displayed its settings */
	if (argc > 1)
		return omp_get_max_threads() < 1;
	test_host();
	test_mask();
	test_quota();
	test_share();
	test_nothing();
	test_here();
	test_spin(argv[0]);
	return check_done();
}
