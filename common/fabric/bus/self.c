/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/bus/bus.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include "base/log/log.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct hash128 boot_id;
static char host_name[65];

static void
find_out(void)
{
	while ((boot_id.hi | boot_id.lo) == 0)
		if (getrandom(&boot_id, sizeof(boot_id), 0) != (ssize_t)sizeof(boot_id) && errno != EINTR)
			log_fatal("bus.boot_id", "error=\"no random bytes: %s\"", strerror(errno));
	if (gethostname(host_name, sizeof(host_name) - 1) != 0 || host_name[0] == 0)
		strcpy(host_name, "localhost");
}

struct hash128
bus_boot_id(void)
{
	pthread_once(&once, find_out);
	return boot_id;
}

const char *
bus_host(void)
{
	pthread_once(&once, find_out);
	return host_name;
}
