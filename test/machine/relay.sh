#!/usr/bin/env bash
# Copies what a test machine's job prints, line by line, up to its "exit N" line,
# and exits with N; with 255 if the machine never said it. (awk and sed would do,
# if they did not collect their input in blocks.)
set -euo pipefail
while IFS= read -r line; do
	if [[ $line =~ ^exit\ ([0-9]+)$ ]]; then
		exit "${BASH_REMATCH[1]}"
	fi
	printf '%s\n' "$line"
done
exit 255
