package gitrepo

import (
	"container/list"
	"sync"
)

// cache keeps the values used last whose costs sum up to at most its size.
type cache[V any] struct {
	mu    sync.Mutex
	size  int
	used  int
	order *list.List
	items map[Hash]*list.Element
}

type cacheItem[V any] struct {
	key   Hash
	value V
	cost  int
}

func newCache[V any](size int) *cache[V] {
	return &cache[V]{size: size, order: list.New(), items: map[Hash]*list.Element{}}
}

func (c *cache[V]) get(key Hash) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.items[key]; ok {
		c.order.MoveToFront(el)
		if item, ok := el.Value.(*cacheItem[V]); ok {
			return item.value, true
		}
	}
	var zero V
	return zero, false
}

func (c *cache[V]) put(key Hash, value V, cost int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.items[key]; ok || cost > c.size {
		return
	}
	c.items[key] = c.order.PushFront(&cacheItem[V]{key: key, value: value, cost: cost})
	c.used += cost
	for c.used > c.size {
		oldest := c.order.Back()
		item, ok := c.order.Remove(oldest).(*cacheItem[V])
		if !ok {
			return
		}
		delete(c.items, item.key)
		c.used -= item.cost
	}
}
