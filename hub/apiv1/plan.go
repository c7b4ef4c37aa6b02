// This file holds the wire types of plans.

package apiv1

// PlanBase is what a working tree is compared with: the files of main that people write.
type PlanBase struct {
	// Commit is the commit of main, 40 hex digits.
	Commit string `json:"commit"`
	// Files are Git's object ids of the files, by path: the SHA-1 of "blob SIZE", a zero byte and the content.
	Files map[string]string `json:"files"`
}

// PlanRequest is the body of POST /plans: changes that somebody thinks of.
type PlanRequest struct {
	Base  string     `json:"base,omitempty" maxLength:"40" doc:"The commit that the changes were made on, 7 to 40 digits; the newest of main by default. What changed on main since is merged by file."`
	Files []PlanFile `json:"files" maxItems:"5000" doc:"The files that change. Others stay as they are."`
}

// PlanFile is a file that changes.
type PlanFile struct {
	Path    string `json:"path" minLength:"1" maxLength:"250"`
	Content string `json:"content,omitempty" doc:"The new content, as text."`
	Removed bool   `json:"removed,omitempty" doc:"The file goes away."`
}

// Plan says what changes would lead to.
type Plan struct {
	// Commit is the commit of main that they were laid over.
	Commit string `json:"commit"`
	// Changed is how many of the files differ from main.
	Changed int         `json:"changed"`
	Faults  []PlanFault `json:"faults" doc:"What would have them refused; the rest is empty then."`
	// Certificates are those whose issue or whose servers change, by name.
	Certificates []PlanCertificate `json:"certificates"`
	// Servers are the names of the servers whose state changes, at most 100 of them; ServerCount counts all.
	Servers     []string `json:"servers"`
	ServerCount int      `json:"server_count"`
	Summary     []string `json:"summary" doc:"All of it and more in sentences, as a push is answered."`
}

// PlanFault is something that is wrong with a file.
type PlanFault struct {
	Path string `json:"path"`
	// Line is from 1; absent where it is not known.
	Line    int    `json:"line,omitempty"`
	Message string `json:"message"`
}

// What a plan does to a certificate.
const (
	PlanIssue   = "issue"
	PlanReissue = "reissue"
	PlanDeploy  = "deploy"
	PlanChange  = "change"
	PlanRemove  = "remove"
)

// PlanCertificate is what becomes of one certificate.
type PlanCertificate struct {
	Name   string `json:"name"`
	Action string `json:"action" enum:"issue,reissue,deploy,change,remove" doc:"issue: for the first time. reissue: again. deploy: to other servers or targets, as it is. change: neither, now. remove: no longer renewed or deployed."`
	Reason string `json:"reason" doc:"Why, in words."`
	Issuer string `json:"issuer,omitempty"`
	// Servers is how many servers will hold it.
	Servers int `json:"servers"`
	// Waves are how many servers have the new issue after each step; absent where all get it at once.
	Waves  []int  `json:"waves,omitempty"`
	Review string `json:"review,omitempty" enum:"required,two-person" doc:"Who must agree before the issue goes to servers; absent for nobody."`
}
