#!/bin/sh
# Puts the host back as it was before init-k3s.sh, once k3s is gone: network links, packet filter rules, folders, kernel
# settings, firewall. Works on a host where init-k3s.sh was cut, too.
set -eu
DISTRIBUTION=k3s
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=host.sh
. "$(dirname "$0")/host.sh"

[ -f "$STATE/k3s.list" ] || {
	finish
	exit 0
}
remove_service_routes
clean_network
take_away k3s
restore_host
finish
say "the host is as it was before k3s"
