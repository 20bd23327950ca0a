package podsource

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// suggest names the field that was probably meant, if one is close.
func suggest(name string, fields map[string]reflect.Type) string {
	best, least := "", 3
	for _, f := range slices.Sorted(maps.Keys(fields)) {
		if strings.EqualFold(f, name) {
			return fmt.Sprintf(" (did you mean %s?)", f)
		}
		if n := distance(name, f); n < least && 2*n < len(f) {
			best, least = f, n
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", best)
}

// distance is the number of letters to add, drop or change; 99 for long names.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 99
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
