# shellcheck shell=sh
# Makes the service of k3s, as k3s' own installer does, for images that do not pack that. Its argument is server or agent.
# Nothing is started, now or at a boot: without its settings, which come later to /etc/rancher/k3s/config.yaml, k3s would begin a cluster
# of its own.
set -eu
command=$1
name=k3s
if [ "$command" = agent ]; then name=k3s-agent; fi

# put FILE MODE: standard input becomes the file, at once.
put() {
	cat >"$1.sealer-new"
	chmod "$2" "$1.sealer-new"
	mv -f "$1.sealer-new" "$1"
}

for tool in kubectl crictl ctr; do
	if ! command -v "$tool" >/dev/null 2>&1; then ln -s k3s "/usr/local/bin/$tool"; fi
done

if [ -d /run/openrc ] && [ ! -d /run/systemd/system ]; then
	put "/etc/init.d/$name" 0755 <<-EOF
		#!/sbin/openrc-run
		name=$name
		description="Lightweight Kubernetes"
		supervisor=supervise-daemon
		command=/usr/local/bin/k3s
		command_args="$command"
		output_log=/var/log/$name.log
		error_log=/var/log/$name.log
		pidfile=/run/$name.pid
		respawn_delay=5
		respawn_max=0
		rc_ulimit="-n 1048576"
		depend() {
			after network-online
			want cgroups
		}
	EOF
	mkdir -p /etc/logrotate.d
	put "/etc/logrotate.d/$name" 0644 <<-EOF
		/var/log/$name.log {
			missingok
			notifempty
			copytruncate
		}
	EOF
	exit 0
fi

# systemd is told that k3s is ready only once it has joined, which may never be: hence no limit to its start.
put "/etc/systemd/system/$name.service" 0644 <<EOF
[Unit]
Description=Lightweight Kubernetes
Documentation=https://k3s.io
Wants=network-online.target
After=network-online.target

[Install]
WantedBy=multi-user.target

[Service]
Type=notify
EnvironmentFile=-/etc/default/%N
EnvironmentFile=-/etc/sysconfig/%N
EnvironmentFile=-/etc/systemd/system/$name.service.env
KillMode=process
Delegate=yes
User=root
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
TimeoutStartSec=0
Restart=always
RestartSec=5s
ExecStartPre=-/sbin/modprobe br_netfilter
ExecStartPre=-/sbin/modprobe overlay
ExecStart=/usr/local/bin/k3s $command
EOF
systemctl daemon-reload
