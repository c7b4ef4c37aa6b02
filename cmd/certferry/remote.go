// This file shows the copies of the repository on other Git hosts.

package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
)

func remoteCommand() *cli.Command {
	return &cli.Command{
		Name: "remote", Usage: "copies of the repository on other Git hosts",
		Action: unknownCommand,
		Subcommands: []*cli.Command{{
			Name: "ls", Usage: "list the remotes and how they are doing",
			Action: listRemotes,
		}},
	}
}

func listRemotes(c *cli.Context) error {
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	var all []apiv1.Remote
	for item, err := range client.All(c.Context, hub.Remotes, client.Page{}) {
		if err != nil {
			return fmt.Errorf("list remotes: %w", err)
		}
		all = append(all, item)
	}
	return renderList(c, all, []string{"NAME", "STATE", "BEHIND", "LAST OK", "INTENT", "URL", "PROBLEM"}, func(r apiv1.Remote) []string {
		return []string{r.Name, r.State, fmt.Sprint(r.Behind), moment(r.LastOK), yesNo(r.Intent), r.URL, r.LastError}
	})
}

func moment(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return day(*t)
}
