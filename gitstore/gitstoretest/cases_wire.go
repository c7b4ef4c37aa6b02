// This file lists the attacks on how a state travels: packs and answers that are endless, slow, cut off, or bombs.

package gitstoretest

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

func decimal(n int) string { return strconv.Itoa(n) }

// packing is a case in which the pack is made by hand; the branch is at a commit that it should hold.
func packing(name, reason string, fill func(*Attack, *pack)) Case {
	return Case{Name: name, Says: reason, remote: func(a *Attack) *Remote {
		h, p := packed(a.Next)
		fill(a, p)
		return &Remote{Tip: h.String(), Pack: p.bytes()}
	}}
}

// altered is a case in which the bytes of the honest pack are changed at the end.
func altered(name, reason string, change func(data []byte) []byte) Case {
	return Case{Name: name, Says: reason, remote: func(a *Attack) *Remote {
		r := Honest("", a.Next)
		r.Pack = change(r.Pack)
		return r
	}}
}

func packCases() []Case {
	const trailer = 20
	return slices.Concat(deltaCases(), []Case{
		packing("1 GiB in a megabyte", "64 MiB", func(_ *Attack, p *pack) { p.raw(blob, 1<<30, nil, zeros(1<<10)) }),
		packing("1 GiB that says it is small", "does not inflate", func(_ *Attack, p *pack) { p.raw(blob, 100, nil, zeros(1<<10)) }),
		packing("a few bytes that say they are 1 GiB", "64 MiB", func(_ *Attack, p *pack) { p.raw(blob, 1<<30, nil, deflate([]byte("x"))) }),
		packing("many objects of 1 MiB", "too large", func(_ *Attack, p *pack) {
			one := zeros(1)
			for range 900 {
				p.raw(blob, 1<<20, nil, one)
			}
		}),
		packing("a billion objects", "too large", func(_ *Attack, p *pack) { p.count = 1 << 30 }),
		packing("fewer objects than announced", "", func(_ *Attack, p *pack) { p.count += 2 }),
		packing("more objects than announced", "", func(_ *Attack, p *pack) { p.count-- }),
		packing("object of an unknown kind", "", func(_ *Attack, p *pack) { p.raw(plumbing.ObjectType(5), 1, nil, deflate([]byte("x"))) }),
		packing("size of ten bytes", "", func(_ *Attack, p *pack) {
			p.body.Write(slices.Repeat([]byte{0xff}, 12))
			p.count++
		}),
		altered("pack is cut off", "checksum", func(data []byte) []byte { return data[:len(data)/2] }),
		altered("pack is cut off, with a checksum", "", func(data []byte) []byte { return summed(data[: len(data)/2 : len(data)/2]) }),
		altered("wrong checksum", "checksum", func(data []byte) []byte {
			data[len(data)-1] ^= 1
			return data
		}),
		altered("flipped bit, with a checksum", "", func(data []byte) []byte {
			data[len(data)/2] ^= 1
			return summed(data[: len(data)-trailer : len(data)-trailer])
		}),
		altered("nothing", "no pack", func([]byte) []byte { return nil }),
		altered("pack of another version", "version 2", func(data []byte) []byte {
			binary.BigEndian.PutUint32(data[4:], 3)
			return summed(data[: len(data)-trailer : len(data)-trailer])
		}),
	})
}

func deltaCases() []Case {
	// grow is a delta that copies five bytes of its base, which has five.
	grow := []byte{5, 5, 0x90, 5}
	some := plumbing.ComputeHash(blob, []byte("some"))
	other := plumbing.ComputeHash(blob, []byte("other"))
	return []Case{
		packing("delta on itself", "base", func(_ *Attack, p *pack) { p.raw(ofsDelta, int64(len(grow)), []byte{0}, deflate(grow)) }),
		packing("deltas on each other", "base", func(_ *Attack, p *pack) {
			p.raw(refDelta, int64(len(grow)), some[:], deflate(grow))
			p.raw(refDelta, int64(len(grow)), other[:], deflate(grow))
		}),
		packing("delta that comes before its base", "base", func(_ *Attack, p *pack) {
			p.raw(refDelta, int64(len(grow)), some[:], deflate(grow))
			p.object(blob, []byte("some"))
		}),
		packing("delta on what lies before the pack", "base", func(_ *Attack, p *pack) {
			p.raw(ofsDelta, int64(len(grow)), []byte{0xff, 0xff, 0xff, 0x7f}, deflate(grow))
		}),
		packing("600 deltas in a chain", "chain", func(_ *Attack, p *pack) {
			last := p.object(blob, []byte("00000"))
			for n := range 600 {
				text := fmt.Appendf(nil, "%05d", n+1)
				delta := append([]byte{5, 5, 5}, text...)
				p.raw(refDelta, int64(len(delta)), last[:], deflate(delta))
				last = plumbing.ComputeHash(blob, text)
			}
		}),
		packing("delta that grows to a terabyte", "too large", func(_ *Attack, p *pack) {
			base := p.object(blob, []byte("hello"))
			delta := append([]byte{5}, binary.AppendUvarint(nil, 1<<40)...)
			p.raw(refDelta, int64(len(delta)), base[:], deflate(delta))
		}),
		packing("deltas that grow tenfold each", "too large", func(_ *Attack, p *pack) {
			data := make([]byte, 1<<16)
			last := p.object(blob, data)
			for n := range 3 {
				delta := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(len(data))), uint64(len(data))*10)
				for range 10 {
					for from := 0; from < len(data); from += 1 << 16 {
						// Copy 64 KiB, which a size of none means, from a 32-bit offset (gitformat-pack).
						delta = binary.LittleEndian.AppendUint32(append(delta, 0x8f), uint32(from))
					}
				}
				p.raw(refDelta, int64(len(delta)), last[:], deflate(delta))
				if n < 2 {
					data = make([]byte, len(data)*10)
					last = plumbing.ComputeHash(blob, data)
				}
			}
		}),
	}
}

// answerCases do not keep to the protocol.
func answerCases() []Case {
	listing := func(name string, outcome Outcome, reason string, list http.HandlerFunc) Case {
		return Case{Name: name, Outcome: outcome, Says: reason, remote: func(*Attack) *Remote { return &Remote{list: list} }}
	}
	fetching := func(name string, outcome Outcome, reason string, fetch func(a *Attack) http.HandlerFunc) Case {
		return Case{Name: name, Outcome: outcome, Says: reason, remote: func(a *Attack) *Remote {
			r := Honest("", a.Next)
			r.fetch = fetch(a)
			return r
		}}
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	elsewhere := func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, "http://127.0.0.1:1/steal", http.StatusTemporaryRedirect)
	}
	slow := listing("one byte a second", Away, "slow", trickle)
	slow.Slow = true
	slowPack := fetching("pack of one byte a second", Away, "slow", func(*Attack) http.HandlerFunc { return trickle })
	slowPack.Slow = true
	return []Case{
		slow, slowPack,
		listing("redirect to another host", Away, "redirects", elsewhere),
		fetching("redirect of a fetch to another host", Away, "redirects", func(*Attack) http.HandlerFunc { return elsewhere }),
		listing("a million references", Refused, "too large", func(w http.ResponseWriter, _ *http.Request) {
			greet(w)
			for n := range 1_000_000 {
				if !write(w, line(fmt.Sprintf("%040x refs/heads/servers/web-%d\n", n, n+1000))) {
					return
				}
			}
		}),
		listing("references without an end", Refused, "too large", func(w http.ResponseWriter, _ *http.Request) {
			greet(w)
			for write(w, line(strings.Repeat("a", 40)+" refs/heads/servers/"+strings.Repeat("x", 60000)+"\n")) {
			}
		}),
		listing("a page for people", Away, "does not speak Git", func(w http.ResponseWriter, _ *http.Request) { write(w, "<html>log in</html>") }),
		listing("lines of a bad length", Away, "", func(w http.ResponseWriter, _ *http.Request) {
			greet(w)
			write(w, "zzzz")
		}),
		listing("name of a commit that is none", Away, "malformed", func(w http.ResponseWriter, _ *http.Request) {
			greet(w)
			write(w, line("../../../../etc/passwd refs/heads/servers/web-1\n")+"0000")
		}),
		listing("no access any more", Away, "denied", status(http.StatusUnauthorized)),
		listing("broken", Away, "502", status(http.StatusBadGateway)),
		fetching("pack without an end", Refused, "too large", func(*Attack) http.HandlerFunc { return endless(1) }),
		fetching("progress without an end", Refused, "too large", func(*Attack) http.HandlerFunc { return endless(2) }),
		fetching("line of an unknown kind", Refused, "", func(*Attack) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { write(w, line("hello\n")) }
		}),
		fetching("connection cut in the middle", Away, "", func(a *Attack) http.HandlerFunc {
			_, data := Pack(a.Next)
			return func(w http.ResponseWriter, _ *http.Request) {
				write(w, line("NAK\n")+fmt.Sprintf("%04x\x01", len(data)+5)+string(data[:100]))
				panic(http.ErrAbortHandler)
			}
		}),
	}
}

// endless sends a side band until nobody listens.
func endless(channel byte) http.HandlerFunc {
	text := band(channel, make([]byte, 60000))
	return func(w http.ResponseWriter, _ *http.Request) {
		for write(w, text) {
		}
	}
}

// trickle sends a byte each second.
func trickle(w http.ResponseWriter, req *http.Request) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for write(w, "0") {
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case <-tick.C:
		case <-req.Context().Done():
			return
		}
	}
}
