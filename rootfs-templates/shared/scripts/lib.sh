# shellcheck shell=sh disable=SC2034
# What the other scripts share: placing files so that taking them away again is exact. POSIX sh.
#
# Every path that is placed is written to $STATE/NAME.list before it is touched:
#   F path   a file; what was there before is kept in $STATE/saved/path
#   D path   a folder that was not there before; removed when it is empty
#   T path   a folder that was not there before, with all that will be in it
#   C path   a folder that was there and empty: all that will be in it

# DISTRIBUTION, which the script sets before it reads this, names the folder.
STATE=/var/lib/sealer/${DISTRIBUTION:?}
HERE=$(cd "$(dirname "$0")" && pwd)
ROOTFS=$(dirname "$HERE")

say() { printf '%s\n' "$*"; }
die() { printf '%s\n' "$*" >&2; exit 1; }

# begin NAME: the list to write to, and a copy of the scripts that take away what it will name.
begin() {
	LIST=$STATE/$1.list
	mkdir -p "$STATE/scripts" "$STATE/saved"
	chmod 0700 "$STATE"
	touch "$LIST"
	for script in "$HERE/lib.sh" "$HERE/host.sh" "$HERE"/clean-*.sh "$HERE"/uninstall-*.sh; do
		kept=$STATE/scripts/$(basename "$script")
		if [ ! -e "$script" ] || cmp -s "$script" "$kept"; then
			continue
		fi
		cp "$script" "$kept.new"
		chmod 0755 "$kept.new"
		mv -f "$kept.new" "$kept"
	done
}

# listed KIND PATH: is it ours already?
listed() { grep -qxF "$1 $2" "$LIST"; }

# note KIND PATH
note() { listed "$1" "$2" || printf '%s %s\n' "$1" "$2" >>"$LIST"; }

# folder PATH: make it and what it lies in, noting what was not there.
folder() {
	[ -d "$1" ] && return 0
	folder "$(dirname "$1")"
	listed T "$1" || note D "$1"
	mkdir "$1"
}

# parents PATH: note the folders that are not there, without making them.
parents() {
	[ -d "$1" ] && return 0
	parents "$(dirname "$1")"
	note D "$1"
}

# tree PATH: whatever will be in the folder is ours, unless something is in it already.
tree() {
	if listed T "$1" || listed C "$1"; then
		return 0
	elif [ ! -e "$1" ]; then
		parents "$(dirname "$1")"
		note T "$1"
	elif [ -d "$1" ] && [ -z "$(ls -A "$1")" ]; then
		note C "$1"
	fi
}

# claim PATH: keep what is there before we write over it.
claim() {
	listed F "$1" && return 0
	if [ -e "$1" ] || [ -h "$1" ]; then
		mkdir -p "$STATE/saved$(dirname "$1")"
		cp -a "$1" "$STATE/saved$1.part"
		mv -f "$STATE/saved$1.part" "$STATE/saved$1"
	fi
	note F "$1"
}

# place SOURCE TARGET MODE: the target changes at once and whole, also while it is being executed.
# CHANGED becomes 1 where anything had to be done.
CHANGED=0
place() {
	if [ -h "$1" ]; then
		place_link "$1" "$2"
		return 0
	fi
	folder "$(dirname "$2")"
	claim "$2"
	[ ! -h "$2" ] && cmp -s "$1" "$2" && return 0
	cp "$1" "$2.sealer-new"
	chmod "$3" "$2.sealer-new"
	mv -f "$2.sealer-new" "$2"
	CHANGED=1
}

# place_link: a link beside its target, as with programs that are one file under several names, stays a link.
place_link() {
	aim=$(readlink "$1")
	case $aim in
	*/*) die "$1 links to $aim, which is not beside it" ;;
	esac
	place "$(dirname "$1")/$aim" "$(dirname "$2")/$aim" 0755
	claim "$2"
	[ "$(readlink "$2" 2>/dev/null)" = "$aim" ] && return 0
	ln -sf "$aim" "$2.sealer-new"
	mv -f "$2.sealer-new" "$2"
	CHANGED=1
}

# take_away NAME: everything on the list, last first.
take_away() {
	[ -f "$STATE/$1.list" ] || return 0
	sed '1!G;h;$!d' "$STATE/$1.list" | while read -r kind path; do
		case $path in
		/?*/?*) ;; # never / itself, nor a folder directly below it
		*) continue ;;
		esac
		case $kind in
		F)
			rm -f "$path" "$path.sealer-new"
			if [ -e "$STATE/saved$path" ] || [ -h "$STATE/saved$path" ]; then
				mv -f "$STATE/saved$path" "$path"
			fi
			;;
		D) rmdir "$path" 2>/dev/null || : ;;
		T) remove_tree "$path" ;;
		C) for entry in "$path"/* "$path"/.[!.]*; do
			if [ -e "$entry" ] || [ -h "$entry" ]; then
				remove_tree "$entry"
			fi
		done ;;
		esac
	done
	rm -f "$STATE/$1.list"
}

# remove_tree PATH: with what is still mounted in it.
remove_tree() {
	unmount_below "$1"
	rm -rf "$1"
}

# unmount_below PATH: deepest first. Mount points are written with \040 for a space (proc_mounts(5)).
unmount_below() {
	awk -v top="$1" '$2 == top || index($2, top "/") == 1 { print $2 }' /proc/self/mounts | sort -r |
		while IFS= read -r point; do
			umount "$(printf '%b' "$point")" 2>/dev/null || umount -l "$(printf '%b' "$point")" || :
		done
}

# finish: the last script to clean removes the state.
finish() {
	for list in "$STATE"/*.list; do
		[ -e "$list" ] && return 0
	done
	rm -rf "$STATE"
	rmdir /var/lib/sealer 2>/dev/null || :
}
