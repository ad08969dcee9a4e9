#!/bin/sh
# Stands in for runc on a machine whose root does not have every capability: takes those that are missing out of the
# container's specification, which asks for all that the kernel knows. The engine's starter fills in both values.
missing='@MISSING@' runc='@RUNC@'

trim() {
	[ -f "$1" ] || return 0
	for capability in $missing; do
		sed -i "s/\"$capability\",//g; s/,\"$capability\"//g; s/\[\"$capability\"\]/[]/g" "$1"
	done
}

previous=
for argument in "$@"; do
	case $previous in
	--bundle | -b) trim "$argument/config.json" ;;
	--process | -p) trim "$argument" ;;
	esac
	case $argument in --bundle=*) trim "${argument#*=}/config.json" ;; --process=*) trim "${argument#*=}" ;; esac
	previous=$argument
done
exec "$runc" "$@"
