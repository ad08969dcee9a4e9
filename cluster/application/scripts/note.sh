#!/bin/sh
# Stands before kubectl and helm while an application is launched: what their commands make is noted in the file
# $SEALER_NOTES, one line each, so that it can be waited for, and taken away later. SEALER_PATH has the programs
# themselves. What they print, and their exit status, are their own.
#   O <tab> apiVersion <tab> kind <tab> namespace <tab> name     an object that was applied or created
#   R <tab> namespace <tab> name                                 a release of helm
PATH=$SEALER_PATH
export PATH
umask 077
tab=$(printf '\t')
temp=
trap 'rm -rf -- "$temp"' EXIT
trap 'exit 130' HUP INT TERM

# What helm has of its releases, in the order of their names.
releases() {
	kubectl get secrets --all-namespaces --selector owner=helm --output \
		'go-template={{range .items}}{{.metadata.namespace}}{{"\t"}}{{.metadata.labels.name}}{{"\t"}}{{.metadata.labels.version}}{{"\n"}}{{end}}'
}

note_helm() {
	case " $* " in
	*" install "* | *" upgrade "*) ;;
	*) exec helm "$@" ;;
	esac
	case " $* " in
	*" --dry-run"* | *" --help "* | *" -h "*) exec helm "$@" ;;
	esac
	temp=$(mktemp -d) || exit 1
	releases >"$temp/before" || exit 1
	helm "$@"
	status=$?
	releases >"$temp/after"
	while IFS=$tab read -r namespace name version; do
		grep -qxF -- "$namespace$tab$name$tab$version" "$temp/before" && continue
		for word; do # another operator's release may have changed meanwhile
			case $word in
			"$name" | --generate-name | -g)
				printf 'R\t%s\t%s\n' "$namespace" "$name" >>"$SEALER_NOTES"
				break
				;;
			esac
		done
	done <"$temp/after"
	exit "$status"
}

objects='go-template={{define "o"}}O{{"\t"}}{{.apiVersion}}{{"\t"}}{{.kind}}{{"\t"}}{{with .metadata.namespace}}{{.}}{{end}}{{"\t"}}{{.metadata.name}}{{"\n"}}{{end}}{{if .items}}{{range .items}}{{template "o" .}}{{end}}{{else}}{{template "o" .}}{{end}}'

note_kubectl() {
	verb='' skip='' input='' dry=client
	for word; do
		if [ -n "$skip" ]; then
			[ "$skip $word" != 'file -' ] || input=1
			skip=''
			continue
		fi
		case $word in
		--) break ;;
		-f | --filename) skip='file' ;;
		-f- | -f=- | --filename=-) input=1 ;;
		-n | -s | -o | -k | -l | -v | --namespace | --server | --output | --kustomize | --selector | --kubeconfig | --context | \
			--cluster | --user | --as | --as-group | --as-uid | --token | --request-timeout | --cache-dir | --field-manager) skip=1 ;;
		--server-side | --server-side=true) dry=server ;;
		--dry-run | --dry-run=client | --dry-run=server | -h | --help) exec kubectl "$@" ;;
		-*) ;;
		*) verb=${verb:-$word} ;;
		esac
	done
	case $verb in
	apply | create | replace | run | expose | autoscale) ;;
	*) exec kubectl "$@" ;;
	esac
	temp=$(mktemp -d) || exit 1
	if [ -n "$input" ]; then
		cat >"$temp/input" || exit 1
		kubectl "$@" <"$temp/input"
	else
		kubectl "$@"
	fi
	status=$?
	# The same once more, without effect: a command that failed has made a part of it, perhaps.
	[ -n "$input" ] || : >"$temp/input"
	n=$# placed=
	while [ "$n" -gt 0 ]; do
		word=$1
		shift
		n=$((n - 1))
		if [ "$word" = -- ] && [ -z "$placed" ]; then
			set -- "$@" --dry-run="$dry" --output "$objects"
			placed=1
		fi
		set -- "$@" "$word"
	done
	[ -n "$placed" ] || set -- "$@" --dry-run="$dry" --output "$objects"
	kubectl "$@" <"$temp/input" 2>/dev/null | grep "^O$tab" >>"$SEALER_NOTES"
	exit "$status"
}

case ${0##*/} in
helm) note_helm "$@" ;;
*) note_kubectl "$@" ;;
esac
