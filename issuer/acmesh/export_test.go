package acmesh

// Mask hides credentials as a run would.
func Mask(credentials map[string]string, text string) string {
	h := &home{credentials: credentials}
	h.finishMask()
	return h.mask.Replace(text)
}

// CurlScript stands before curl.
const CurlScript = "shell/curl.sh"
