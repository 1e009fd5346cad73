#!/bin/bash -p
# SPDX-License-Identifier: Apache-2.0
# supervise.sh ARG ... - the former name of saltfleet-supervise, which is a program now; see deploy/README.md.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
. "$here/shell.sh"
exec "$(programs)/saltfleet-supervise" "$@"
