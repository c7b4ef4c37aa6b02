// This file holds the text inside a sealed bundle.

package bundle_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/certferry/certferry/gitstore/bundle"
)

func TestEncodedFormat(t *testing.T) {
	t.Parallel()
	b, _, _ := good(t)
	h := bundle.Header{Certificate: "www", Server: "web-1", LeafSHA256: b.LeafSHA256()}
	data, err := bundle.Encode(h, b)
	if err != nil {
		t.Fatal(err)
	}
	// The form is fixed by this text; keys and certificates are new in each run and stand for themselves.
	key, err := b.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	want := "certferry-bundle-v1\n" + `{"certificate":"www","server":"web-1","leaf_sha256":"` + b.LeafSHA256() + `"}` + "\n\n" +
		string(b.FullChainPEM()) + string(key)
	if string(data) != want {
		t.Errorf("encoded:\n%s\nwant:\n%s", data, want)
	}
	gotHeader, got, err := bundle.Decode(data)
	if err != nil || gotHeader != h || got.SPKISHA256() != b.SPKISHA256() || len(got.Chain) != 1 {
		t.Errorf("decoded %+v %v", gotHeader, err)
	}
	text := string(data)
	for name, other := range map[string]string{
		"another version": strings.Replace(text, "-v1", "-v2", 1),
		"no header":       "certferry-bundle-v1\n",
		"damaged header":  strings.Replace(text, `{"`, `{`, 1),
		"unknown key":     strings.Replace(text, `{"c`, `{"x":1,"c`, 1),
		"another leaf":    strings.Replace(text, b.LeafSHA256(), strings.Repeat("0", 64), 1),
		"space":           text + " ",
		"a line more":     strings.Replace(text, "\n\n", "\n\n\n", 1),
		"cut off":         text[:len(text)-30],
		"too large":       text + strings.Repeat(" ", bundle.MaxSize),
	} {
		if _, _, err := bundle.Decode([]byte(other)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := bundle.Encode(bundle.Header{LeafSHA256: "x"}, b); err == nil {
		t.Error("a header for another leaf was encoded")
	}
	if _, err := bundle.Encode(h, &bundle.Bundle{}); err == nil {
		t.Error("a bundle without a leaf was encoded")
	}
	if _, err := bundle.Encode(bundle.Header{Certificate: strings.Repeat("x", bundle.MaxSize), LeafSHA256: b.LeafSHA256()}, b); err == nil {
		t.Error("more was encoded than can be decoded")
	}
	b.Key = nil
	if data, err = bundle.Encode(h, b); err != nil || bytes.Contains(data, []byte("PRIVATE")) {
		t.Errorf("without a key: %v", err)
	}
	if _, got, err := bundle.Decode(data); err != nil || got.Key != nil {
		t.Errorf("decoded without a key: %v", err)
	}
}

// TestGoldenBundle holds that what an earlier build wrote is read by every later one. The private key of this leaf was
// thrown away; a bundle whose key stays elsewhere has none.
func TestGoldenBundle(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/bundle.golden")
	if err != nil {
		t.Fatal(err)
	}
	h, b, err := bundle.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if h.Certificate != "www" || h.Server != "web-1" || h.LeafSHA256 != b.LeafSHA256() || len(b.Chain) != 1 || b.Key != nil {
		t.Errorf("decoded %+v with a chain of %d", h, len(b.Chain))
	}
	if err := b.Check(names, start); err != nil {
		t.Error(err)
	}
	if again, err := bundle.Encode(h, b); err != nil || !bytes.Equal(again, data) {
		t.Errorf("encoded in another form: %v\n%s", err, again)
	}
}

func FuzzDecode(f *testing.F) {
	b, _, _ := good(f)
	data, err := bundle.Encode(bundle.Header{Certificate: "www", LeafSHA256: b.LeafSHA256()}, b)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		h, b, err := bundle.Decode(data)
		if err != nil {
			return
		}
		if again, err := bundle.Encode(h, b); err != nil || !bytes.Equal(again, data) {
			t.Errorf("another form was read: %v", err)
		}
	})
}

func FuzzParse(f *testing.F) {
	b, _, _ := good(f)
	key, err := b.KeyPEM()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b.FullChainPEM())
	f.Add(append(b.FullChainPEM(), key...))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := bundle.ParseChain(data); err == nil && !bytes.Contains(data, []byte("-----BEGIN CERTIFICATE-----")) {
			t.Error("a chain was made of nothing")
		}
		b, err := bundle.Parse(data)
		if err != nil {
			return
		}
		// What was read is ordered, and reading it again changes nothing.
		again, err := bundle.Parse(b.FullChainPEM())
		if b.Key == nil && (err != nil || !bytes.Equal(again.FullChainPEM(), b.FullChainPEM())) {
			t.Errorf("another bundle: %v", err)
		}
	})
}
