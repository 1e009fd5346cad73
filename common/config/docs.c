/* config_docs - prints docs/config.md; `cmake --build --preset dev --target docs` puts it in its place. */
#include <stdio.h>
#include "config/config.h"

int
main(void)
{
	return config_docs(stdout) != 0 || fflush(stdout) != 0;
}
