// Paging: each listing is ordered by a key and goes on after the last key of the page before.

package httpapi

import (
	"context"
	"slices"
	"strings"

	"github.com/certferry/certferry/hub/apiv1"
)

// scanPage is how many rows are read at a time where a search leaves most of them out.
const scanPage = 500

// PageInput is the part of an input that asks for one page. It is exported, as huma looks into exported fields only.
type PageInput struct {
	After string `query:"after" maxLength:"200" doc:"Next of the page before."`
	Limit int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"Length of the page."`
}

type searchInput struct {
	PageInput

	Query string `query:"q" maxLength:"100" doc:"Keeps objects whose name holds this text."`
}

type listOutput[T any] struct{ Body apiv1.List[T] }

// source is a listing before it is cut into pages.
type source[T any] struct {
	// fetch answers up to limit objects after a key, in order.
	fetch func(ctx context.Context, after string, limit int) ([]T, error)
	key   func(T) string
	// keep leaves objects out; nil keeps all.
	keep func(T) bool
}

// page answers one page of objects and the key of the next, "" on the last page.
func (l source[T]) page(ctx context.Context, after string, limit int) (items []T, next string, err error) {
	step := limit + 1
	if l.keep != nil {
		step = scanPage
	}
	for {
		rows, err := l.fetch(ctx, after, step)
		if err != nil {
			return nil, "", err
		}
		for _, row := range rows {
			if l.keep != nil && !l.keep(row) {
				continue
			}
			if len(items) == limit {
				return items, l.key(items[limit-1]), nil
			}
			items = append(items, row)
		}
		if len(rows) < step {
			return items, "", nil
		}
		after = l.key(rows[len(rows)-1])
	}
}

// list answers one page as the API shows it.
func list[T, V any](ctx context.Context, l source[T], in PageInput, view func(T) (V, error)) (*listOutput[V], error) {
	rows, next, err := l.page(ctx, in.After, in.Limit)
	if err != nil {
		return nil, err
	}
	out := &listOutput[V]{Body: apiv1.List[V]{Items: make([]V, 0, len(rows)), Next: next}}
	for _, row := range rows {
		v, err := view(row)
		if err != nil {
			return nil, err
		}
		out.Body.Items = append(out.Body.Items, v)
	}
	return out, nil
}

// sorted makes a source of keys that are in memory, in ascending order.
func sorted(keys []string) func(context.Context, string, int) ([]string, error) {
	return func(_ context.Context, after string, limit int) ([]string, error) {
		from, found := slices.BinarySearch(keys, after)
		if found {
			from++
		}
		return keys[from:min(from+limit, len(keys))], nil
	}
}

// holding matches names without regard to case; the empty text matches all and answers nil.
func holding[T any](text string, names func(T) []string) func(T) bool {
	if text == "" {
		return nil
	}
	text = strings.ToLower(text)
	return func(v T) bool {
		for _, n := range names(v) {
			if strings.Contains(strings.ToLower(n), text) {
				return true
			}
		}
		return false
	}
}
