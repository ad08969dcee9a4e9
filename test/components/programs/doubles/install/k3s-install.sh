#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Stands in for k3s' install.sh: the same environment, files, unit and order, and no downloads.
set -e
umask 022

info() { echo "[INFO] " "$@"; }
warn() { echo "[WARN] " "$@" >&2; }
fatal() { echo "[ERROR] " "$@" >&2; exit 1; }

journal() {
	names=$(env | sed -n 's/^\(INSTALL_K3S_[A-Z_]*\|K3S_[A-Z_]*\)=.*/"\1"/p' | sort | tr '\n' ',' | sed 's/,$//')
	printf '{"time":"%s","program":"k3s-install.sh","event":"run","args":["%s"],"environment":[%s]}\n' \
		"$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$(echo "$*" | sed 's/["\\]//g')" "$names" >>/var/log/k3s-double.jsonl
}

verify_system() {
	if [ -x /sbin/openrc-run ]; then HAS_OPENRC=true; return; fi
	if [ -x /bin/systemctl ] || type systemctl >/dev/null 2>&1; then HAS_SYSTEMD=true; return; fi
	fatal 'Can not find systemd or openrc to use as a process supervisor for k3s'
}

# The first word is the command; flags alone mean an agent where K3S_URL says whose, a server otherwise.
setup_env() {
	case "$1" in
	-* | "")
		if [ -z "$K3S_URL" ]; then CMD_K3S=server; else
			[ -n "$K3S_TOKEN" ] || [ -n "$K3S_TOKEN_FILE" ] || fatal "Defaulted k3s exec command to 'agent' because K3S_URL is defined, but K3S_TOKEN or K3S_TOKEN_FILE is not defined."
			CMD_K3S=agent
		fi ;;
	*) CMD_K3S=$1; shift ;;
	esac
	case "$K3S_URL" in "" | https://*) ;; *) fatal "Only https:// URLs are supported for K3S_URL (have $K3S_URL)" ;; esac
	CMD_K3S_EXEC="$CMD_K3S$(for a in "$@"; do printf ' \\\n\t%s' "'$(printf %s "$a" | sed "s/'/'\\\\''/g")'"; done)"
	SYSTEM_NAME=k3s
	if [ -n "$INSTALL_K3S_NAME" ]; then SYSTEM_NAME=k3s-$INSTALL_K3S_NAME; elif [ "$CMD_K3S" = agent ]; then SYSTEM_NAME=k3s-agent; fi
	case "$SYSTEM_NAME" in *[!A-Za-z0-9_-]*) fatal "Invalid characters for system name: $SYSTEM_NAME" ;; esac
	BIN_DIR=${INSTALL_K3S_BIN_DIR:-/usr/local/bin}
	SYSTEMD_DIR=${INSTALL_K3S_SYSTEMD_DIR:-/etc/systemd/system}
	SYSTEMD_TYPE=${INSTALL_K3S_TYPE:-notify}
	SERVICE_K3S=$SYSTEM_NAME.service
	KILLALL=${KILLALL_K3S_SH:-$BIN_DIR/k3s-killall.sh}
	UNINSTALL=${UNINSTALL_K3S_SH:-$BIN_DIR/$SYSTEM_NAME-uninstall.sh}
	if [ "$HAS_OPENRC" = true ]; then
		mkdir -p /etc/rancher/k3s
		FILE_K3S_ENV=/etc/rancher/k3s/$SYSTEM_NAME.env FILE_K3S_SERVICE=/etc/init.d/$SYSTEM_NAME
	else
		FILE_K3S_ENV=$SYSTEMD_DIR/$SERVICE_K3S.env FILE_K3S_SERVICE=$SYSTEMD_DIR/$SERVICE_K3S
	fi
	if [ "$INSTALL_K3S_BIN_DIR_READ_ONLY" = true ]; then INSTALL_K3S_SKIP_DOWNLOAD=true; fi
	PRE_INSTALL_HASHES=$(get_installed_hashes)
}

get_installed_hashes() { sha256sum "$BIN_DIR/k3s" "$FILE_K3S_SERVICE" "$FILE_K3S_ENV" 2>&1 || true; }

download_and_verify() {
	case "$INSTALL_K3S_SKIP_DOWNLOAD" in
	true | binary) [ -x "$BIN_DIR/k3s" ] || fatal "Executable k3s binary not found at $BIN_DIR/k3s" ;;
	*) fatal "Download failed: this script does not download (set INSTALL_K3S_SKIP_DOWNLOAD=true)" ;;
	esac
}

setup_selinux() {
	[ "$INSTALL_K3S_SKIP_SELINUX_RPM" = true ] || [ "$INSTALL_K3S_SKIP_DOWNLOAD" = true ] || [ ! -x /usr/sbin/getenforce ] || fatal 'Failed to find the k3s-selinux policy'
}

create_symlinks() {
	[ "$INSTALL_K3S_BIN_DIR_READ_ONLY" = true ] && return
	[ "$INSTALL_K3S_SYMLINK" = skip ] && return
	for cmd in kubectl crictl ctr; do
		if [ ! -e "$BIN_DIR/$cmd" ] || [ "$INSTALL_K3S_SYMLINK" = force ]; then
			which=$(command -v $cmd 2>/dev/null || true)
			if [ -z "$which" ] || [ "$INSTALL_K3S_SYMLINK" = force ]; then
				info "Creating $BIN_DIR/$cmd symlink to k3s"
				ln -sf k3s "$BIN_DIR/$cmd"
			else
				info "Skipping $BIN_DIR/$cmd symlink to k3s, command exists in PATH at $which"
			fi
		else
			info "Skipping $BIN_DIR/$cmd symlink to k3s, already exists"
		fi
	done
}

create_killall() {
	[ "$INSTALL_K3S_BIN_DIR_READ_ONLY" = true ] && return
	info "Creating killall script $KILLALL"
	cat >"$KILLALL" <<'EOF'
#!/bin/sh
[ "$(id -u)" -eq 0 ] || exec sudo --preserve-env=K3S_DATA_DIR "$0" "$@"
for bin in /var/lib/rancher/k3s/data/**/bin/; do [ -d "$bin" ] && export PATH=$PATH:$bin:$bin/aux; done
set -x
for service in /etc/systemd/system/k3s*.service; do [ -s "$service" ] && systemctl stop "$(basename "$service")"; done
for service in /etc/init.d/k3s*; do [ -x "$service" ] && "$service" stop; done
awk '$2 ~ "^/(run/k3s|var/lib/rancher/k3s|var/lib/kubelet/pods|var/lib/kubelet/plugins|run/netns/cni-)" {print $2}' /proc/self/mounts | sort -r | while read -r m; do umount -l "$m"; done
for link in cni0 flannel.1 flannel-v6.1 flannel-wg flannel-wg-v6 kube-ipvs0; do ip link delete "$link" 2>/dev/null; done
rm -rf /var/lib/cni/ /run/k3s/containerd
exit 0
EOF
	chmod 755 "$KILLALL"
}

create_uninstall() {
	[ "$INSTALL_K3S_BIN_DIR_READ_ONLY" = true ] && return
	info "Creating uninstall script $UNINSTALL"
	cat >"$UNINSTALL" <<EOF
#!/bin/sh
set -x
[ "\$(id -u)" -eq 0 ] || exec sudo --preserve-env=K3S_DATA_DIR "\$0" "\$@"
$KILLALL
if command -v systemctl >/dev/null; then
	systemctl disable $SYSTEM_NAME
	systemctl reset-failed $SYSTEM_NAME
	systemctl daemon-reload
fi
if command -v rc-update >/dev/null; then rc-update delete $SYSTEM_NAME default; fi
rm -f $FILE_K3S_SERVICE
rm -f $FILE_K3S_ENV
remove_uninstall() { rm -f $UNINSTALL; }
trap remove_uninstall EXIT
if (ls $SYSTEMD_DIR/k3s*.service || ls /etc/init.d/k3s*) >/dev/null 2>&1; then
	set +x; echo 'Additional k3s services installed, skipping uninstall of k3s'; set -x
	exit
fi
for cmd in kubectl crictl ctr; do
	if [ -L $BIN_DIR/\$cmd ]; then rm -f $BIN_DIR/\$cmd; fi
done
rm -rf /etc/rancher/k3s /run/k3s /run/flannel
rm -rf "\${K3S_DATA_DIR:-/var/lib/rancher/k3s}"
rm -rf /var/lib/kubelet
rm -f $BIN_DIR/k3s
rm -f $KILLALL
EOF
	chmod 755 "$UNINSTALL"
}

systemd_disable() {
	systemctl disable "$SYSTEM_NAME" >/dev/null 2>&1 || true
	rm -f "/etc/systemd/system/$SERVICE_K3S" "/etc/systemd/system/$SERVICE_K3S.env"
}

create_env_file() {
	info "env: Creating environment file $FILE_K3S_ENV"
	touch "$FILE_K3S_ENV"
	chmod 0600 "$FILE_K3S_ENV"
	sh -c export | while read -r _ v; do echo "$v"; done | grep -E '^(K3S|CONTAINERD)_' >"$FILE_K3S_ENV" || true
	sh -c export | while read -r _ v; do echo "$v"; done | grep -Ei '^(NO|HTTP|HTTPS)_PROXY' >>"$FILE_K3S_ENV" || true
}

create_openrc_service_file() {
	LOG_FILE=/var/log/$SYSTEM_NAME.log
	info "openrc: Creating service file $FILE_K3S_SERVICE"
	cat >"$FILE_K3S_SERVICE" <<EOF
#!/sbin/openrc-run

depend() {
    after network-online
    want cgroups
}

start_pre() {
    rm -f /tmp/k3s.*
}

supervisor=supervise-daemon
name=$SYSTEM_NAME
command="$BIN_DIR/k3s"
command_args="$CMD_K3S_EXEC
    >>$LOG_FILE 2>&1"

output_log=$LOG_FILE
error_log=$LOG_FILE

pidfile="/var/run/$SYSTEM_NAME.pid"
respawn_delay=5
respawn_max=0

set -o allexport
if [ -f /etc/environment ]; then . /etc/environment; fi
if [ -f $FILE_K3S_ENV ]; then . $FILE_K3S_ENV; fi
set +o allexport
EOF
	chmod 0755 "$FILE_K3S_SERVICE"
	mkdir -p /etc/logrotate.d
	cat >"/etc/logrotate.d/$SYSTEM_NAME" <<EOF
$LOG_FILE {
	missingok
	notifempty
	copytruncate
}
EOF
}

create_service_file() {
	if [ "$HAS_OPENRC" = true ]; then
		create_openrc_service_file
		return
	fi
	info "systemd: Creating service file $FILE_K3S_SERVICE"
	cat >"$FILE_K3S_SERVICE" <<EOF
[Unit]
Description=Lightweight Kubernetes
Documentation=https://k3s.io
Wants=network-online.target
After=network-online.target

[Install]
WantedBy=multi-user.target

[Service]
Type=$SYSTEMD_TYPE
EnvironmentFile=-/etc/default/%N
EnvironmentFile=-/etc/sysconfig/%N
EnvironmentFile=-$FILE_K3S_ENV
KillMode=process
Delegate=yes
User=root
# Having non-zero Limit*s causes performance problems due to accounting overhead
# in the kernel. We recommend using cgroups to do container-local accounting.
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
TimeoutStartSec=0
Restart=always
RestartSec=5s
ExecStartPre=-/sbin/modprobe br_netfilter
ExecStartPre=-/sbin/modprobe overlay
ExecStart=$BIN_DIR/k3s \\
    $CMD_K3S_EXEC

EOF
	chmod 0644 "$FILE_K3S_SERVICE"
}

service_enable_and_start() {
	[ "$INSTALL_K3S_SKIP_ENABLE" = true ] && return
	if [ "$HAS_OPENRC" = true ]; then rc-update add "$SYSTEM_NAME" default >/dev/null; else
		info "systemd: Enabling $SYSTEM_NAME unit"
		systemctl enable "$FILE_K3S_SERVICE" >/dev/null
		systemctl daemon-reload >/dev/null
	fi
	[ "$INSTALL_K3S_SKIP_START" = true ] && return
	POST_INSTALL_HASHES=$(get_installed_hashes)
	if [ "$PRE_INSTALL_HASHES" = "$POST_INSTALL_HASHES" ] && [ "$INSTALL_K3S_FORCE_RESTART" != true ]; then
		info 'No change detected so skipping service start'
		return
	fi
	info "systemd: Starting $SYSTEM_NAME"
	if [ "$HAS_OPENRC" = true ]; then "$FILE_K3S_SERVICE" restart; else systemctl restart "$SYSTEM_NAME"; fi
}

eval set -- "$INSTALL_K3S_EXEC" "$(for a in "$@"; do printf "'%s' " "$(printf %s "$a" | sed "s/'/'\\\\''/g")"; done)"
while [ $# -gt 0 ] && [ -z "$1" ]; do shift; done
journal "$@"
verify_system
setup_env "$@"
download_and_verify
setup_selinux
create_symlinks
create_killall
create_uninstall
[ "$HAS_SYSTEMD" != true ] || systemd_disable
create_env_file
create_service_file
service_enable_and_start
