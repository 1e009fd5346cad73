/* hello - what a client says first to selectord, made of fleet.yaml. */
#ifndef SALT_CTL_HELLO_H
#define SALT_CTL_HELLO_H

#include "saltctl/core/ctl.h"
#include "fabric/wire/wire.h"

struct config;
struct corpus;

/* hello_make - opens the corpora (the caller's to destroy, also after a failure) and fills *hello, all but the plan. Exit code, said already. */
int hello_make(const struct ctl_args *args, const struct config *cfg, struct wire_message *hello, struct corpus **train, struct corpus **heldout);

#endif
