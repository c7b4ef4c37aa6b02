// This file says which files main may hold, and checks their content.

package gitstore

import (
	"errors"
	"fmt"
	"strings"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
)

// Names on the branch main.
const (
	readme          = "README.md"
	certificatesDir = "certificates"
	serversDir      = "servers"
	issuersDir      = "issuers"
	issuedDir       = "issued"
	rolloutsDir     = "rollouts"
	certificateFile = "certificate.yaml"
	chainFile       = "chain.pem"
	bundleFile      = "bundle.pgp"
	leafFile        = "leaf.pem"
)

var (
	errUnexpected = errors.New("does not belong here")
	errOtherName  = errors.New("the name inside differs from the file's")
)

// decoder decodes a document that must bear name.
type decoder[T any] func(name string, data []byte) (*T, error)

func decodeCertificate(name string, data []byte) (*manifest.Certificate, error) {
	v, err := manifest.DecodeCertificate(data)
	if err == nil && v.Name != name {
		return nil, errOtherName
	}
	return v, err
}

func decodeServer(name string, data []byte) (*manifest.Server, error) {
	v, err := manifest.DecodeServer(data)
	if err == nil && v.Name != name {
		return nil, errOtherName
	}
	return v, err
}

func decodeIssuer(name string, data []byte) (*manifest.Issuer, error) {
	v, err := manifest.DecodeIssuer(data)
	if err == nil && v.Name != name {
		return nil, errOtherName
	}
	return v, err
}

func decodeIssued(name string, data []byte) (*manifest.IssuedCertificate, error) {
	v, err := manifest.DecodeIssued(data)
	if err == nil && v.Name != name {
		return nil, errOtherName
	}
	return v, err
}

func decodeRollout(name string, data []byte) (*manifest.Rollout, error) {
	v, err := manifest.DecodeRollout(data)
	if err == nil && v.Name != name {
		return nil, errOtherName
	}
	return v, err
}

// checkEdit refuses a file that a Snapshot would have to report as a fault.
func checkEdit(e gitrepo.Edit) error {
	dir, rest, _ := strings.Cut(e.Path, "/")
	name, isYAML := strings.CutSuffix(rest, ".yaml")
	var err error
	switch {
	case e.Path == readme:
		return nil
	case dir == issuedDir:
		err = checkIssuedEdit(e)
	case !isYAML || manifest.ValidName(name) != nil:
		err = errUnexpected
	case dir == certificatesDir:
		_, err = decodeUnless(e.Delete, decodeCertificate, name, e.Data)
	case dir == serversDir:
		_, err = decodeUnless(e.Delete, decodeServer, name, e.Data)
	case dir == issuersDir:
		_, err = decodeUnless(e.Delete, decodeIssuer, name, e.Data)
	case dir == rolloutsDir:
		_, err = decodeUnless(e.Delete, decodeRollout, name, e.Data)
	default:
		err = errUnexpected
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrInvalid, e.Path, err)
	}
	return nil
}

func decodeUnless[T any](skip bool, decode decoder[T], name string, data []byte) (*T, error) {
	if skip {
		return nil, nil //nolint:nilnil // a removed file has no content to judge
	}
	return decode(name, data)
}

// checkIssuedEdit checks issued/<xx>/<name>/<file>.
func checkIssuedEdit(e gitrepo.Edit) error {
	parts := strings.Split(e.Path, "/")
	if len(parts) != 4 || manifest.ValidName(parts[2]) != nil || manifest.IssuedDir(parts[2]) != strings.Join(parts[:3], "/") {
		return errUnexpected
	}
	var err error
	switch parts[3] {
	case certificateFile:
		_, err = decodeUnless(e.Delete, decodeIssued, parts[2], e.Data)
	case chainFile:
		if !e.Delete {
			_, err = bundle.ParseChain(e.Data)
		}
	case leafFile:
		if !e.Delete {
			_, err = parseLeaf(e.Data)
		}
	case bundleFile:
	default:
		err = errUnexpected
	}
	return err
}
