#include "fabric/bus/bus.h"

#include <errno.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include "base/log/log.h"

static struct hash128 boot_id;

static void
draw_boot_id(void)
{
	while ((boot_id.hi | boot_id.lo) == 0)
		if (getrandom(&boot_id, sizeof(boot_id), 0) != (ssize_t)sizeof(boot_id) && errno != EINTR)
			log_fatal("bus.boot_id", "error=\"no random bytes: %s\"", strerror(errno));
}

struct hash128
bus_boot_id(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, draw_boot_id);
	return boot_id;
}

static char host_name[65];

static void
ask_host(void)
{
	if (gethostname(host_name, sizeof(host_name) - 1) != 0 || host_name[0] == 0)
		strcpy(host_name, "localhost");
}

const char *
bus_host(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, ask_host);
	return host_name;
}
