// This file lays certificates of a second key type beside those whose files ask for them.

package gitstore

import (
	"errors"
	"maps"

	"github.com/certferry/certferry/gitstore/manifest"
)

var errSecondTaken = errors.New("the name of its second certificate is that of another one: rename one of them")

// withoutSeconds is a copy of the certificates that have a file of their own.
func (snap *Snapshot) withoutSeconds() map[string]*manifest.Certificate {
	all := maps.Clone(snap.Certificates)
	for name := range snap.Seconds {
		delete(all, name)
	}
	return all
}

// addSeconds fills in Seconds, and Certificates by it. A name that a file has of its own is left
// to that file.
func (snap *Snapshot) addSeconds() {
	snap.Seconds = map[string]string{}
	for name, c := range snap.Certificates {
		if c.SecondKeyType != "" {
			snap.Seconds[c.SecondName()] = name
		}
	}
	for second, first := range snap.Seconds {
		if _, taken := snap.Certificates[second]; taken {
			delete(snap.Seconds, second)
			snap.Faults = append(snap.Faults, Fault{Path: manifest.CertificatePath(first), Err: errSecondTaken})
			continue
		}
		snap.Certificates[second] = snap.Certificates[first].Second()
	}
}
