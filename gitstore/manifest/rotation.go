// This file says what a server signs when it replaces its key.

package manifest

// ServerKeyDomain precedes the ASCII-armored new public key of a server in what its old key signs. It binds the new key
// to one server of one repository.
func ServerKeyDomain(repoID, server string) string {
	return "certferry-server-key-v1\n" + repoID + "\n" + server + "\n"
}
