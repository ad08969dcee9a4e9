#!/bin/sh
# Puts the host back as it was before init-k0s.sh, once k0s is gone: network links, packet filter rules, folders, kernel
# settings, firewall. Works on a host where init-k0s.sh was cut, too.
set -eu
DISTRIBUTION=k0s
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=host.sh
. "$(dirname "$0")/host.sh"

[ -f "$STATE/k0s.list" ] || {
	finish
	exit 0
}
remove_service_routes
clean_network
take_away k0s
restore_host
finish
say "the host is as it was before k0s"
