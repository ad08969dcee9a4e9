#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# apt.sh FILE... installs the Debian packages named in the files, one a line,
# and touches nothing where they are all there.
set -eu

missing=
names=$(sed 's/#.*//' "$@")
for package in $names; do
	status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
	[ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "apt.sh: these Debian packages are needed, and installing them takes root:$missing" >&2
	exit 1
fi
echo "installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
# Services that a package would start (docker, sshd, a registry) are not wanted:
# the tests start their own, with their own folders and addresses.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	trap 'rm -f "$policy"' EXIT
fi
apt-get update -qq >&2
# shellcheck disable=SC2086 # a list of words is what apt-get takes
apt-get install -y -qq --no-install-recommends $missing >&2
