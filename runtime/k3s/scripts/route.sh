# shellcheck shell=sh
# Gives a host without a default route one, by the interface that has the address $1, now and at each boot: k3s does not
# start without. It leads nowhere new, and gives way to every other default route.
set -eu
put() {
	cat >"$1.sealer-new"
	chmod "$2" "$1.sealer-new"
	mv -f "$1.sealer-new" "$1"
}

link=$(ip -o addr show | awk -v ip="$1" 'index($4, ip "/") == 1 { print $2; exit }')
[ -n "$link" ] || {
	echo "no interface has the address $1" >&2
	exit 1
}
family=-4
case $1 in *:*) family=-6 ;; esac
route="default dev $link metric 65535"

if [ -d /run/openrc ] && [ ! -d /run/systemd/system ]; then
	put /etc/init.d/sealer-default-route 0755 <<-EOF
		#!/sbin/openrc-run
		description="Default route for k3s, on a host that has none"
		depend() {
			after net
			before k3s k3s-agent
		}
		start() {
			ip $family route replace $route
		}
		stop() {
			ip $family route del $route || :
		}
	EOF
	rc-update --quiet add sealer-default-route default
	rc-service --quiet sealer-default-route restart
	exit 0
fi
put /etc/systemd/system/sealer-default-route.service 0644 <<EOF
[Unit]
Description=Default route for k3s, on a host that has none
Wants=network-online.target
After=network-online.target
Before=k3s.service k3s-agent.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=ip $family route replace $route
ExecStop=-ip $family route del $route

[Install]
WantedBy=multi-user.target
EOF
systemctl daemon-reload
systemctl enable --quiet sealer-default-route
systemctl restart sealer-default-route
