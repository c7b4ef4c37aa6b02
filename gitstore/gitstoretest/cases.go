// This file lists the attacks on what a branch says: who signed it, for whom, when, and what it leads to.

package gitstoretest

import (
	"bytes"
	"net/http"
	"slices"
	"strings"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
)

// Outcome is what a server must make of an attack; what it serves stays the same in each case.
type Outcome int

// The outcomes.
const (
	// Refused: the state is bad, and the server reports so to the hub.
	Refused Outcome = iota
	// Away: nothing was said that can be judged. The server says in its heartbeat that the remote does not serve it.
	Away
	// Frozen: the state is good and old. The server is alarmed once the hub says that there is a newer one.
	Frozen
)

// Case is one hostile remote.
type Case struct {
	Name    string
	Outcome Outcome
	// Says is a part of the reason that the server gives.
	Says string
	// Slow says that it takes all the time that the limits allow.
	Slow bool

	remote func(*Attack) *Remote
}

// Remote plays the case.
func (c Case) Remote(a *Attack) *Remote {
	r := c.remote(a)
	r.Ref = manifest.ServerBranch(a.Server)
	return r
}

// Cases lists all hostile remotes.
func Cases() []Case {
	return slices.Concat(signatureCases(), stateCases(), bundleCases(), sharedCases(), treeCases(), commitCases(), packCases(), answerCases())
}

// says is a case in which the branch holds other files.
func says(name, reason string, files func(*Attack) map[string][]byte) Case {
	return Case{Name: name, Says: reason, remote: func(a *Attack) *Remote { return Honest("", files(a)) }}
}

// drafted is a case in which the next state was changed before it was signed.
func drafted(name, reason string, change func(*Attack, *draft)) Case {
	return says(name, reason, func(a *Attack) map[string][]byte {
		d := a.next()
		change(a, d)
		return must(a.files(d))
	})
}

func signatureCases() []Case {
	const noKeyring, noManifest = "keyring is not signed by the pinned root key", "manifest is not signed by a key of the keyring"
	return []Case{
		says("empty branch", noKeyring, func(*Attack) map[string][]byte { return map[string][]byte{"hello": []byte("x")} }),
		says("unsigned manifest", noManifest, func(a *Attack) map[string][]byte { return with(a.Next, manifest.SignatureFile, nil) }),
		says("unsigned keyring", noKeyring, func(a *Attack) map[string][]byte { return with(a.Next, manifest.KeyringSigFile, nil) }),
		drafted("manifest signed by a stranger", noManifest, func(a *Attack, d *draft) { d.manifestBy, d.bundleBy = a.stranger, a.stranger }),
		drafted("manifest signed by another server", noManifest, func(a *Attack, d *draft) { d.manifestBy, d.bundleBy = a.neighbour, a.neighbour }),
		drafted("manifest signed by a retired key", noManifest, func(a *Attack, d *draft) { d.manifestBy, d.bundleBy = a.Retired, a.Retired }),
		drafted("retired key with its own keyring", "keyring version 1 is older than version 2", func(a *Attack, d *draft) { d.of(1, a.Retired) }),
		drafted("retired key that says the newest keyring", "keyring version 1 is older than version 2", func(a *Attack, d *draft) {
			d.of(1, a.Retired)
			d.manifest.KeyringVersion = 2
		}),
		drafted("keyring of a stranger", noKeyring, func(a *Attack, d *draft) {
			d.of(3, a.stranger)
			d.ringBy = a.stranger
		}),
		drafted("keyring that the hub's own key signed", noKeyring, func(a *Attack, d *draft) {
			d.of(3, a.stranger)
			d.ringBy = a.Signing
		}),
		says("manifest with two signatures", noManifest, func(a *Attack) map[string][]byte {
			by := func(k *seal.PrivateKey) []byte {
				return must(seal.Sign(manifest.SignatureDomain, a.Next[manifest.File], k, a.Now))
			}
			return with(a.Next, manifest.SignatureFile, slices.Concat(by(a.Signing), by(a.stranger)))
		}),
		says("signature of another manifest", noManifest, func(a *Attack) map[string][]byte {
			return with(a.Next, manifest.SignatureFile, a.Present[manifest.SignatureFile])
		}),
		says("signature of another kind of document", noManifest, func(a *Attack) map[string][]byte {
			return with(a.Next, manifest.SignatureFile, must(seal.Sign(manifest.KeyringSignatureDomain, a.Next[manifest.File], a.Signing, a.Now)))
		}),
		says("manifest changed by a byte", noManifest, func(a *Attack) map[string][]byte {
			return with(a.Next, manifest.File, append(slices.Clone(a.Next[manifest.File]), '\n'))
		}),
	}
}

// stateCases are honest words said at the wrong time or to the wrong server. Where the hub's own key signs them, the
// hub was set back to an old copy, or its key was stolen a moment ago.
func stateCases() []Case {
	return []Case{
		says("older generation", "keyring version 1 is older", func(a *Attack) map[string][]byte { return a.Earlier }),
		drafted("older generation by today's key", "generation 4 is older than generation 5", func(_ *Attack, d *draft) { d.manifest.Generation = 4 }),
		drafted("same generation with other bytes", "generation 5 comes with other content", func(_ *Attack, d *draft) { d.manifest.Generation = 5 }),
		drafted("next generation of another line", "generation 6 does not follow", func(_ *Attack, d *draft) { d.manifest.PrevManifestSHA256 = digest(nil) }),
		drafted("generation 2^64-1", "read manifest", func(_ *Attack, d *draft) {
			d.encode = func(m *manifest.Manifest) ([]byte, error) {
				data, err := m.Encode()
				return bytes.Replace(data, []byte(`"generation":6,`), []byte(`"generation":18446744073709551615,`), 1), err
			}
		}),
		drafted("generation 2^53-1 by a retired key", "manifest is not signed", func(a *Attack, d *draft) {
			d.manifest.Generation, d.manifestBy = 1<<53-1, a.Retired
		}),
		drafted("branch of another server", "manifest belongs to server web-2", func(a *Attack, d *draft) {
			d.manifest.Server, d.header.Server = "web-2", "web-2"
			d.manifest.ServerKeyFpr, d.sealTo = a.neighbour.Fingerprint(), a.neighbour.Public()
		}),
		drafted("state for another key of the server", "manifest is for another key", func(a *Attack, d *draft) {
			d.manifest.ServerKeyFpr = a.stranger.Fingerprint()
		}),
		drafted("state of another repository", "manifest belongs to another repository", func(_ *Attack, d *draft) { d.manifest.RepoID = "repo-2" }),
		drafted("manifest twice in one", "read manifest", func(_ *Attack, d *draft) {
			d.encode = func(m *manifest.Manifest) ([]byte, error) {
				data, err := m.Encode()
				return bytes.Replace(data, []byte(`"generation":6,`), []byte(`"generation":6,"generation":7,`), 1), err
			}
		}),
		{Name: "frozen", Outcome: Frozen, remote: func(a *Attack) *Remote { return Honest("", a.Present) }},
		{Name: "branch is gone", Outcome: Frozen, remote: func(*Attack) *Remote { return &Remote{} }},
	}
}

func bundleCases() []Case {
	path := func(a *Attack) string { return manifest.BundlePath(a.Certificate) }
	return []Case{
		says("bundle is missing", "is missing", func(a *Attack) map[string][]byte { return with(a.Next, path(a), nil) }),
		says("bundle of an earlier state", "the manifest", func(a *Attack) map[string][]byte { return with(a.Next, path(a), a.Present[path(a)]) }),
		says("bundle wrapped anew by another server", "the manifest", func(a *Attack) map[string][]byte {
			plain := must(bundle.Encode(bundle.Header{Certificate: a.Certificate, Server: a.Server, LeafSHA256: a.Bundles[2].LeafSHA256()}, a.Bundles[2]))
			return with(a.Next, path(a), must(seal.Seal(plain, a.Agent, a.neighbour, a.Now)))
		}),
		says("bundle changed by a bit", "is not the one that the manifest names", func(a *Attack) map[string][]byte {
			data := slices.Clone(a.Next[path(a)])
			data[len(data)-1] ^= 1
			return with(a.Next, path(a), data)
		}),
		drafted("bundle that a stranger signed", "open bundle", func(a *Attack, d *draft) { d.bundleBy = a.stranger }),
		drafted("bundle sealed to another server", "open bundle", func(a *Attack, d *draft) { d.sealTo = a.neighbour.Public() }),
		drafted("bundle made for another server", "was made for another server", func(_ *Attack, d *draft) { d.header.Server = "web-2" }),
		drafted("copy for the hub's escrow", "was made for another server", func(_ *Attack, d *draft) { d.header.Server = "" }),
		drafted("bundle of another certificate", "holds certificate", func(_ *Attack, d *draft) { d.header.Certificate = "other" }),
		drafted("another issue than the manifest names", "holds another issue", func(a *Attack, d *draft) {
			d.bundle, d.header.LeafSHA256 = a.Bundles[1], a.Bundles[1].LeafSHA256()
		}),
	}
}

// sharedCases attack a body that the server shares with a neighbour, which the attacker took over.
func sharedCases() []Case {
	return []Case{
		says("shared body is missing", "is missing", func(a *Attack) map[string][]byte { return with(a.SharedNext, manifest.BundlePath(a.Certificate), nil) }),
		says("shared body of the same issue, sealed again", "is not the one that the manifest names", func(a *Attack) map[string][]byte {
			again := must(a.files(a.next().share()))
			return with(a.SharedNext, manifest.BundlePath(a.Certificate), again[manifest.BundlePath(a.Certificate)])
		}),
		says("key packet of the same issue, sealed again", "manifest is not signed", func(a *Attack) map[string][]byte {
			again := must(a.files(a.next().share()))
			return with(a.SharedNext, manifest.File, again[manifest.File])
		}),
		drafted("shared body whose key packet is the neighbour's", "open bundle", func(a *Attack, d *draft) { d.share().sealTo = a.neighbour.Public() }),
		drafted("shared body that a stranger signed", "open bundle", func(a *Attack, d *draft) { d.share().bundleBy = a.stranger }),
		drafted("shared body that names a server", "was made for another server", func(a *Attack, d *draft) { d.share().header.Server = a.Server }),
	}
}

// rooted is a case in which the commit's folder is made by hand.
func rooted(name, reason string, root func(*Attack, *pack) id) Case {
	return Case{Name: name, Says: reason, remote: func(a *Attack) *Remote {
		p := &pack{}
		h := p.object(commit, commitData(root(a, p), ""))
		return &Remote{Tip: h.String(), Pack: p.bytes()}
	}}
}

// besides is a case in which the next state has one more entry.
func besides(name, mode, file string) Case {
	return rooted(name, "", func(a *Attack, p *pack) id {
		content := p.object(blob, []byte("/etc/cron.d/evil"))
		if mode == modeFolder {
			content = p.object(tree, treeData(entry{modeFile, "config", content}))
		}
		return p.object(tree, treeData(append([]entry{{mode, file, content}}, p.folder(a.Next)...)...))
	})
}

func treeCases() []Case {
	deep := func(levels int) func(*Attack, *pack) id {
		return func(a *Attack, p *pack) id {
			inner := p.object(tree, treeData(p.folder(a.Next)...))
			for range levels {
				inner = p.object(tree, treeData(entry{modeFolder, "a", inner}))
			}
			return inner
		}
	}
	return []Case{
		besides("file called ..", modeFile, ".."),
		besides("folder called ..", modeFolder, ".."),
		besides("path with slashes", modeFile, "../../../etc/cron.d/evil"),
		besides("absolute path", modeFile, "/etc/cron.d/evil"),
		besides("folder called .git", modeFolder, ".git"),
		besides("folder called .GIT", modeFolder, ".GIT"),
		besides("name without letters", modeFile, ""),
		besides("name with a line break", modeFile, "a\nb"),
		besides("symbolic link", modeSymlink, "a"),
		besides("submodule", modeSubmodule, "a"),
		besides("manifest twice", modeFile, manifest.File),
		rooted("folders 10,000 deep", "too large", deep(10_000)),
		rooted("folders 500 deep", "nested", deep(500)),
		rooted("a file that is a thousand files of a thousand", "too large", func(_ *Attack, p *pack) id {
			inner := p.object(blob, []byte("x"))
			mode := modeFile
			for range 3 {
				var all []entry
				for n := range 1000 {
					all = append(all, entry{mode, "a" + strings.Repeat("0", 4-len(decimal(n))) + decimal(n), inner})
				}
				inner, mode = p.object(tree, treeData(all...)), modeFolder
			}
			return inner
		}),
		rooted("folder that is a file", "", func(_ *Attack, p *pack) id {
			return p.object(tree, treeData(entry{modeFolder, "a", p.object(blob, []byte("x"))}))
		}),
	}
}

func commitCases() []Case {
	// written is a case in which the commit has further headers.
	written := func(name, headers string) Case {
		return Case{Name: name, remote: func(a *Attack) *Remote {
			p := &pack{}
			root := p.object(tree, treeData(p.folder(a.Next)...))
			h := p.object(commit, commitData(root, strings.ReplaceAll(headers, "ROOT", root.String())))
			return &Remote{Tip: h.String(), Pack: p.bytes()}
		}}
	}
	return []Case{
		written("commit with two trees", "tree ROOT\n"),
		written("commit with two signatures", "gpgsig a\n b\ngpgsig c\n d\n"),
		written("commit with two authors", "author Eve <eve@example.com> 1795435200 +0000\n"),
		{Name: "another commit than asked for", Says: "another commit", remote: func(a *Attack) *Remote {
			r := Honest("", a.Next)
			r.Tip = strings.Repeat("ab", 20)
			return r
		}},
		{Name: "commit is a file", Says: "another commit", remote: func(*Attack) *Remote {
			p := &pack{}
			h := p.object(blob, []byte("x"))
			return &Remote{Tip: h.String(), Pack: p.bytes()}
		}},
		{Name: "answer with status 304 to a fetch", Says: "no pack", remote: func(a *Attack) *Remote {
			r := Honest("", a.Next)
			r.fetch = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) }
			return r
		}},
	}
}
