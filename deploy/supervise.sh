#!/bin/bash -p
# SPDX-License-Identifier: Apache-2.0
# supervise.sh ARG ... - former name of saltfleet-supervise, which is now a program; see deploy/README.md.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
. "$here/shell.sh"
exec "$(programs)/saltfleet-supervise" "$@"
