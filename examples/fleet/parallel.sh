#!/bin/sh
# One conversion by N workers of this machine (or of several, with parallel --sshlogin): every worker makes its shards.
#
#   MODEL=path/to/model OUT=out WORKERS=4 TYPES="Q4_K_M Q8_0" SPLIT=5G examples/fleet/parallel.sh
#
# Uses GNU parallel where it is installed, else xargs, else one worker after the other. Run it again after whatever
# stopped it: finished parts are left alone, others go on where they were.
set -eu

: "${MODEL:?the checkpoint folder or GGUF file}" "${OUT:=out}" "${WORKERS:=4}" "${TYPES:=Q4_K_M}" "${SPLIT:=5G}"
: "${QUANTCLI:=quantcli}" "${THREADS:=1}" "${JOBS:=$WORKERS}"
export MODEL OUT WORKERS TYPES SPLIT QUANTCLI THREADS
mkdir -p "$OUT"

part='
    done="$OUT/part-$1.sha256"
    [ -e "$done" ] && exit 0
    set -- "$1" $(for type in $TYPES; do printf " -t %s" "$type"; done)
    number=$1; shift
    exec $QUANTCLI convert "$MODEL" "$@" --split-max-size "$SPLIT" --part "$number/$WORKERS" --resume \
        --threads "$THREADS" --checksums "$done" -o "$OUT/" --quiet
'
numbers=$(seq 1 "$WORKERS")
if command -v parallel >/dev/null 2>&1; then
    echo "$numbers" | parallel --halt soon,fail=1 -j "$JOBS" sh -c "'$part'" part {}
elif echo 1 | xargs -P 1 true 2>/dev/null; then
    echo "$numbers" | xargs -P "$JOBS" -I{} sh -c "$part" part {}
else
    for number in $numbers; do sh -c "$part" part "$number"; done
fi
$QUANTCLI assemble "$OUT" --checksums "$OUT/SHA256SUMS"
