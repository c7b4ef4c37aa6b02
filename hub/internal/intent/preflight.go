// This file reads wishes for who checks them and changes nothing.

package intent

import (
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub/apiv1"
)

// Wish is what spec would be on main, and its issuer. It fails as CreateCertificate would, but for a name that is taken.
func (s *Service) Wish(spec apiv1.CertificateSpec) (*manifest.Certificate, *manifest.Issuer, error) {
	snapshot, err := s.cfg.Store.Snapshot()
	if err != nil {
		return nil, nil, err
	}
	wish := certificateOf(spec)
	tree := treeOf(snapshot)
	if err := check(wish, tree); err != nil {
		return nil, nil, err
	}
	return wish, snapshot.Issuers[wish.Issuer], nil
}
