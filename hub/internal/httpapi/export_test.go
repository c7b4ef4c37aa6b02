package httpapi

// Waits says whether a heartbeat of the server waits.
func (b *Bell) Waits(server string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiting[server] != nil
}
