#!/bin/sh
# A training in a shell: made data, a line fitted by awk, the result packed by gzip. All that it starts is measured.
#
#     carbon-exporter run --job fit -- sh examples/shell_train.sh
#
# Arguments: epochs (3), rows (100000). No line of it knows of carbon-exporter.
set -eu
epochs=${1:-3} rows=${2:-100000}
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

awk -v rows="$rows" 'BEGIN { srand(1); for (i = 0; i < rows; i++) { x = rand(); print x, 3 * x + 1 + rand() / 10 } }' \
  >"$place/data"

line="0 0"
epoch=0
while [ "$epoch" -lt "$epochs" ]; do
  epoch=$((epoch + 1))
  line=$(awk -v line="$line" '
    BEGIN { split(line, at); slope = at[1]; height = at[2] }
    { error = slope * $1 + height - $2; slope -= 0.00002 * error * $1; height -= 0.00002 * error }
    END { print slope, height }' "$place/data")
  echo "epoch $epoch: slope and height $line"
done

echo "$line" | gzip >"$place/model.gz"
gzip -dc "$place/model.gz"
